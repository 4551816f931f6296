"""A data set's settings ranked, how sure that choice is, and images whose labels look wrong."""

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np

from transfer.evidence import stats
from transfer.evidence.records import Choice, LabelError, Mistake, Recall, Row
from transfer.evidence.results import Results, Scored
from transfer.evidence.scores import Measure, chosen_epoch
from transfer.images.names import parted
from transfer.runs import Run
from transfer.training.predictions import Predictions

DRAWS = 1000
"""Bootstrap draws that say how often each setting is the best."""
TIE = 1e-6
"""The weight of a nat of loss against the measure: loss only decides between equals."""
Load = Callable[[Run], dict[str, Predictions]]
Opinion = tuple[str, bool, float]
"""The class that a run predicts for an image, whether its confidence is at least the run's mean
confidence in that class, and its confidence."""


def rank(rows: list[Row], dataset: str, results: Results, margin: float) -> list[Choice]:
    """Every setting and init of the data set at the first size, the recommended first. margin: by
    how much a setting may be worse than that and still count as good."""
    size = results.grid.images[0]
    rows = [row for row in rows if (row.dataset, row.images) == (dataset, size)]
    pairs = [(init, row) for init, row in product(results.grid.init, rows) if init in row.results]
    pairs.sort(key=lambda pair: pair[1].results[pair[0]].rank)
    seeds = [results.seeds(row, init) for init, row in pairs]
    wins = win_shares([results.runs(row, init) for init, row in pairs])
    choices = []
    for (init, row), own_seeds, won in zip(pairs, seeds, wins, strict=True):
        difference = stats.compare(own_seeds, seeds[0])
        choices.append(
            Choice(
                **dict(row.setting),
                **row.results[init].model_dump(include={"validation", "n_validation", "chosen"}),
                init=init,
                n_test=row.n_test,
                difference=difference,
                as_good=difference.low > -margin,
                wins=won,
                above=stats.compare(own_seeds, results.always(row.setting, init)),
                **by_class(results.runs(row, init)),
            )
        )
    return choices


def win_shares(settings: list[list[Scored]]) -> list[float | None]:
    """For each setting the share of bootstrap draws of seeds and their validation images in which
    it is the best, and of equals has the lowest loss; None without validation images."""
    scores = [
        [
            run.validation - TIE * run.loss
            for run in runs
            if run.validation is not None and run.loss is not None
        ]
        for runs in settings
    ]
    n_seeds = len(scores[0])
    if not n_seeds:
        return [None] * len(settings)
    total = np.zeros((DRAWS, len(settings)))
    weights = stats.bootstrap_weights(n_seeds, DRAWS, seed=0)
    for seed in range(n_seeds):
        by_setting = np.stack([runs[seed] for runs in scores])
        images = stats.bootstrap_weights(by_setting.shape[1], DRAWS, seed=1 + seed)
        total += weights[:, seed, None] * (images @ by_setting.T)
    best = total.argmax(1)
    return [float((best == setting).mean()) for setting in range(len(settings))]


def by_class(runs: list[Scored]) -> dict[str, Any]:
    """The fields of a Choice that are about classes, over the test images of all seeds."""
    images = np.concatenate([run.name for run in runs])
    labels = np.concatenate([run.labels for run in runs])
    predicted = np.concatenate([run.predicted for run in runs])
    right = np.concatenate([run.right[run.chosen] for run in runs])
    names, counts = np.unique(runs[0].labels, return_counts=True)
    recalls = []
    for name in names:
        of_class = labels == name
        share, n = float(right[of_class].mean()), len(np.unique(images[of_class]))
        low, high = stats.wilson(share, n)
        recalls.append(Recall(label=str(name), n=n, mean=share, low=low, high=high))
    mistakes = Counter(
        pair for pair in zip(labels.tolist(), predicted.tolist(), strict=True) if pair[0] != pair[1]
    )
    return {
        "mistakes": [
            Mistake(label=label, predicted=answer, n=n)
            for (label, answer), n in sorted(mistakes.items(), key=lambda item: (-item[1], item[0]))
        ],
        "majority": str(names[counts.argmax()]),
        "share": float(counts.max() / counts.sum()),
        "recall": recalls,
    }


def label_errors(
    choices: list[Choice], seeds: list[int], load: Load, measure: Measure
) -> list[LabelError]:
    """The data set's validation and test images that all of its good runs predict as the same other
    class, each with at least its mean confidence in that class, the most confident first. None with
    a single good run, or if the recommended setting does not beat always giving one answer.

    Good runs are those of the recommended setting, the first of `choices`, and of settings that are
    not significantly worse. The threshold is that of confident learning (Northcutt 2021), which
    estimates it from the probabilities of all classes.
    """
    predicted: dict[str, list[Opinion]] = {}
    for choice in choices if choices[0].works else ():
        for run in choice.runs(seeds) if choice.difference.sign >= 0 else ():
            for name, opinion in _opinions(load(run), measure):
                predicted.setdefault(name, []).append(opinion)
    errors = [
        LabelError(
            dataset=choices[0].dataset,
            image=name,
            predicted=opinions[0][0],
            runs=len(opinions),
            confidence=round(float(np.mean([confidence for *_, confidence in opinions])), 4),
        )
        for name, opinions in predicted.items()
        if len(opinions) > 1 and _doubt(parted(name)[0], opinions)
    ]
    return sorted(errors, key=lambda error: (-error.confidence, error.image))


def _doubt(label: str, opinions: list[Opinion]) -> bool:
    """Whether all are confident in the same class, and it is not the label."""
    answers = {answer for answer, *_ in opinions}
    return len(answers) == 1 and label not in answers and all(sure for _, sure, _ in opinions)


def _opinions(parts: dict[str, Predictions], measure: Measure) -> Iterator[tuple[str, Opinion]]:
    """Each image's, by name, of a run at its chosen epoch."""
    epoch = chosen_epoch(parts, measure)
    names = np.concatenate([part.name for part in parts.values()])
    predicted = np.concatenate([part.predicted_labels(epoch) for part in parts.values()])
    confidence = np.concatenate([part.confidence[epoch] for part in parts.values()]).astype(float)
    means = {label: confidence[predicted == label].mean() for label in np.unique(predicted)}
    for name, answer, sure in zip(names, predicted, confidence, strict=True):
        yield str(name), (str(answer), sure >= means[answer], float(sure))
