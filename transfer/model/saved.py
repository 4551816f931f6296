"""A trained network in one safetensors file, with everything needed to predict with it.

The fields of a Card are the file's metadata, as strings. A small file holds only the tensors that
differ from the starting checkpoint, which the card names.
"""

import json
import os
from math import inf, nan
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import torch
from pydantic import ConfigDict, Field, ValidationError, model_validator
from pydantic_core import from_json
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialized
from torch import nn

from transfer import files
from transfer.cli import UserError, one_line
from transfer.files import Fields
from transfer.images import reader
from transfer.images.reader import Decoding
from transfer.model import out_of_distribution
from transfer.model.out_of_distribution import FeatureDistribution
from transfer.params import Backbone, Component, Named, Side
from transfer.training import components, loader, models
from transfer.training.loader import CHUNK

FORMAT = "3"
WHOLE = 200e6
"""Bytes from which on only the tensors that training changed are saved."""
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
DISTRIBUTION = "training_features.mean", "training_features.precision"
"""The tensors of out_of_distribution.FeatureDistribution, beside the network's own."""


class Card(Fields):
    """What a file says about its network.

    labels: the classes in the order of the outputs. decoding: how images are read. resize, size,
    fit: see transfer.images.fit. mean, std: see loader.normalize. run, seed, epoch (from 0): where
    the weights come from. accuracy, low, high: on the run's n test images, with its 95 % interval
    (Wilson 1927). temperature: divides the outputs before the softmax, see
    transfer.evidence.calibration. confidence_threshold: below it `predict` says *unsure*; chosen
    for an error rate of `risk`, with a `guarantee` or without. ood_distance: beyond it `predict`
    says *none of these*, see transfer.model.out_of_distribution. Both are None if unknown. start,
    start_sha256: the checkpoint that training started from. start_source: where anyone can find it,
    or ''. start_needed: whether the file lacks tensors that the checkpoint holds. data_sha256: of
    the packed pixels. versions, device, commit: packages, hardware and code that trained it.
    """

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    which_transfer: str = FORMAT
    backbone: Backbone
    labels: Annotated[list[str], Field(min_length=2)]
    decoding: Decoding = reader.PAPER
    resize: Side
    size: Side
    fit: Annotated[str, Field(pattern="^(crop|pad|squash)$")] = "crop"
    mean: tuple[float, ...] = Field(loader.MEAN, strict=False)
    std: tuple[float, ...] = Field(loader.STD, strict=False)
    activation: Named
    pooling: Named
    run: str
    seed: Count
    epoch: Count
    accuracy: Share
    low: Share
    high: Share
    n: Count
    temperature: float = Field(1.0, ge=0.05, le=20)  # as calibration.fit has it
    risk: Share = 0.0
    guarantee: bool = False
    confidence_threshold: Share | None = None
    ood_distance: Annotated[float, Field(ge=0)] | None = None
    start: str
    start_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    start_source: str
    start_needed: bool
    data_sha256: str
    versions: dict[str, str]
    device: str
    commit: str

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.size > self.resize:
            raise ValueError(f"size {self.size} is larger than resize {self.resize}")
        if len(set(self.labels)) < len(self.labels):
            raise ValueError("labels: two of them are equal")
        if (self.mean, self.std) != (loader.MEAN, loader.STD):
            raise ValueError("it normalises images in another way than this code")
        bounds = self.decoding.low, self.decoding.high
        low, high = (nan if bound is None else bound for bound in bounds)
        if bounds != (None, None) and not 0 <= high - low < inf:
            raise ValueError(f"decoding: images cannot be scaled from {bounds[0]} to {bounds[1]}")
        return self

    def metadata(self) -> dict[str, str]:
        """Text unchanged, everything else as JSON; activation and pooling as in params.yaml."""
        return {name: _text(value) for name, value in self}


def _text(value: Any) -> str:
    if isinstance(value, Decoding):
        value = value.model_dump()
    if isinstance(value, Component):
        value = value.plain
    return value if isinstance(value, str) else json.dumps(value, allow_nan=False)


def _value(name: str, text: str) -> Any:
    kind = Card.model_fields[name].annotation
    # A component may be a bare name.
    return text if kind is str or (kind is Component and text[:1] != "{") else from_json(text)


def parse(metadata: dict[str, str]) -> Card:
    """The inverse of Card.metadata. Raises ValueError for other metadata and invalid fields."""
    fields = {name: text for name, text in metadata.items() if name in Card.model_fields}
    if "which_transfer" not in fields:
        raise ValueError("it has no metadata of a kept network")
    return Card.model_validate({name: _value(name, text) for name, text in fields.items()})


def stored_tensors(
    model: nn.Module, start: Path, distribution: FeatureDistribution, small: bool
) -> tuple[models.State, bool]:
    """The tensors to save, on the CPU, and whether loading them needs the starting checkpoint.

    If `small`, or if the network has WHOLE bytes or more, these are only the tensors that differ
    from the checkpoint's. A small file leaves out the feature distribution, too.
    """
    state = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    start_needed = False
    if small or sum(value.nbytes for value in state.values()) >= WHOLE:
        network_tensors = len(state)
        state = differing(state, models.load_checkpoint(start))
        start_needed = len(state) < network_tensors
    if not small:
        arrays = distribution.mean, distribution.precision
        state |= dict(zip(DISTRIBUTION, map(torch.from_numpy, arrays), strict=True))
    return state, start_needed


