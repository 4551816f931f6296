"""params.yaml, typed and checked. Every key is required and an unknown one is refused.

The docstring below a key describes it: in the message about a missing key, and in
params.schema.json for editors (transfer.schema). Docstrings are no part of the hash of the code, so
an edit of one trains nothing again.
"""

import re
import unicodedata
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import Enum
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from transfer.cli import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Component:
    """A class of torch or torchvision by its name, and what it is made with."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def plain(self) -> str | dict[str, Any]:
        """As params.yaml has it."""
        return {self.name: self.options} if self.options else self.name


def _component(value: Any) -> Component:
    if isinstance(value, Component):
        return value
    if isinstance(value, str):
        return Component(value)
    if isinstance(value, dict) and len(value) == 1:
        ((name, options),) = value.items()
        if isinstance(name, str) and isinstance(options, dict):
            return Component(name, options)
    raise ValueError("give a name, such as Adam, or a name with its options: SGD: {momentum: 0.9}")


def _point(value: Any) -> Any:
    # DVC names a stage by the number's text, so 1 and 1.0 would be two names for one run.
    if isinstance(value, int):
        raise ValueError(f"write {value}.0")
    return value


def _count(value: Any) -> Any:
    whole = type(value) is int and value >= 1
    part = type(value) is float and 0 < value < 1
    if not (whole or part or value == "all"):
        raise ValueError("give a number of images, a fraction between 0 and 1, or all")
    return value


LONGEST = 50
"""Characters of a key. A run's name has three keys, and a file's name may have 255 bytes."""
# DVC joins grid values with '-' to name a stage, and drops stages whose names collide.
Key = Annotated[str, Field(pattern=rf"^[a-z0-9_]{{1,{LONGEST}}}$")]
Backbone = Key
Positive = Annotated[int, Field(ge=1)]
Side = Annotated[int, Field(ge=1, le=4096)]
"""Of an image that a network sees, in pixels; at 4096 it takes gigabytes of memory."""
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(_point)]
_WAYS = r"^(frozen|finetuned|lpft|norm|bias|(first|last|stage)[1-9]|lora[1-9][0-9]?)$"
Freezing = Annotated[str, Field(pattern=_WAYS)]
_Counted = Positive | Annotated[float, Field(gt=0, lt=1)] | Literal["all"]
Count = Annotated[int | float | str, BeforeValidator(_count, json_schema_input_type=_Counted)]
_Options = Annotated[dict[str, dict[str, Any]], Field(min_length=1, max_length=1)]
Named = Annotated[Component, BeforeValidator(_component, json_schema_input_type=str | _Options)]
Axis = Annotated[list[T], Field(min_length=1, json_schema_extra={"uniqueItems": True})]
Entries = Annotated[dict[Key, T], Field(json_schema_extra={"additionalProperties": False})]
Quadrant = Literal[
    "small, similar", "large, similar", "small, different", "large, different", "none"
]
QUADRANTS = get_args(Quadrant)[:4]
"""The paper's Tables 1 to 4: the data set's size, and its likeness to ImageNet, judged by eye."""


class Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )


class Download(Section):
    """A data set on Kaggle."""

    kaggle: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+/[A-Za-z0-9-]+$")]
    """The owner/name in the data set's address."""
    version: Positive
    """The data set's version to fetch, counted from 1."""


class Draw(Section):
    """A drawn data set."""

    images: Positive
    """How many images of each class to draw."""
    size: Annotated[int, Field(ge=16)]
    """The side of the square images, in pixels."""
    seed: Annotated[int, Field(ge=0)]
    """Seed for everything that varies between the images."""


def check_classes(names: Iterable[str]) -> None:
    """Raises ValueError for a name that no page could show, or two that look alike to a reader."""
    seen: dict[str, str] = {}
    for name in names:
        if not name.strip() or re.search("[\0\ud800-\udfff]", name):
            raise ValueError(f"class name {name!r} is empty or no text in UTF-8; rename it")
        plain = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold().strip())
        if plain in seen:
            raise ValueError(
                f"class names {seen[plain]!r} and {name!r} differ by case, spaces or Unicode's "
                "form alone; rename one"
            )
        seen[plain] = name


