"""Turn the runs' predictions into metrics/evidence.json and the data of `dvc plots`."""

import csv
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from transfer import cli, evidence, files, params, predictions
from transfer.runs import Run, runs


def main() -> None:
    settings = params.load()
    grid = settings.grid
    found = evidence.compute(grid, settings.datasets, lambda run: tested(run).right)
    with files.replacing("metrics/plots") as folder:
        for name in grid.dataset:
            own = runs(grid, name)
            write(folder / f"curves/{name}.csv", CURVE, curves(own))
            write(folder / f"confusion/{name}.csv", CONFUSION, confusion(own))
    files.write_json("metrics/evidence.json", found)


CURVE = ("backbone", "lr", "freezing", "start", "epoch", "test_accuracy")
CONFUSION = ("actual", "predicted")


def curves(runs: list[Run]) -> Iterable[tuple]:
    for run in runs:
        for epoch, accuracy in enumerate(tested(run).right.mean(1)):
            yield run.backbone, run.lr, run.freezing, run.start, epoch, round(float(accuracy), 6)


def confusion(runs: list[Run]) -> Iterable[tuple]:
    """The last epoch of the best transfer run; of the best run, if none is one."""
    transfer = [run for run in runs if run.start == "pretrained"] or runs
    found = tested(max(transfer, key=lambda run: tested(run).right[-1].mean()))
    classes = sorted({name.split("/")[0] for name in found.name})
    for actual, predicted in zip(found.label, found.predicted[-1], strict=True):
        yield classes[actual], classes[predicted]


def write(path: Path, header: tuple, lines: Iterable[tuple]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(header)
        table.writerows(lines)


@cache
def tested(run: Run) -> predictions.Predictions:
    """Of the test images. Raises UserError for a run not trained."""
    return predictions.load(run.written("predictions", "npz"))["test"]


if __name__ == "__main__":
    cli.run(main)
