"""params.yaml, typed and checked. Every key is required and an unknown one is refused."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from transfer.cli import UserError

T = TypeVar("T")


def _point(value: Any) -> Any:
    # DVC names a stage by the text of the number, so 1 and 1.0 would be two names for one run.
    if isinstance(value, int):
        raise ValueError(f"write {value}.0")
    return value


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _count(value: Any) -> Any:
    whole = type(value) is int and value >= 1
    part = type(value) is float and 0 < value < 1
    if not (whole or part or value == "all"):
        raise ValueError("give a number of images, a fraction between 0 and 1, or all")
    return value


@dataclass(frozen=True)
class Component:
    """A class of torch or torchvision by its name, and what it is made with."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)


def _component(value: Any) -> Any:
    if isinstance(value, Component):
        return value
    if isinstance(value, str):
        return Component(value)
    if isinstance(value, dict) and len(value) == 1:
        ((name, options),) = value.items()
        if isinstance(name, str) and isinstance(options, dict):
            return Component(name, options)
    raise ValueError("give a name, such as Adam, or a name with its options: SGD: {momentum: 0.9}")


# DVC joins grid values with '-' to name a stage, and drops stages whose names collide.
Key = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
Positive = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Count = Annotated[int | float | str, BeforeValidator(_count)]
Backbone = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
Rate = Annotated[float, BeforeValidator(_point), Field(gt=0, lt=float("inf"))]
Named = Annotated[Component, BeforeValidator(_component)]
Freezing = Annotated[str, Field(pattern=r"^(frozen|finetuned|lpft|last[1-9])$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Download(Section):
    """A Kaggle data set: `kaggle` is owner/name as in its address, `version` counts from 1."""

    kaggle: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+/[A-Za-z0-9-]+$")]
    version: Positive


class Folders(Section):
    """Class name → folder, by the last parts of its path, in the archive.

    Either the archive's own split (`train` and `test`), or `all`, to be split here.
    """

    train: dict[str, str] | None = None
    test: dict[str, str] | None = None
    all: dict[str, str] | None = None

    @model_validator(mode="after")
    def _one_form(self) -> "Folders":
        own = self.train is not None and self.test is not None and self.all is None
        pooled = self.train is None and self.test is None and self.all is not None
        if not (own or pooled):
            raise ValueError("give either 'train' and 'test', or 'all'")
        if own and list(self.train) != list(self.test):
            raise ValueError("'train' and 'test' need the same classes in the same order")
        classes = self.classes
        if len(classes) < 2:
            raise ValueError("at least two classes are needed")
        if bad := [c for c in classes if not re.fullmatch(r"[^/\\.\s][^/\\]*", c)]:
            raise ValueError(f"class name {bad[0]!r} cannot be a folder name")
        if len({name.casefold() for name in classes}) < len(classes):
            raise ValueError("two class names differ by case alone")
        for folders in (self.train, self.test, self.all):
            for label, folder in (folders or {}).items():
                if not folder.strip("/."):
                    raise ValueError(f"{label}: {folder!r} names no folder")
        return self

    @property
    def classes(self) -> list[str]:
        return list(self.all if self.all is not None else self.train or {})


class Counts(Section):
    """Images per class: a number, a fraction of the class, or 'all' (that are left)."""

    train: Count
    test: Count


QUADRANTS = ("small, similar", "large, similar", "small, different", "large, different")
"""The report's Tables 1 to 4: the data set's size, and its likeness to ImageNet, judged by eye."""


class Dataset(Section):
    """`table` numbers the report's table to print beside ours; 0 when there is none. `quadrant`
    says which part the data set plays in the report's claims."""

    title: str
    table: Annotated[int, Field(ge=0, le=4)]
    quadrant: Literal[*QUADRANTS, "none"]
    source: str
    folders: Folders
    count: Counts

    @model_validator(mode="after")
    def _some_test(self) -> "Dataset":
        if self.folders.all and self.count.train == self.count.test == "all":
            raise ValueError("count: train and test share one pool and cannot both be all")
        return self


class Split(Section):
    """`validation`: the share of each class's training images that is held out, to choose epochs
    and settings on; 0 for none, as in the report."""

    seed: Annotated[int, Field(ge=0)]
    validation: Annotated[float, Field(ge=0, lt=1)]
    duplicates: Literal["keep", "drop"]
    unreadable: Literal["fail", "skip"]


class Pack(Section):
    """Pixels: test images are resized to `resize` (short side) and centre-cropped to `size`;
    training images are stored with a short side of at most `short_side` (0: as they are)."""

    resize: Positive
    size: Positive
    short_side: Annotated[int, Field(ge=0)]

    @model_validator(mode="after")
    def _fits(self) -> "Pack":
        if self.size > self.resize:
            raise ValueError(f"size {self.size} is larger than resize {self.resize}")
        return self


class Weights(Section):
    """`source` is torchvision's name for some weights, such as IMAGENET1K_V1, or a local file;
    `sha256` a hash or its start."""

    source: str
    sha256: Sha256

    @property
    def published(self) -> bool:
        """Whether they are torchvision's."""
        return re.fullmatch("[A-Z0-9_]+", self.source) is not None


class Grid(Section):
    """The axes of the study; every combination is one run.

    `images`: training images per class, or all; a class that has fewer gives what it has.
    `freezing`: frozen and finetuned are the report's; lpft trains the head alone for
    train.probe_epochs and then all (Kumar 2022); last2, say, trains the backbone's last two stages
    and the head. `recipe`: a key of recipes. `seed` draws what is not pretrained, the order of
    images and their crops.
    """

    dataset: Annotated[list[Key], Field(min_length=1)]
    images: Annotated[list[Positive | Literal["all"]], Field(min_length=1)]
    backbone: Annotated[list[Backbone], Field(min_length=1)]
    lr: Annotated[list[Rate], Field(min_length=1)]
    freezing: Annotated[list[Freezing], Field(min_length=1)]
    recipe: Annotated[list[Key], Field(min_length=1)]
    start: Annotated[list[Literal["pretrained", "scratch"]], Field(min_length=1)]
    seed: Annotated[list[Seed], Field(min_length=1)]

    @model_validator(mode="after")
    def _distinct(self) -> "Grid":
        for axis, values in self:
            if twice := [v for v in values if values.count(v) > 1]:
                raise ValueError(f"{axis} lists {twice[0]} twice")
        return self


class Train(Section):
    """The report's protocol (section 3.3) is Adam, batches of 4, 25 epochs, and a learning rate
    multiplied by 0.1 every 7 epochs.

    `optimizer`, `schedule` and `loss` are classes of torch.optim, torch.optim.lr_scheduler and
    torch.nn, `augmentation` of torchvision.transforms.v2; `activation` and `pooling`, of torch.nn,
    take the place of the backbone's own. `probe_epochs`: see Grid. `precision`: PyTorch's default,
    or bfloat16 where PyTorch's autocast holds it safe. `cuda_graph` records a GPU's finetuning
    step once and replays it. `keep_features` keeps frozen runs' backbone passes in data/features,
    for further heads."""

    epochs: Positive
    batch_size: Positive
    optimizer: Named
    schedule: Named
    loss: Named
    activation: Named
    pooling: Named
    augmentation: Annotated[tuple[Named, ...], BeforeValidator(_tuple)]
    probe_epochs: Positive
    frozen_batchnorm: Literal["train", "eval"]
    device: Literal["auto", "cpu", "cuda"]
    memory_format: Literal["contiguous", "channels_last"]
    precision: Literal["default", "bfloat16"]
    cuda_graph: bool
    keep_features: bool

    def changed(self, recipe: dict[str, Any]) -> "Train":
        """With what the recipe changes. Raises ValidationError, and ValueError for what no recipe
        may change."""
        fixed = {"device", "keep_features"} & set(recipe)
        if fixed:
            raise ValueError(f"{min(fixed)} is no part of a recipe; set it under train")
        return Train.model_validate({name: value for name, value in self} | recipe)

    @property
    def protocol(self) -> dict[str, Any]:
        """What engine.Protocol takes besides the learning rate and the seed."""
        return {k: v for k, v in self if k not in ("device", "keep_features")}

    def deciding(self, freezing: str) -> dict[str, Any]:
        """What the results of runs with that freezing depend on, as JSON takes it."""
        idle = {"keep_features"} | ({"probe_epochs"} if freezing != "lpft" else set())
        return self.model_dump(mode="json", exclude=idle)


class Draw(Section):
    """A drawn data set: `images` per class, `size` pixels square."""

    images: Positive
    size: Annotated[int, Field(ge=16)]
    seed: Annotated[int, Field(ge=0)]


class Pretrain(Section):
    """How a backbone is trained, from random weights, on data set `source`: its weights then stand
    in for ImageNet's."""

    source: Key
    lr: Rate
    epochs: Positive
    batch_size: Positive
    schedule: Named
    seed: Seed


class Params(Section):
    """All of params.yaml. Images come from `download`, `draw` or elsewhere, weights from `weights`
    or `pretrain`; each of the four may be empty."""

    download: dict[Key, Download]
    draw: dict[Key, Draw]
    datasets: Annotated[dict[Key, Dataset], Field(min_length=1)]
    split: Split
    pack: Pack
    weights: dict[Backbone, Weights]
    pretrain: dict[Backbone, Pretrain]
    train: Train
    recipes: dict[Key, dict[str, Any]]
    grid: Grid

    @model_validator(mode="after")
    def _known(self) -> "Params":
        for name in self.grid.dataset:
            if name not in self.datasets:
                raise ValueError(f"grid.dataset names {name!r}, which datasets lacks")
        for name in self.grid.backbone:
            if name not in {*self.weights, *self.pretrain}:
                raise ValueError(f"grid.backbone names {name!r}, which has no weights")
        if twice := sorted({*self.weights} & {*self.pretrain}):
            raise ValueError(f"weights and pretrain both name {twice[0]!r}; keep one")
        for name, pretrain in self.pretrain.items():
            if pretrain.source not in self.datasets:
                raise ValueError(
                    f"pretrain.{name}.source is {pretrain.source!r}, which datasets lacks"
                )
        for name in self.grid.recipe:
            if name not in self.recipes:
                raise ValueError(f"grid.recipe names {name!r}, which recipes lacks")
        for name in self.recipes:
            train = self.trained_by(name)
            if "lpft" in self.grid.freezing and train.probe_epochs >= train.epochs:
                raise ValueError(
                    f"recipes.{name}: probe_epochs leaves lpft no epoch to finetune in"
                )
        return self

    def trained_by(self, recipe: str) -> Train:
        """train with what the recipe changes. Raises ValueError for a change that does not fit."""
        try:
            return self.train.changed(self.recipes[recipe])
        except ValidationError as error:
            raise ValueError(f"recipes.{recipe}: {_first(error)}") from None
        except ValueError as error:
            raise ValueError(f"recipes.{recipe}: {error}") from None

    @property
    def runs(self) -> int:
        """Runs in the grid."""
        return prod(len(values) for _, values in self.grid)


def entry(section: str, entries: Mapping[str, T], name: str) -> T:
    """The section's entry of that name. Raises UserError where it has none."""
    if name not in entries:
        known = ", ".join(entries) or "nothing"
        raise UserError(f"params.yaml: {section} has no {name!r}; it has {known}")
    return entries[name]


def load(path: str | Path = "params.yaml") -> Params:
    """Read and check a params.yaml.

    YAML 1.2, as DVC reads it, so 1e-05 is a number. Raises UserError, one line, for a file that
    is missing, is not YAML, or has an unknown, missing or mistyped key.
    """
    try:
        raw = YAML(typ="safe", pure=True).load(Path(path))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run from the folder of dvc.yaml") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise UserError(f"{path}{line}: not YAML: {problem}") from None
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        raise UserError(f"{path}: {_first(error)}") from None


def _first(error: ValidationError) -> str:
    errors = error.errors(include_url=False)
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"])
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{where + ': ' if where else ''}{_words(first)}{more}"


def _words(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "unknown key; remove it or mend its spelling"
    if error["type"] == "missing":
        return "missing key; add it"
    if error["type"] == "too_short":
        return "empty; give at least one"
    message = error["msg"].removeprefix("Value error, ")
    given = error["input"]
    shown = "" if isinstance(given, dict | BaseModel) else f", not {given!r}"
    return message[0].lower() + message[1:] + shown
