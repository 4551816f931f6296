"""The data that `dvc plots` draws: learning curves and confusion matrices, as CSV."""

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from transfer.evidence.choices import Load
from transfer.evidence.compare import best_run
from transfer.evidence.records import Evidence
from transfer.evidence.results import Read
from transfer.evidence.scores import Measure, chosen_epoch
from transfer.params import Grid
from transfer.runs import at_first_size
from transfer.training.predictions import Predictions

CURVE = ("backbone", "lr", "freezing", "recipe", "init", "epoch", "test_accuracy")
CONFUSION = ("actual", "predicted")


def write(folder: Path, grid: Grid, evidence: Evidence, read: Read, load: Load) -> None:
    """A file of each kind for every data set."""
    for name, measure in evidence.measures.items():
        best = best_run(grid, [row for row in evidence.rows if row.dataset == name])
        table(folder / f"curves/{name}.csv", CURVE, curves(grid, name, read))
        table(folder / f"confusion/{name}.csv", CONFUSION, confusion(load(best), measure))


def curves(grid: Grid, dataset: str, read: Read) -> Iterable[tuple]:
    """Of the first size, mean over the seeds; epochs count from 1."""
    for setting in at_first_size(grid, dataset):
        for init in grid.init:
            runs = [read(setting.run(init, seed)) for seed in grid.seed]
            accuracies = np.mean([run.right.mean(1) for run in runs], axis=0)
            for epoch, accuracy in enumerate(accuracies, 1):
                yield *setting.hyperparameters, init, epoch, round(float(accuracy), 6)


def confusion(parts: dict[str, Predictions], measure: Measure) -> Iterable[tuple]:
    """A run's test images at its chosen epoch."""
    test, epoch = parts["test"], chosen_epoch(parts, measure)
    yield from zip(test.labels.tolist(), test.predicted_labels(epoch).tolist(), strict=True)


def table(path: Path, header: tuple[str, ...], lines: Iterable[tuple]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(lines)
