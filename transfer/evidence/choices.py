"""A data set's settings, the one to take first, and how sure that choice is."""

from collections import Counter
from itertools import product
from typing import Any

import numpy as np

from transfer.evidence import stats
from transfer.evidence.found import Choice, Mistake, Recall, Row
from transfer.evidence.results import Results, Scored

DRAWS = 1000
"""Redraws that say how often each setting is the best."""
TIE = 1e-6
"""What a loss of one nat weighs against the measure: it only decides between equals."""


def rank(rows: list[Row], dataset: str, results: Results, margin: float) -> list[Choice]:
    """Every setting and start of the data set at the first size, in the order of what they are
    chosen by. margin: by how much a setting may be worse than the first to be as good."""
    size = results.grid.images[0]
    own = [row for row in rows if (row.dataset, row.images) == (dataset, size)]
    pairs = [(init, row) for init, row in product(results.grid.init, own) if init in row.results]
    order = sorted(pairs, key=lambda pair: pair[1].results[pair[0]].rank)
    seeds = [results.seeds(row, init) for init, row in order]
    wins = often([results.runs(row, init) for init, row in order])
    found = []
    for (init, row), runs, won in zip(order, seeds, wins, strict=True):
        difference = stats.compare(runs, seeds[0])
        found.append(
            Choice(
                **dict(row.setting),
                **row.results[init].model_dump(include={"validation", "n_validation", "chosen"}),
                init=init,
                n_test=row.n_test,
                difference=difference,
                as_good=difference.low > -margin,
                wins=won,
                above=stats.compare(runs, results.always(row.setting, init)),
                **by_class(results.runs(row, init)),
            )
        )
    return found


def often(settings: list[list[Scored]]) -> list[float | None]:
    """Of each setting the share of redraws of the seeds and of their validation images in which it
    is the best, and of equals has the lowest loss; None without validation images."""
    held = [
        [run.held - TIE * run.loss for run in runs if run.held is not None and run.loss is not None]
        for runs in settings
    ]
    n_seeds = len(held[0])
    if not n_seeds:
        return [None] * len(settings)
    total = np.zeros((DRAWS, len(settings)))
    weights = stats.redrawn(n_seeds, DRAWS, seed=0)
    for setting in range(n_seeds):
        scores = np.stack([runs[setting] for runs in held])
        images = stats.redrawn(scores.shape[1], DRAWS, seed=1 + setting)
        total += weights[:, setting, None] * (images @ scores.T)
    best = total.argmax(1)
    return [float((best == setting).mean()) for setting in range(len(settings))]


def by_class(runs: list[Scored]) -> dict[str, Any]:
    """What a Choice says of the classes. Seeds with test images of their own add theirs."""
    images = np.concatenate([run.name for run in runs])
    labels = np.concatenate([run.labels for run in runs])
    right = np.concatenate([run.right[run.chosen] for run in runs])
    names, counts = np.unique(runs[0].labels, return_counts=True)
    recalls = []
    for name in names:
        own = labels == name
        share, n = float(right[own].mean()), len(np.unique(images[own]))
        low, high = stats.wilson(share, n)
        recalls.append(Recall(label=str(name), n=n, mean=share, low=low, high=high))
    mistakes = Counter(
        (str(label), str(predicted))
        for label, predicted in zip(
            labels, np.concatenate([run.predicted for run in runs]), strict=True
        )
        if label != predicted
    )
    return {
        "mistakes": [
            Mistake(label=label, predicted=predicted, n=n)
            for (label, predicted), n in sorted(
                mistakes.items(), key=lambda pair: (-pair[1], pair[0])
            )
        ],
        "majority": str(names[counts.argmax()]),
        "share": float(counts.max() / counts.sum()),
        "recall": recalls,
    }