class Folders(Section):
    """Where each class lies in the source: its name, and the last parts of its folder's path, such
    as `ants: train/ants`. Give `train` and `test`, or `all` for a source that is not divided.

    A part of the path may be `*`, as in `ants/*`. It stands for any folder, and each of these is a
    group, such as a patient: its images stay on one side of every division."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": ["train", "test"]}, {"required": ["all"], "maxProperties": 1}]
        }
    )

    train: dict[str, str] | None = None
    """The folder of each class in the source's own training part."""
    validation: dict[str, str] | None = None
    """The same in its own validation part, if it has one, for which split.validation holds nothing
    out."""
    test: dict[str, str] | None = None
    """The folder of each class in the source's own test part; classes are ordered as in train."""
    all: dict[str, str] | None = None
    """The folder of each class, whose images split.seed divides into training and test images."""

    @model_validator(mode="after")
    def _one_form(self) -> "Folders":
        given = {part: folders for part, folders in self if folders is not None}
        if set(given) not in ({"train", "test"}, {"train", "validation", "test"}, {"all"}):
            raise ValueError("give either 'train' and 'test', or 'all'")
        if len({tuple(folders) for folders in given.values()}) > 1:
            raise ValueError("all parts need the same classes in the same order")
        if len(self.classes) < 2:
            raise ValueError("at least two classes are needed")
        check_classes(self.classes)
        for label, folder in (pair for folders in given.values() for pair in folders.items()):
            if not folder.strip("/."):
                raise ValueError(f"{label}: {folder!r} names no folder")
            if folder.split("/").count("*") > 1:
                raise ValueError(f"{label}: {folder!r} has more than one *")
        return self

    @property
    def parts(self) -> dict[str, dict[str, str]]:
        """part → class → folder, of the parts that are given."""
        return {part: folders for part, folders in self if folders is not None}

    @property
    def classes(self) -> list[str]:
        return list(self.train or self.all or {})


class Table(Section):
    """A table in the source that lists its images, such as labels.csv."""

    table: str | dict[Literal["train", "validation", "test"], str]
    """Its path in the source; or part → path, for one table with the images of each part."""
    file: str
    """The column with an image's path, or its name with or without extension. In a table without a
    header, columns are called 1, 2 and so on."""
    label: str | list[str]
    """The column with its class; or several columns, called as the classes, of which an image has 1
    in one and 0 in the others."""
    split: str | None = None
    """The column with its part: train, validation or test, in any common spelling. Without it,
    split.seed divides the images."""
    group: str | None = None
    """The column with its group, such as a patient: a group's images stay on one side of every
    division."""
    classes: Annotated[list[str], Field(min_length=2)]
    """The labels to take, in order; lines with another are left out."""

    @model_validator(mode="after")
    def _told_apart(self) -> "Table":
        check_classes(self.classes)
        return self

    @property
    def tables(self) -> dict[str, str]:
        """part → path; one table has the part `all`."""
        return {"all": self.table} if isinstance(self.table, str) else dict(self.table.items())

    @property
    def labels(self) -> list[str]:
        """The columns that say the class."""
        return [self.label] if isinstance(self.label, str) else self.label

    @property
    def divided(self) -> bool:
        """Whether it says which images are for testing."""
        return self.split is not None or len(self.tables) > 1


def _kind(value: Any) -> str:
    listed = isinstance(value, Table) or (isinstance(value, dict) and "table" in value)
    return "Table" if listed else "Folders"


Where = Annotated[
    Annotated[Folders, Tag("Folders")] | Annotated[Table, Tag("Table")], Discriminator(_kind)
]


class Counts(Section):
    """How many images of each class to use: a number, a fraction, or all (that are left)."""

    train: Count
    """Training images of each class, including those held out for validation."""
    test: Count
    """Test images of each class."""


class Dataset(Section):
    """A data set to train on."""

    title: str
    """The data set's name in tables and pages."""
    table: Annotated[int, Field(ge=0, le=4)]
    """The number of the paper's table to compare with, or 0 for none."""
    quadrant: Quadrant
    """The data set's part in the paper's claims, by its size and its similarity to ImageNet
    (judged by eye), or none."""
    source: str
    """The folder, or zip or tar archive, of the images, such as data/raw/flowers.zip."""
    folders: Where
    """Where each class lies: its folders, or a table that lists the images."""
    count: Counts

    @property
    def pooled(self) -> bool:
        """Whether the source does not say which images are for testing."""
        place = self.folders
        return not place.divided if isinstance(place, Table) else place.all is not None

    @model_validator(mode="after")
    def _some_test(self) -> "Dataset":
        if self.pooled and self.count.train == self.count.test == "all":
            raise ValueError("count: train and test share one pool and cannot both be all")
        return self


