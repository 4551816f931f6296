"""A trained network in one safetensors file, with everything needed to predict with it.

The file's metadata are the fields of a Card, as strings. A small file holds only the tensors that
differ from the starting checkpoint, which it names.
"""

import json
import os
from math import inf, nan
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import from_json
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialized
from torch import nn

from transfer import files
from transfer.cli import UserError, one_line
from transfer.images import reader
from transfer.images.reader import Decoding
from transfer.model import out_of_distribution
from transfer.params import Backbone, Component, Named, Side
from transfer.training import components, loader, models
from transfer.training.loader import CHUNK

FORMAT = "3"
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
KNOWN = "known.mean", "known.precision"
"""The tensors beside the network's own: those of out_of_distribution.Known."""


class Card(BaseModel):
    """What a file says of its network.

    labels: the classes in the order of the outputs. decoding: how images are read. resize, size:
    pixels, see packed.prepare. mean, std: see loader.normalize. run, seed, epoch (from 0): where
    the weights come from. accuracy, low, high: this network's on the run's n test images, and its
    95 % interval (Wilson 1927). temperature: what its outputs are divided by before the softmax,
    see transfer.evidence.calibration. confidence_threshold: the confidence from which on an answer
    is taken, for an error of `risk`. ood_distance: the distance beyond which an image is like none
    it was trained on, see transfer.model.out_of_distribution; both None if unknown. start,
    start_sha256: the checkpoint that training started from; start_source: where that is found, if
    everyone finds it there; start_needed: whether the file lacks what that holds. data_sha256: of
    the packed pixels. versions, device, commit: trained with, on and by these.
    """

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    which_transfer: str = FORMAT
    backbone: Backbone
    labels: Annotated[list[str], Field(min_length=2)]
    decoding: Decoding = reader.PAPER
    resize: Side
    size: Side
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
        """Text as it is, and all else as JSON; activation and pooling as params.yaml has them."""
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
    """The inverse of Card.metadata. Raises ValueError for other metadata, and for a card that this
    code cannot follow."""
    if metadata.get("which_transfer", FORMAT) != FORMAT:
        raise ValueError(f"its format is {metadata['which_transfer']}, and this code's {FORMAT}")
    known = {name: text for name, text in metadata.items() if name in Card.model_fields}
    if "which_transfer" not in known:
        raise ValueError("it has none of our metadata")
    return Card.model_validate({name: _value(name, text) for name, text in known.items()})


def differing(state: models.State, start: models.State) -> models.State:
    """The tensors that the checkpoint lacks, or gives otherwise, if by one bit, once it is loaded,
    which turns half precision into single."""
    return {
        name: value
        for name, value in state.items()
        if name not in start or not torch.equal(value, start[name].to(value.dtype))
    }


def save(path: str | Path, card: Card, state: models.State) -> None:
    tensors = {name: value.contiguous() for name, value in state.items()}
    with files.replacing(path) as part:
        # safetensors' own writing makes a file private, and its errors say less than the system's.
        part.write_bytes(serialized(tensors, card.metadata()))


def load(path: str | Path, weights: str | Path | None = None) -> tuple[Card, nn.Module]:
    """The card and the network, on the CPU and in eval().

    `weights` is the starting checkpoint, if the file needs one and it lies in no place that
    find_start knows. Raises UserError for a file that is missing or no such model, for one that
    holds NaN, and for a checkpoint that is missing or another.
    """
    card, state = _read(Path(path))
    if card.start_needed:
        state = models.load_checkpoint(find_start(card, path, weights)) | state
    try:
        model = _network(card, state)
    except Exception as error:  # what wrong parts raise depends on the network
        raise UserError(f"{path}: not a whole model: {one_line(error)}") from None
    models.check_finite(model.state_dict(), path)
    return card, model


def _read(path: Path) -> tuple[Card, models.State]:
    if not os.path.isfile(path):
        raise UserError(f"{path}: no such file; `python -m transfer keep` makes one")
    try:
        with safe_open(path, "pt") as file:
            card, names = parse(file.metadata() or {}), file.keys()
            return card, {name: file.get_tensor(name) for name in names}
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        why = ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))[:200]
    except (SafetensorError, ValueError) as error:
        why = one_line(error)
    raise UserError(f"{path}: not a model made by `python -m transfer keep`: {why}")


def known(path: str | Path) -> out_of_distribution.Known | None:
    """What the images that the network in the file, which `load` can read, was trained on look like
    to it; None if the file does not hold that."""
    with safe_open(path, "pt") as file:
        if not set(KNOWN) <= set(file.keys()):
            return None
        return out_of_distribution.Known(*(file.get_tensor(name).numpy() for name in KNOWN))


def _network(card: Card, state: models.State) -> nn.Module:
    models.check_backbones([card.backbone])
    # Not by models.shape(), which takes two seconds more.
    model = models.architecture(card.backbone)(num_classes=len(card.labels))
    components.replace_activation(model, card.activation)
    components.replace_pooling(model, card.pooling)
    own = model.state_dict()
    model.load_state_dict({name: value for name, value in state.items() if name in own})
    return model.eval().requires_grad_(False)


def find_start(card: Card, path: str | Path, given: str | Path | None = None) -> Path:
    """The checkpoint given; else where the card says, from the working directory; else beside the
    file; else in torch hub's cache. Raises UserError where it is missing or has another sha256."""
    # torch hub ends a file's name in the first eight digits of its sha256.
    cached = (Path(torch.hub.get_dir()) / "checkpoints").glob(f"*-{card.start_sha256[:8]}.*")
    start = Path(card.start)
    places = [Path(given)] if given else [start, Path(path).parent / start.name, *sorted(cached)]
    there = [place for place in places if os.path.isfile(place)]
    for place in there:
        if files.sha256(place) == card.start_sha256:
            return place
    source = f"{card.start_source}, " if card.start_source else ""
    wanted = f"{path} needs its starting checkpoint ({source}sha256 {card.start_sha256})"
    found = f"{there[0]}: another file" if there else f"{places[0]}: no such file"
    raise UserError(f"{found}; {wanted}; give it as --weights")


def probabilities(model: nn.Module, images: torch.Tensor, temperature: float = 1.0) -> np.ndarray:
    """float32 [n, classes] of prepared images, uint8 [n, size, size, 3], on the model's device."""
    return seen(model, images, temperature)[0]


def seen(
    model: nn.Module, images: torch.Tensor, temperature: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Those probabilities, and what out_of_distribution.layer is given, float32 [n, d]."""
    device, layer = next(model.parameters()).device, out_of_distribution.layer(model)
    features: list[torch.Tensor] = []
    hook = layer.register_forward_pre_hook(
        lambda _, inputs: features.append(out_of_distribution.pooled(layer, inputs[0]).cpu())
    )
    with torch.inference_mode():
        outputs = [model(loader.normalize(some.to(device))) for some in images.split(CHUNK)]
        found = (torch.cat(outputs).float() / temperature).softmax(1).cpu().numpy()
    hook.remove()
    return found, torch.cat(features).numpy()
