"""Check params.yaml before any stage starts, and write what stages depend on to data/settings.

An edit of params.yaml reruns this stage and those that read what was edited, and no other: runs
depend on their recipe's settings in data/settings, which stay the same bytes where they say the
same, and all else on a file that never changes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product

from transfer import cli, files, params, runs
from transfer.images import draw
from transfer.training import components, cost, models


def main() -> None:
    study = params.load()
    check(study)
    with files.replacing("data/settings") as folder:
        files.write_text(folder / "checked", "params.yaml was checked\n")
        # What clear() goes by: where this is of another commit, DVC runs the stage again.
        files.write_json(folder / "study.json", [study.grid.model_dump(), list(study.datasets)])
        files.write_json(folder / "costs.json", cost.costs(study))
        for recipe, freezing in product(study.grid.recipe, study.grid.freezing):
            settings = study.trained_by(recipe).deciding(freezing)
            files.write_json(folder / f"{recipe}-{freezing}.json", settings)
    gone = runs.clear(study)
    print(f"params.yaml: {study.runs} runs")
    if gone:
        print(f"removed {len(gone)} results of runs or data sets that are no longer in params.yaml")


def check(study: params.Params) -> None:
    """Raise UserError for a name that torch or torchvision lacks, and for settings that do not fit
    each other."""
    grid = study.grid
    for dataset in study.draw:
        draw.painters(dataset)
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