class Split(Section):
    """How the images of every data set are divided and checked."""

    seed: Annotated[int, Field(ge=0)]
    """Seed for choosing images (where `count` uses some), dividing them and holding some out."""
    resplit: bool
    """Whether each seed of the grid divides the images anew (true), where the source does not
    divide them itself, or all seeds share one division (false)."""
    validation: Annotated[float, Field(ge=0, lt=1)]
    """The share of each class's training images to hold out, to choose epochs and settings on. 0.0,
    as in the paper, trains on all of them and takes the last epoch."""
    duplicates: Literal["keep", "drop", "drop_near"]
    """Whether copies of an image are kept, as in the paper, or dropped: all but one within a part,
    those in training if the image is also in test, and all if it is in two classes. drop_near also
    drops images of training that look like one of test: re-saved, scaled or mirrored copies."""
    unreadable: Literal["fail", "skip"]
    """Whether to fail at a corrupt or truncated image, or to skip and count it."""
    exif: Literal["ignore", "apply"]
    """Whether images are turned upright by their EXIF orientation, or, as in the paper, not."""
    transparency: Literal["drop", "white"]
    """Whether transparent pixels are laid on white, or, as in the paper, shown in the colour that
    they hide."""
    icc: Literal["ignore", "convert"]
    """Whether colours with another ICC profile, such as Display P3 of phones, are converted to
    sRGB, or, as in the paper, taken for sRGB."""
    max_pixels: Annotated[int, Field(ge=1, le=10**9)]
    """The largest image that is read, as width times height in pixels; larger ones are unreadable.
    Pillow's limit is 89478485. Reading takes about 15 bytes of memory a pixel."""


class Pack(Section):
    """How images become the squares that networks see. Sizes are in pixels."""

    fit: Literal["crop", "pad", "squash"]
    """How an image that is not square becomes one: crop, as in the paper, resizes its short side to
    `resize` and takes the square of `size` at its centre; pad resizes its long side to `size` and
    adds grey borders; squash resizes both sides to `size`. Random crops of training images are cut
    from the image itself (crop), or from the padded or squashed square."""
    resize: Side
    """The short side to which test images are resized before they are cropped, in pixels; pad and
    squash resize them to `size` instead."""
    size: Side
    """The side of the square that networks see, in pixels. Training images are cropped at random,
    anew in every epoch."""
    short_side: Annotated[int, Field(ge=0)]
    """The short side to which larger training images are reduced, in pixels; 0 reduces none. Padded
    and squashed training images have at most this side; with 0, at most 4 times `size`, or as many
    pixels as the image."""

    @model_validator(mode="after")
    def _fits(self) -> "Pack":
        if self.size > self.resize:
            raise ValueError(f"size {self.size} is larger than resize {self.resize}")
        return self


class Weights(Section):
    """A file of pretrained weights."""

    source: str
    """torchvision's name for weights of a ResNet, such as IMAGENET1K_V1; timm's tag for those of
    another network, such as fb_in22k_ft_in1k; or a local file, a state_dict or safetensors. A local
    file of a network of timm's gets its images normalised as timm's first tag says."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """The file's sha256, all 64 digits."""

    @property
    def published(self) -> bool:
        """Whether they are torchvision's or timm's."""
        return re.fullmatch("[A-Za-z0-9_]+", self.source) is not None


class Pretrain(Section):
    """How a backbone is trained from random weights, to stand in for ImageNet's."""

    source: Key
    """The data set to train on: a key of datasets."""
    lr: Rate
    """Adam's learning rate in the first epoch, such as 0.001."""
    epochs: Positive
    """How often to go over the training images."""
    batch_size: Positive
    """Training images for each step of the optimiser."""
    schedule: Named
    """How the learning rate changes with the epochs: a class of torch.optim.lr_scheduler."""
    seed: Seed
    """Seed for the first weights, the order of images and their crops."""


class Scope(Enum):
    """Where a setting of train counts; one without a scope counts for every run and recipe."""

    STUDY = "the same for all recipes"
    HEAD = "a frozen backbone's outputs do not depend on it"
    NOT_FROZEN = "frozen runs do not depend on it"
    LPFT = "runs of lpft alone depend on it"
    SPEED = "no result depends on it"


