"""What a run is called, and where its files lie."""

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from transfer.cli import UserError
from transfer.params import Grid


@dataclass(frozen=True)
class Run:
    """One configuration of the grid, named as DVC names its stage."""

    dataset: str
    images: int | str
    backbone: str
    lr: float
    freezing: str
    recipe: str
    start: str
    seed: int

    @property
    def name(self) -> str:
        return "-".join(map(str, astuple(self)))

    def path(self, kind: str, suffix: str = "json") -> str:
        return f"metrics/{kind}/{self.name}.{suffix}"

    def written(self, kind: str, suffix: str = "json") -> Path:
        """The path of a file that is there. Raises UserError when the run was not trained."""
        path = Path(self.path(kind, suffix))
        if not path.is_file():
            raise UserError(f"{path}: no such run; train it with `dvc repro train@{self.name}`")
        return path


Setting = tuple[str, float, str, str]
"""Backbone, learning rate, freezing, recipe: a row of the report's tables."""
DEFAULT = "default"
"""The recipe that goes without saying."""


def rows(grid: Grid) -> list[Setting]:
    """The settings in the order of the report's tables."""
    return list(product(grid.backbone, grid.lr, grid.freezing, grid.recipe))


def runs(grid: Grid, dataset: str) -> list[Run]:
    """All of a data set's, row by row."""
    axes = product(grid.images, rows(grid), grid.start, grid.seed)
    return [Run(dataset, images, *row, start, seed) for images, row, start, seed in axes]


def setting_of(row: Mapping[str, Any]) -> Setting:
    """That of a row of the evidence, or of anything with these keys."""
    return row["backbone"], row["lr"], row["freezing"], row["recipe"]


def label(backbone: str, lr: float, freezing: str, recipe: str) -> str:
    """A setting in a table or a picture."""
    text = f"{short(backbone)} {lr:g} {freezing}"
    return text if recipe == DEFAULT else f"{text} {recipe}"


def capital(title: str) -> str:
    """A data set's title, or other words, as a line begins."""
    return title[:1].upper() + title[1:]


def short(backbone: str) -> str:
    """As the report's tables abbreviate it."""
    return backbone.replace("resnet", "R") if backbone[-1].isdigit() else backbone
