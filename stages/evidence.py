"""Turn the runs' predictions into metrics/evidence.json, its summary, and data for `dvc plots`."""

import csv
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np

from transfer import cli, files, params
from transfer.evidence import compare
from transfer.runs import PREDICTIONS, RECORD, Run, all_runs, rows
from transfer.training import predictions


def main() -> None:
    settings = params.load()
    grid = settings.grid
    found = compare.compute(grid, settings.datasets, leaked(grid), tested)
    with files.replacing("metrics/plots") as folder:
        for name in grid.dataset:
            write(folder / f"curves/{name}.csv", CURVE, curves(grid, name))
            own = [row for row in found["rows"] if row["dataset"] == name]
            write(folder / f"confusion/{name}.csv", CONFUSION, confusion(grid, own))
    records = [files.read_json(run.written(RECORD)) for run in all_runs(grid)]
    trained = {"trained": compare.trained_with(records)}
    files.write_json("metrics/summary.json", compare.summary(found, grid) | trained)
    files.write_json("metrics/evidence.json", found)


CURVE = ("backbone", "lr", "freezing", "recipe", "start", "epoch", "test_accuracy")
CONFUSION = ("actual", "predicted")


def leaked(grid: params.Grid) -> compare.Leaked:
    audits = {name: files.read_json(f"metrics/data/{name}.json") for name in grid.dataset}
    return {name: [test for test, _ in audit["leaked"]] for name, audit in audits.items()}


def curves(grid: params.Grid, dataset: str) -> Iterable[tuple]:
    """Of the first size, mean over the seeds."""
    for setting in rows(grid):
        for start in grid.start:
            runs = [Run(dataset, grid.images[0], *setting, start, seed) for seed in grid.seed]
            accuracies = np.mean([tested(run).right.mean(1) for run in runs], axis=0)
            for epoch, accuracy in enumerate(accuracies):
                yield *setting, start, epoch, round(float(accuracy), 6)


def confusion(grid: params.Grid, found: list[compare.Row]) -> Iterable[tuple]:
    """The chosen epoch of the best setting's first run."""
    run = compare.best_run(grid, found)
    parts = loaded(run)
    test, epoch = parts["test"], predictions.chosen_epoch(parts)
    classes = sorted({name.split("/")[0] for name in test.name})
    for actual, predicted in zip(test.label, test.predicted[epoch], strict=True):
        yield classes[actual], classes[predicted]


def write(path: Path, header: tuple, lines: Iterable[tuple]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(header)
        table.writerows(lines)


@cache
def tested(run: Run) -> compare.Tested:
    return compare.tested(loaded(run))


def loaded(run: Run) -> dict[str, predictions.Predictions]:
    """Raises UserError for a run not trained."""
    return predictions.load(run.written(PREDICTIONS))


if __name__ == "__main__":
    cli.run(main)