class Train(Section):
    """How runs are trained. The paper's protocol (section 3.3) is Adam, batches of 4, 25 epochs,
    and a learning rate multiplied by 0.1 every 7 epochs.

    A class is given by its name, or by its name with its options: `SGD: {momentum: 0.9}`."""

    epochs: Positive
    """How often to go over the training images."""
    batch_size: Positive
    """Training images for each step of the optimiser."""
    optimizer: Annotated[Named, Scope.HEAD]
    """The optimiser: a class of torch.optim."""
    schedule: Annotated[Named, Scope.HEAD]
    """How the learning rate changes with the epochs: a class of torch.optim.lr_scheduler."""
    warmup_epochs: Annotated[int, Field(ge=0), Scope.HEAD]
    """How many epochs the learning rate rises evenly in, before the schedule begins; 0, as in the
    paper, for none."""
    layer_decay: Annotated[float, Field(gt=0, le=1), Scope.HEAD, Scope.NOT_FROZEN]
    """What the learning rate is multiplied by from each layer to the one before it, from the head
    down; 1.0, as in the paper, is the same rate for all. A layer is a block of the backbone."""
    clip_norm: Annotated[float, Field(ge=0), Scope.HEAD]
    """The largest norm of a step's gradient, to which larger ones are scaled; 0.0, as in the
    paper, for any."""
    average_epochs: Annotated[int, Field(ge=0), Scope.HEAD]
    """Over how many of the last epochs weights are averaged (SWA, Izmailov 2018), for the
    predictions of these epochs and the network that is kept; 0, as in the paper, for none."""
    loss: Annotated[Named, Scope.HEAD]
    """The loss: a class of torch.nn, such as CrossEntropyLoss."""
    class_weights: Annotated[Literal["none", "balanced"], Scope.HEAD]
    """Whether every class weighs the same in the loss, whatever its number of training images
    (balanced, for CrossEntropyLoss), or every image (none, as in the paper)."""
    activation: Named
    """A class of torch.nn in place of the backbone's activations (but its gates), or own."""
    pooling: Named
    """AdaptiveAvgPool2d or AdaptiveMaxPool2d before the backbone's classifier, or own."""
    augmentation: Annotated[tuple[Named, ...], Field(strict=False)]
    """Random changes of the training images: classes of torchvision.transforms.v2, of which MixUp
    and CutMix blend the images of a batch."""
    probe_epochs: Annotated[Positive, Scope.HEAD, Scope.LPFT]
    """How many of the epochs train the head alone where grid.freezing is lpft."""
    frozen_batchnorm: Literal["train", "eval"]
    """Whether frozen batch norm updates its statistics (train, as in the paper) or not (eval)."""
    device: Annotated[Literal["auto", "cpu", "cuda"], Scope.STUDY]
    """Where to train: on a GPU if there is one (auto), on the CPU (cpu), or on a GPU (cuda)."""
    arithmetic: Annotated[Literal["fast", "fixed"], Scope.STUDY]
    """fast takes each processor's best kernels, which round differently. fixed gives the same
    results on every x86-64 processor with AVX2, and takes one thread of the CPU."""
    memory_format: Literal["contiguous", "channels_last"]
    """The memory layout of tensors. It changes speed, and results by no more than rounding."""
    precision: Literal["default", "float32", "bfloat16"]
    """default is PyTorch's, whose convolutions use TF32 on GPUs that have it. float32 computes all
    in float32, and bfloat16 what autocast allows in bfloat16, which is faster."""
    cuda_graph: bool
    """Whether to record a GPU's finetuning step once and replay it. Not yet tried on a GPU."""
    keep_features: Annotated[bool, Scope.STUDY, Scope.SPEED]
    """Whether to keep frozen backbones' outputs, so that another learning rate takes seconds."""

    @classmethod
    def scoped(cls, *scopes: Scope) -> set[str]:
        """The settings that have one of these scopes."""
        fields = cls.model_fields.items()
        return {name for name, key in fields if any(scope in key.metadata for scope in scopes)}

    def deciding(self, freezing: str) -> dict[str, Any]:
        """The settings that results of runs with that freezing depend on, as JSON takes them."""
        idle = [Scope.SPEED]
        idle += [Scope.LPFT] if freezing != "lpft" else []
        idle += [Scope.NOT_FROZEN] if freezing == "frozen" else []
        return self.model_dump(mode="json", exclude=self.scoped(*idle))

    def of_backbone(self) -> dict[str, Any]:
        """The settings that a frozen backbone's outputs depend on, as JSON takes them; without
        device and arithmetic, which mean something else on each machine."""
        return self.model_dump(mode="json", exclude=self.scoped(Scope.STUDY, Scope.HEAD))


