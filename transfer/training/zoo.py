"""timm's networks. Nothing else imports timm, which only those who name one of them need.

A network is built by its architecture's name, such as convnext_tiny; the name of its weights is
timm's tag, such as fb_in22k_ft_in1k.
"""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import nn

from transfer.cli import UserError, one_line
from transfer.training.augment import MEAN, STD

SCALE, SHIFT = "normalization.scale", "normalization.shift"
"""The tensors of a checkpoint that say how its network's input is normalised."""


class Normalization(nn.Module):
    """From images normalised by augment.MEAN and STD, float32 [n, 3, h, w], to the same normalised
    by another mean and standard deviation of each channel."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        by_channel = list(zip(MEAN, STD, mean, std, strict=True))
        scale = torch.tensor([ours / own for _, ours, _, own in by_channel])
        shift = torch.tensor([(middle - m) / own for middle, _, m, own in by_channel])
        self.register_buffer("scale", scale[:, None, None])
        self.register_buffer("shift", shift[:, None, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale + self.shift


class Network(nn.Module):
    """A network of timm's that takes images as a ResNet of torchvision's does."""

    def __init__(self, backbone: str, num_classes: int | None = None, **options: Any) -> None:
        """num_classes: as many as its weights have, if not given. options: of timm.create_model."""
        super().__init__()
        import timm

        classes = {} if num_classes is None else {"num_classes": num_classes}
        self.network = timm.create_model(backbone, **classes, **options)
        about = self.network.pretrained_cfg
        self.normalization = Normalization(about["mean"], about["std"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(self.normalization(x))

    @property
    def head(self) -> Any:
        """Its classifier: a linear layer, or what a network without such a head has there."""
        return self.network.get_classifier()

    @property
    def size(self) -> int:
        """The side of the images that it was made for, in pixels."""
        return self.network.pretrained_cfg["input_size"][1]

    def groups(self, coarse: bool) -> list[list[nn.Parameter]]:
        """The parameters of its stem, of each stage after it (coarse) or block, and of its head.
        Raises ValueError for a network for which timm does not say."""
        from timm.models import group_parameters

        if not hasattr(self.network, "group_matcher"):
            raise ValueError("timm does not say what the stages of this backbone are")
        found = group_parameters(self.network, self.network.group_matcher(coarse=coarse))
        named = dict(self.network.named_parameters())
        return [[named[name] for name in found[key]] for key in sorted(found)]


def check(backbone: str, others: list[str]) -> None:
    """Raise UserError unless timm has a network of that name with one linear head. others: names
    that are not timm's, to be named with close ones."""
    where = "params.yaml: grid.backbone"
    try:
        import timm
    except ModuleNotFoundError:
        known = ", ".join(others)
        raise UserError(
            f"{where}: {backbone!r} is none of {known}; for networks of timm's: pip install timm"
        ) from None
    if "." in backbone or not timm.is_model(backbone):
        close = get_close_matches(backbone.partition(".")[0], [*others, *timm.list_models()])
        names = ", ".join(close or others[:2])
        raise UserError(f"{where}: timm has no network {backbone!r}; close are {names}")
    with torch.device("meta"):
        head = Network(backbone, num_classes=7).head
    if not isinstance(head, nn.Linear):
        raise UserError(
            f"{where}: {backbone} does not end in one linear layer, and so has no head to train "
            "alone; take another"
        )


def tags(backbone: str) -> list[str]:
    """The names of its weights."""
    import timm

    return [name.partition(".")[2] for name in timm.list_pretrained(f"{backbone}.*")]


def fetch(backbone: str, tag: str) -> Path:
    """The file of these weights, downloaded from timm's place on Hugging Face's hub unless it is in
    the hub's cache. Raises UserError where that fails."""
    import timm
    from huggingface_hub import hf_hub_download

    about = timm.get_pretrained_cfg(f"{backbone}.{tag}")
    name = about.hf_hub_filename or "model.safetensors"
    try:
        return Path(hf_hub_download(about.hf_hub_id, name))
    except Exception as error:  # of several libraries, by what went wrong
        raise UserError(
            f"{about.hf_hub_id}/{name}: {one_line(error)}; fetch it by other means and set "
            f"weights.{backbone}.source in params.yaml to the file"
        ) from None


def convert(backbone: str, tag: str, state: dict[str, torch.Tensor], source: str) -> dict[str, Any]:
    """The weights, by the names of Network, of the file `source`. Raises UserError for another
    network's."""
    import timm

    name = f"{backbone}.{tag}" if tag else backbone
    about = timm.get_pretrained_cfg(name)
    weight = state.get(f"{about.classifier}.weight")
    # Without one by that name, its names are older, or it has no head.
    counts = [about.num_classes, 0] if weight is None else [len(weight)]
    errors = []
    for classes in counts:
        given = {"state_dict": state, "num_classes": classes}
        try:
            model = Network(name, classes, pretrained=True, pretrained_cfg_overlay=given)
        except (RuntimeError, KeyError, AttributeError) as error:
            errors.append(one_line(error))
        else:
            return model.state_dict()
    raise UserError(f"{source}: not weights of {name}: {errors[0]}")
