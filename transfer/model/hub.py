"""A saved network as a folder that timm loads, in the layout of the Hugging Face Hub: config.json,
model.safetensors and README.md."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from transfer import files
from transfer.cli import UserError, one_line
from transfer.images.fit import FILL
from transfer.model import exported, saved
from transfer.params import Component
from transfer.training import loader, models, zoo
from transfer.training.components import OWN

WEIGHTS = "model.safetensors"
FILES = {"config.json", WEIGHTS, "README.md"}
ABOUT = "---\nlibrary_name: timm\ntags: [image-classification]\n---\n"
"""The part of README.md that the Hub reads."""
MODES = {"crop": "center", "pad": "border", "squash": "squash"}
"""What timm calls each pack.fit."""
STRUCTURE = ("architecture", "input_size", "fixed_input_size", "min_input_size", "pool_size",
             "first_conv", "classifier", "num_classes")  # fmt: skip
"""The entries of a network's pretrained_cfg about the network itself. The others are about timm's
weights, such as their licence and tag."""


def check(
    path: Path, backbone: str, activation: Component, pooling: Component, fit: str = "crop"
) -> None:
    """Raise UserError, before training, for a network that timm cannot build or would give other
    images, and for a folder with other content, which would be lost."""
    names = {file.name for file in path.iterdir()} if path.is_dir() else set()
    readme = path / "README.md"
    ours = names == FILES and readme.read_text(encoding="utf-8", errors="replace").startswith(ABOUT)
    if path.is_symlink() or path.exists() and not path.is_dir() or names and not ours:
        raise UserError(f"--hub: {path} holds other files; give a new folder")
    try:
        import timm
    except ImportError:
        raise UserError("--hub: timm is missing; pip install timm") from None
    if not timm.is_model(backbone):
        raise UserError(f"--hub: timm has no network {backbone}")
    for name, value in {"activation": activation, "pooling": pooling}.items():
        if value.name != OWN:
            raise UserError(f"--hub: timm's {backbone} cannot have another train.{name}")
    if fit == "pad" and fill(backbone) != FILL:
        raise UserError(
            f"--hub: timm pads images for {backbone} in another grey than pack.fit: pad does; "
            "set it to squash or crop"
        )


def export(model: nn.Module, card: saved.Card, images: torch.Tensor, page: str, path: Path) -> None:
    """Write the folder. The weights of its head are divided by the card's temperature, so that its
    probabilities equal those of `predict`. page: for README.md.

    Raises UserError, as exported.check_equal does, and leaves no folder, if timm predicts the
    prepared images, uint8 [n, size, size, 3], differently.
    """
    import timm
    from timm.models import save_for_hf

    inner = model.network if isinstance(model, zoo.Network) else model
    native = timm.create_model(card.backbone, num_classes=len(card.labels))
    try:
        native.load_state_dict(inner.state_dict())
    except RuntimeError as error:
        raise UserError(f"--hub: timm's {card.backbone} differs: {one_line(error)}") from None
    native.pretrained_cfg = {
        name: value for name, value in native.pretrained_cfg.items() if name in STRUCTURE
    }
    head: Any = native.get_classifier()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.div_(card.temperature)
    mean, std = normalised_by(model)
    share = card.size / card.resize if card.fit == "crop" else 1.0
    data = {"input_size": (3, card.size, card.size), "crop_pct": share}
    data |= {"mean": mean, "std": std, "interpolation": "bilinear", "crop_mode": MODES[card.fit]}
    about: dict[str, Any] = {"label_names": card.labels}
    with files.replacing(path) as part:
        save_for_hf(native, str(part), about, safe_serialization=True, data_config=data)
        weights = (part / WEIGHTS).read_bytes()
        (part / WEIGHTS).unlink()  # safetensors' own writing makes a file private
        (part / WEIGHTS).write_bytes(weights)
        (part / "README.md").write_text(ABOUT + page, encoding="utf-8")
        again = timm.create_model(f"local-dir:{part.resolve()}", pretrained=True).eval()
        _compare(again, model, card, images, path)


def fill(backbone: str) -> tuple[int, ...]:
    """The colour in which timm pads images for the network."""
    mean, _ = normalised_by(models.architecture(backbone)(num_classes=2))
    return tuple(round(255 * value) for value in mean)


def normalised_by(model: nn.Module) -> tuple[list[float], list[float]]:
    """The mean and the standard deviation of each channel that the network expects."""
    if not isinstance(model, zoo.Network):
        return list(loader.MEAN), list(loader.STD)
    scale, shift = model.normalization.scale.flatten(), model.normalization.shift.flatten()
    std = torch.tensor(loader.STD) / scale
    mean = torch.tensor(loader.MEAN) - shift * std
    return mean.tolist(), std.tolist()


def _compare(
    again: nn.Module, model: nn.Module, card: saved.Card, images: torch.Tensor, path: Path
) -> None:
    mean, std = (torch.tensor(values)[:, None, None] for values in normalised_by(model))
    with torch.inference_mode():
        found = again((images.permute(0, 3, 1, 2) / 255 - mean) / std).softmax(1).numpy()
    expected = saved.probabilities(model, images, card.temperature)
    exported.check_equal(path, "timm's", found, expected)