SHARED = Train.scoped(Scope.STUDY)
"""The settings of train that no recipe may change."""


class Evidence(Section):
    """How settings are compared. A change trains nothing again."""

    select_by: Literal["auto", "brier", "accuracy", "balanced_accuracy", "macro_f1", "auroc"]
    """What settings are chosen by on the validation images. auto, which is brier, takes the Brier
    score, and chooses epochs and judges settings by accuracy; both are balanced where a class has
    more than twice as many training images as another. The others do all by one measure: accuracy;
    the mean of the classes' recalls (balanced_accuracy) or of their F1 scores (macro_f1); or the
    area under the ROC curve (auroc)."""
    margin: Annotated[float, Field(ge=0, lt=1)]
    """By how much a cheaper setting may be worse and is still called as good; 0.01 is one point."""


class Grid(Section):
    """The axes of the study: every combination of their values is one run."""

    dataset: Axis[Key]
    """The data sets to train on: keys of datasets."""
    images: Axis[Positive | Literal["all"]]
    """Training images of each class, or all. A class that has fewer gives all it has."""
    backbone: Axis[Backbone]
    """The networks: keys of weights or pretrain. ResNets have torchvision's names, such as
    resnet50, all others timm's, such as convnext_tiny."""
    lr: Axis[Rate]
    """The learning rates in the first epoch, such as 0.001."""
    freezing: Axis[Freezing]
    """What is trained: the head alone (frozen) or everything (finetuned), as in the paper; the
    head for train.probe_epochs and then everything (lpft, Kumar 2022); the head and the backbone's
    normalisation (norm) or biases (bias); or the head and some stages of the backbone, say its
    first two (first2), last two (last2) or third (stage3)."""
    recipe: Axis[Key]
    """The recipes to compare: keys of recipes."""
    init: Axis[Literal["pretrained", "scratch"]]
    """Whether to start from pretrained weights or, as the paper's baselines, from random ones."""
    seed: Axis[Seed]
    """Seeds for weights that are not pretrained, the order of images and their crops."""

    @model_validator(mode="after")
    def _distinct(self) -> "Grid":
        for axis, values in self:
            if twice := [v for v in values if values.count(v) > 1]:
                raise ValueError(f"{axis} lists {twice[0]} twice")
        return self


class Params(Section):
    """All of params.yaml."""

    download: Entries[Download]
    """Data sets to fetch from Kaggle, each to data/raw/KEY.zip, or {} for none."""
    draw: Entries[Draw]
    """Data sets to draw, as sample/params.yaml does, each to data/raw/KEY, or {} for none."""
    datasets: Annotated[Entries[Dataset], Field(min_length=1)]
    """The data sets that grid.dataset may list."""
    split: Split
    pack: Pack
    weights: Entries[Weights]
    """Backbones whose weights are published or in a file; {} for none."""
    pretrain: Entries[Pretrain]
    """Backbones to pretrain here instead, or {} for none."""
    train: Train
    recipes: Entries[dict[str, Any]]
    """What each recipe changes in train for its runs: any setting but device, arithmetic and
    keep_features."""
    evidence: Evidence
    grid: Grid

    @model_validator(mode="after")
    def _known(self) -> "Params":
        if self.train.arithmetic == "fixed" and self.train.device != "cpu":
            raise ValueError("train.arithmetic: fixed is for train.device: cpu")
        for name in self.datasets if self.split.resplit else ():
            self._check_resplit(name)
        grid, weighted = self.grid, {*self.weights, *self.pretrain}
        _all_in(self.datasets, "grid.dataset", grid.dataset, "datasets lacks")
        _all_in(weighted, "grid.backbone", grid.backbone, "has no weights")
        _all_in(self.recipes, "grid.recipe", grid.recipe, "recipes lacks")
        for name, settings in self.pretrain.items():
            _all_in(self.datasets, f"pretrain.{name}.source", [settings.source], "datasets lacks")
        if twice := sorted({*self.weights} & {*self.pretrain}):
            raise ValueError(f"weights and pretrain both name {twice[0]!r}; keep one")
        for name in self.recipes:
            train = self.trained_by(name)
            if "lpft" in grid.freezing and train.probe_epochs >= train.epochs:
                raise ValueError(
                    f"recipes.{name}: probe_epochs leaves lpft no epoch to finetune in"
                )
        return self

    def _check_resplit(self, name: str) -> None:
        pooled, count = self.datasets[name].pooled, self.datasets[name].count
        if pooled and not (count.train == "all" and isinstance(count.test, float)):
            raise ValueError(
                f"datasets.{name}.count: split.resplit takes train: all and a fraction for test"
            )
        shares: dict[str, Any] = {"split.validation": self.split.validation}
        shares |= {f"datasets.{name}.count.test": count.test} if pooled else {}
        for key, share in shares.items():
            nearest = 1 / max(2, round(1 / share)) if share else 0.0
            if abs(nearest - share) > 0.005:
                raise ValueError(
                    f"{key}: split.resplit holds out one of k equal parts, so {share:g} cannot be "
                    f"had; the nearest share is {nearest:.3g}"
                )

    def trained_by(self, recipe: str) -> Train:
        """train with what the recipe changes. Raises ValueError for a change that does not fit."""
        changes = self.recipes[recipe]
        if fixed := SHARED & set(changes):
            raise ValueError(
                f"recipes.{recipe}: {min(fixed)} is no part of a recipe; set it under train"
            )
        try:
            return Train.model_validate(dict(self.train) | changes)
        except ValidationError as error:
            raise ValueError(f"recipes.{recipe}: {_first(error, Train)}") from None

    @property
    def runs(self) -> int:
        """Runs in the grid."""
        return prod(len(values) for _, values in self.grid)


