"""Check params.yaml before any stage starts.

Its output never changes, so an edit of params.yaml reruns this stage and those that read what
was edited, and no other.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product

from transfer import cli, files, params
from transfer.training import components, models


def main() -> None:
    checked = params.load()
    check(checked)
    files.write_text("data/params.ok", "params.yaml was checked\n")
    print(f"params.yaml: {checked.runs} runs")


def check(study: params.Params) -> None:
    """Raise UserError for a name that torch or torchvision lacks, and for settings that do not fit
    each other."""
    grid = study.grid
    models.check_backbones(grid.backbone)
    partial = [freezing for freezing in grid.freezing if freezing.startswith("last")]
    for backbone, freezing in product(grid.backbone, partial):
        with said(f"grid.freezing: {backbone}"):
            models.freeze(models.shape(backbone), freezing)
    for recipe in grid.recipe:
        changed = study.trained_by(recipe)
        with said(f"train with recipe {recipe}"):
            components.check(changed, grid.backbone)
    for backbone in grid.backbone:
        with said(f"pack.size {study.pack.size}: {backbone}"):
            models.check_size(backbone, study.pack.size)


@contextmanager
def said(where: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise cli.UserError(f"params.yaml: {where}: {error}") from None


if __name__ == "__main__":
    cli.run(main)
