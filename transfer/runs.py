"""What a run is called, and where its files lie."""

from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Literal, Self

from transfer.cli import UserError
from transfer.files import Fields, remove
from transfer.params import Grid, Params

RUNS = Path("metrics/runs")
RECORD, CURVE, PREDICTIONS = "run.json", "curve.csv", "predictions.npz"
"""A run's files, in a folder of its own."""
DEFAULT = "default"
"""The recipe that labels leave out."""
Hyperparameters = tuple[str, float, str, str]
"""Backbone, learning rate, freezing, recipe: a row of the paper's tables."""


class Setting(Fields):
    """What a run trains on (a data set, and how many of its training images per class) and with."""

    dataset: str
    images: int | Literal["all"]
    backbone: str
    lr: float
    freezing: str
    recipe: str

    @property
    def hyperparameters(self) -> Hyperparameters:
        return self.backbone, self.lr, self.freezing, self.recipe

    @property
    def label(self) -> str:
        """Its hyperparameters in a table or a picture."""
        text = f"{short(self.backbone)} {self.lr:g} {self.freezing}"
        return text if self.recipe == DEFAULT else f"{text} {self.recipe}"

    @property
    def setting(self) -> "Setting":
        return Setting(**{axis: getattr(self, axis) for axis in Setting.model_fields})

    def run(self, init: str, seed: int) -> "Run":
        return Run(**dict(self.setting), init=init, seed=seed)


class Run(Setting):
    """One configuration of the grid, named as DVC names its stage."""

    init: str
    seed: int

    @classmethod
    def from_words(cls, words: dict[str, str], grid: Grid) -> Self:
        """The run of these words, one for each axis. Raises UserError for one that the grid does
        not have."""
        for axis, word in words.items():
            values = [str(value) for value in getattr(grid, axis)]
            if word not in values:
                where = f"params.yaml's grid.{axis}: {', '.join(values)}"
                raise UserError(f"{axis} {word}: not in {where}")
        return cls.model_validate(words)

    @property
    def name(self) -> str:
        return "-".join(str(getattr(self, axis)) for axis in Run.model_fields)

    @property
    def group(self) -> str:
        """The name of the runs that see the same images in the same order and crops, and that one
        process trains."""
        return f"{self.dataset}-{self.images}-{self.backbone}-{self.recipe}-{self.seed}"

    @property
    def folder(self) -> Path:
        return RUNS / self.name

    @property
    def weights(self) -> Path:
        """The checkpoint that training starts from."""
        return Path(f"data/weights/{self.backbone}-{self.init}.pth")

    @property
    def time(self) -> Path:
        """The file with the seconds that it took; DVC does not track it."""
        return Path("data/times", f"{self.name}.json")

    def written(self, file: str) -> Path:
        """The path of one of the run's files. Raises UserError when the run was not trained."""
        path = self.folder / file
        if not path.is_file():
            raise UserError(f"{path}: no such run; train it with `dvc repro train@{self.name}`")
        return path


def settings(grid: Grid, dataset: str) -> list[Setting]:
    """A data set's settings: size by size, in the order of the paper's tables."""
    axes = product(grid.images, grid.backbone, grid.lr, grid.freezing, grid.recipe)
    return [
        Setting(
            dataset=dataset, images=n, backbone=network, lr=lr, freezing=freezing, recipe=recipe
        )
        for n, network, lr, freezing, recipe in axes
    ]


def at_first_size(grid: Grid, dataset: str) -> list[Setting]:
    """The settings of the paper's tables."""
    return [setting for setting in settings(grid, dataset) if setting.images == grid.images[0]]


def runs(grid: Grid, dataset: str) -> list[Run]:
    """A data set's runs, setting by setting."""
    variants = list(product(grid.init, grid.seed))
    return [setting.run(*variant) for setting in settings(grid, dataset) for variant in variants]


def all_runs(grid: Grid) -> list[Run]:
    return [run for dataset in grid.dataset for run in runs(grid, dataset)]


def known(grid: Grid, dataset: str, name: str) -> Run:
    """The grid's run of that name. Raises UserError for what the grid does not have."""
    if dataset not in grid.dataset:
        raise UserError(f"{dataset}: not in params.yaml's grid.dataset: {', '.join(grid.dataset)}")
    names = {run.name: run for run in runs(grid, dataset)}
    if name not in names:
        close = ", ".join(get_close_matches(name, names) or list(names)[:3])
        raise UserError(f"{name}: no run of {dataset} in params.yaml's grid; close are {close}")
    return names[name]


def clear(study: Params) -> list[Path]:
    """Remove, and return, the results of runs and data sets that are no longer in the study.

    Stages that collect results depend on whole folders, so a leftover would change their hashes in
    dvc.lock, and a clone, which lacks it, would run them again. DVC's cache keeps what is removed.
    """
    grid, datasets = study.grid, set(study.datasets)
    kept = {
        RUNS: {run.name for run in all_runs(grid)},
        Path("metrics/similarity"): {"-".join(p) for p in product(grid.dataset, grid.backbone)},
        Path("metrics/data"): datasets,
        Path("data/packed"): datasets,
    }
    gone = [
        path
        for folder, names in kept.items()
        for path in sorted(folder.glob("*"))
        if path.name.removesuffix(".json") not in names and path.name != ".gitignore"
    ]
    for path in gone:
        remove(path)
    return gone


def capital(title: str) -> str:
    """The words with their first letter in upper case."""
    return title[:1].upper() + title[1:]


def short(backbone: str) -> str:
    """A ResNet's name as the paper's tables abbreviate it; another's as it is."""
    return backbone.replace("resnet", "R") if backbone[-1].isdigit() else backbone