def differing(state: models.State, start: models.State) -> models.State:
    """The tensors that the checkpoint lacks or that differ from it in any bit. Compared as loaded,
    which turns half precision into single."""
    return {
        name: value
        for name, value in state.items()
        if name not in start or not torch.equal(value, start[name].to(value.dtype))
    }


def save(path: str | Path, card: Card, state: models.State) -> None:
    tensors = {name: value.contiguous() for name, value in state.items()}
    with files.replacing(path) as part:
        # safetensors' own writer makes the file private, and its errors say less than the system's.
        part.write_bytes(serialized(tensors, card.metadata()))


def load(path: str | Path, weights: str | Path | None = None) -> tuple[Card, nn.Module]:
    """The card and the network, on the CPU and in eval().

    weights: the starting checkpoint, needed only if find_start cannot find it. Raises UserError for
    a missing or invalid file, for NaN or infinite weights, and for a missing or different
    checkpoint.
    """
    card, state = _read(Path(path))
    if card.start_needed:
        state = models.load_checkpoint(find_start(card, path, weights)) | state
    try:
        model = _network(card, state)
    except Exception as error:  # the type depends on the network
        raise UserError(f"{path}: not a complete model: {one_line(error)}") from None
    models.check_finite(model.state_dict(), path)
    return card, model


def _read(path: Path) -> tuple[Card, models.State]:
    if not os.path.isfile(path):
        raise UserError(f"{path}: no such file; `python -m transfer keep` makes one")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if (version := metadata.get("which_transfer", FORMAT)) != FORMAT:
                raise UserError(
                    f"{path}: has format {version[:20]}, and this version reads format {FORMAT}; "
                    "save the network again with `python -m transfer keep`"
                )
            card, names = parse(metadata), file.keys()
            return card, {name: file.get_tensor(name) for name in names}
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        why = ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))[:200]
    except (SafetensorError, ValueError) as error:
        why = one_line(error)
    raise UserError(f"{path}: not a model made by `python -m transfer keep`: {why}")


def load_distribution(path: str | Path) -> FeatureDistribution | None:
    """The distribution of the training images' features; None if the file does not hold it."""
    with safe_open(path, "pt") as file:
        if not set(DISTRIBUTION) <= set(file.keys()):
            return None
        return FeatureDistribution(*(file.get_tensor(name).numpy() for name in DISTRIBUTION))


def _network(card: Card, state: models.State) -> nn.Module:
    models.check_backbones([card.backbone])
    # models.shape() would take two seconds more.
    model = models.architecture(card.backbone)(num_classes=len(card.labels))
    components.replace_activation(model, card.activation)
    components.replace_pooling(model, card.pooling)
    names = model.state_dict().keys()
    model.load_state_dict({name: value for name, value in state.items() if name in names})
    return model.eval().requires_grad_(False)


def find_start(card: Card, path: str | Path, given: str | Path | None = None) -> Path:
    """The checkpoint `given`; else the first with the right sha256 among the card's path (from the
    working directory), the file's folder and torch hub's cache. Raises UserError if none is."""
    # torch hub ends a file's name in the first eight digits of its sha256.
    cached = (Path(torch.hub.get_dir()) / "checkpoints").glob(f"*-{card.start_sha256[:8]}.*")
    start = Path(card.start)
    places = [Path(given)] if given else [start, Path(path).parent / start.name, *sorted(cached)]
    present = [place for place in places if os.path.isfile(place)]
    for place in present:
        if files.sha256(place) == card.start_sha256:
            return place
    source = f"{card.start_source}, " if card.start_source else ""
    needed = f"{path} needs its starting checkpoint ({source}sha256 {card.start_sha256})"
    problem = f"{present[0]}: another file" if present else f"{places[0]}: no such file"
    raise UserError(f"{problem}; {needed}; give it as --weights")


def probabilities(model: nn.Module, images: torch.Tensor, temperature: float = 1.0) -> np.ndarray:
    """Class probabilities, float32 [n, classes], of prepared images, uint8 [n, size, size, 3]."""
    return softmax(outputs(model, images)[0], temperature)


def softmax(logits: torch.Tensor, temperature: float) -> np.ndarray:
    """Class probabilities, float32 [n, classes]."""
    return (logits / temperature).softmax(1).cpu().numpy()


def outputs(model: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, np.ndarray]:
    """The network's outputs, float32 [n, classes] on its device, and the features of
    out_of_distribution.layer, float32 [n, d], of prepared images, uint8 [n, size, size, 3]."""
    device, layer = next(model.parameters()).device, out_of_distribution.layer(model)
    features: list[torch.Tensor] = []
    hook = layer.register_forward_pre_hook(
        lambda _, inputs: features.append(out_of_distribution.pooled(layer, inputs[0]).cpu())
    )
    with torch.inference_mode():
        logits = [model(loader.normalize(chunk.to(device))) for chunk in images.split(CHUNK)]
    hook.remove()
    return torch.cat(logits).float(), torch.cat(features).numpy()
