"""What the runs' predictions on the test images allow one to say."""

from collections.abc import Callable
from dataclasses import asdict
from itertools import product
from typing import Any

import numpy as np

from transfer import claims, stats
from transfer.params import Dataset, Grid
from transfer.runs import Run, rows
from transfer.tables import published

Right = Callable[[Run], np.ndarray]
"""A run's test images, right or wrong: bool [epochs, n]."""


def compute(grid: Grid, datasets: dict[str, Dataset], right: Right) -> dict[str, Any]:
    """Everything, as JSON takes it.

    The rigorous accuracy is the last epoch's: fixed before training, it flatters no run. The
    best epoch's, which the report gives, is chosen on the test images.
    """
    found = [_row(*place, grid, right) for place in product(grid.dataset, rows(grid))]
    pairs = [
        _frozen_finetuned(dataset, backbone, lr, right)
        for dataset, backbone, lr in product(grid.dataset, grid.backbone, grid.lr)
        if {"frozen", "finetuned"} <= set(grid.freezing) and "pretrained" in grid.start
    ]
    _correct(found)
    _correct(pairs)
    sizes = claims.implied_sizes(published())
    implied = {size.table: size.implied for size in sizes}
    return {
        "rows": found,
        "frozen_finetuned": pairs,
        "gains": _gains(grid, right),
        "implied_sizes": [asdict(size) for size in sizes],
        "claims": {
            "published": _claims(claims.published_study(published(), implied)),
            "ours": _claims(_study(grid, datasets, right)),
        },
    }


def _row(dataset: str, row: tuple[str, float, str], grid: Grid, right: Right) -> dict[str, Any]:
    """One line of a table: each start's accuracies, and transfer against baseline."""
    backbone, lr, freezing = row
    runs = {start: right(Run(dataset, *row, start)) for start in grid.start}
    n = next(iter(runs.values())).shape[1]
    out = {"dataset": dataset, "backbone": backbone, "lr": lr, "freezing": freezing, "n_test": n}
    out |= {start: _accuracies(images) for start, images in runs.items()}
    if len(runs) == 2:
        out |= _paired(runs["pretrained"], runs["scratch"])
    return out


def _accuracies(right: np.ndarray) -> dict[str, Any]:
    """Best and last epoch, and by how much the first exceeds the second."""
    epochs = right.mean(1)
    low, high = stats.wilson(epochs[-1], right.shape[1])
    return {
        "best": round(float(epochs.max()), 6),
        "chosen": {"mean": round(float(epochs[-1]), 6), "low": low, "high": high},
        "inflation": round(float(epochs.max() - epochs[-1]), 6),
    }


def _frozen_finetuned(dataset: str, backbone: str, lr: float, right: Right) -> dict[str, Any]:
    runs = [right(Run(dataset, backbone, lr, f, "pretrained")) for f in ("frozen", "finetuned")]
    return {"dataset": dataset, "backbone": backbone, "lr": lr, **_paired(*runs)}


def _gains(grid: Grid, right: Right) -> list[dict[str, Any]]:
    """What transfer gains on a data set with a backbone, mean over learning rates and freezing."""
    if not {"pretrained", "scratch"} <= set(grid.start):
        return []
    gains = []
    for dataset, backbone in product(grid.dataset, grid.backbone):
        first, second = (
            np.mean(
                [
                    right(Run(dataset, backbone, lr, freezing, start))[-1]
                    for lr, freezing in product(grid.lr, grid.freezing)
                ],
                axis=0,
            )[None]
            for start in ("pretrained", "scratch")
        )
        difference = asdict(stats.bootstrap(first, second))
        gains.append({"dataset": dataset, "backbone": backbone, **difference})
    return gains


def _paired(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    test = stats.exact_mcnemar(first[-1], second[-1])
    return {
        "difference": asdict(stats.bootstrap(first[-1:], second[-1:])),
        "mcnemar": {**asdict(test), "decidable": test.decidable},
    }


def _correct(compared: list[dict[str, Any]]) -> None:
    """Add Holm's p-values: the rows are as many answers to one question."""
    tests = [row["mcnemar"] for row in compared if "mcnemar" in row]
    for test, p in zip(tests, stats.holm([test["p"] for test in tests]), strict=True):
        test["p_holm"] = p


def _study(grid: Grid, datasets: dict[str, Dataset], right: Right) -> claims.Study:
    """Our runs, by the report's tables, at the last epoch."""
    names = {datasets[name].table: name for name in reversed(grid.dataset) if datasets[name].table}
    keys = [(*row, start) for row, start in product(rows(grid), grid.start)]
    last = {
        table: {key: right(Run(name, *key))[-1] for key in keys} for table, name in names.items()
    }
    return claims.Study(
        {table: {key: float(r.mean()) for key, r in runs.items()} for table, runs in last.items()},
        lambda table, a, b: stats.bootstrap(last[table][a][None], last[table][b][None]),
        {table: len(next(iter(runs.values()))) for table, runs in last.items()},
    )


def _claims(study: claims.Study) -> list[dict[str, str]]:
    return [asdict(claim) for claim in claims.check(study)]