def _all_in(known: Container[str], where: str, names: list[str], lacking: str) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{where} names {name!r}, which {lacking}")


def entry(section: str, entries: Mapping[str, T], name: str) -> T:
    """The section's entry of that name. Raises UserError where it has none."""
    if name not in entries:
        known = ", ".join(entries) or "nothing"
        raise UserError(f"params.yaml: {section} has no {name!r}; it has {known}")
    return entries[name]


def load(path: str | Path = "params.yaml", text: str | None = None) -> Params:
    """Read and check a params.yaml, or the text that is to be written there.

    YAML 1.2, as DVC reads it, so 1e-05 is a number. Raises UserError, one line, for a file that
    is missing, is not YAML, or has an unknown, missing or mistyped key.
    """
    try:
        raw = YAML(typ="safe", pure=True).load(Path(path) if text is None else text)
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
        raise UserError(f"{path}: {_first(error, Params)}") from None


def _first(error: ValidationError, model: type[Section]) -> str:
    """The mistake to correct first, in words, and how many others there are. A misspelt key counts
    as one mistake, though that key is unknown and the right one is missing."""
    errors = error.errors(include_url=False)
    first = min(errors, key=lambda mistake: mistake["type"] != "extra_forbidden")
    place, given = first["loc"], first["input"]
    if first["type"] == "extra_forbidden":
        meant = get_close_matches(str(place[-1]), _section(model, place), 1)
        errors = [mistake for mistake in errors if mistake["loc"] != (*place[:-1], *meant)]
        advice = f"did you mean {meant[0]}?" if meant else "remove it or mend its spelling"
        words = f"unknown key; {advice}"
    elif first["type"] == "missing":
        key = _section(model, place)[place[-1]]
        about = " ".join((key.description or key.annotation.__doc__).split())
        words = f"missing key; add it. {about.split('. ')[0].rstrip('.')}."
    elif first["type"] == "too_short":
        words = "empty; give at least one"
    elif first["type"] in ("model_type", "dict_type"):
        words = f"give keys with their values, not {given!r}"
    else:
        message = first["msg"].removeprefix("Value error, ")
        words = message[0].lower() + message[1:]
        words += "" if isinstance(given, dict | BaseModel) else f", not {given!r}"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    # pydantic adds the kind of section, which is not in the file.
    where = re.sub(r"\.folders\.(Folders|Table)\b", ".folders", ".".join(map(str, place)))
    return f"{where}{': ' if place else ''}{words}{more}"


def _section(model: Any, place: tuple[int | str, ...]) -> Any:
    """Name → key, of the section that has or lacks the last part of the place."""
    for part in place[:-1]:
        if hasattr(model, "model_fields"):
            model = model.model_fields[part].annotation
        else:  # of a union, the member of that name; of a dict, its values
            tagged = (kind for kind in get_args(model) if Tag(str(part)) in get_args(kind))
            model = next(tagged, get_args(model)[-1])
    return model.model_fields
