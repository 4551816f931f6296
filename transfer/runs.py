"""What a run is called, and where its files lie."""

from dataclasses import dataclass
from itertools import product

from transfer.params import Grid


@dataclass(frozen=True)
class Run:
    """One configuration of the grid, named as DVC names its stage."""

    dataset: str
    backbone: str
    lr: float
    freezing: str
    start: str

    @property
    def name(self) -> str:
        return f"{self.dataset}-{self.backbone}-{self.lr}-{self.freezing}-{self.start}"

    def path(self, kind: str, suffix: str = "json") -> str:
        return f"metrics/{kind}/{self.name}.{suffix}"


def rows(grid: Grid) -> list[tuple[str, float, str]]:
    """(backbone, lr, freezing) in the order of the report's tables."""
    return list(product(grid.backbone, grid.lr, grid.freezing))
