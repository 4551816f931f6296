"""What runs are judged by, as a score for each image: the measure is the scores' mean.

For accuracy a score is whether the image was classified right. For the other measures it is the
measure plus the image's influence on it (Hampel 1974), so that the scores' standard error is that
of the measure: for the area under the curve it is DeLong's (1988).
"""

from typing import Literal, get_args

import numpy as np
from scipy.stats import rankdata

from transfer.training.predictions import Predictions

Measure = Literal["accuracy", "balanced_accuracy", "macro_f1", "auroc"]
WORDS: dict[Measure, str] = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "mean F1",
    "auroc": "area under the ROC curve",
}
UNEVEN = 2
"""How many times as large a class may be as another before it weighs too much in accuracy."""


def score(measure: Measure, found: Predictions) -> np.ndarray:
    """[epochs, n]: bool for accuracy, else float. The measures are those of scikit-learn, averaged
    over the classes that the images have; the area under the curve is of one class against all
    others."""
    if measure == "accuracy":
        return found.right
    score = {"balanced_accuracy": _balanced, "macro_f1": _f1, "auroc": _auroc}[measure]
    # A run that diverged gives no numbers.
    probabilities = np.nan_to_num(found.probabilities.astype(float))
    epochs = zip(found.predicted, probabilities, strict=True)
    return np.stack([score(found.label, *epoch) for epoch in epochs])


def measure(asked: str, counts: dict[str, int]) -> Measure:
    """What `asked` is for a data set with so many training images of each class: `auto` is accuracy
    where no class has more than twice the images of another, and balanced accuracy otherwise."""
    if asked in get_args(Measure):
        return asked  # type: ignore[return-value]
    uneven = max(counts.values()) > UNEVEN * min(counts.values())
    return "balanced_accuracy" if uneven else "accuracy"


def images(measure: Measure, labels: np.ndarray) -> int:
    """To how many images an interval of the measure may claim to amount: where each class counts
    the same, so many as if each had no more than the smallest."""
    counts = np.unique(labels, return_counts=True)[1]
    return len(labels) if measure == "accuracy" else int(len(counts) * counts.min())


def _balanced(label: np.ndarray, predicted: np.ndarray, _: np.ndarray) -> np.ndarray:
    right, classes = (predicted == label).astype(float), np.unique(label)
    recall = {c: right[label == c].mean() for c in classes}
    own = np.array([recall[c] for c in label])
    weight = np.array([len(label) / (label == c).sum() / len(classes) for c in label])
    return np.mean([*recall.values()]) + weight * (right - own)


def _f1(label: np.ndarray, predicted: np.ndarray, _: np.ndarray) -> np.ndarray:
    classes = np.union1d(label, predicted)
    scores = []
    for c in classes:
        is_c, said_c = (label == c).astype(float), (predicted == c).astype(float)
        both, either = is_c * said_c, is_c + said_c
        value = 2 * both.mean() / either.mean()
        scores.append(value + (2 * both - value * either) / either.mean())
    return np.mean(scores, axis=0)


def _auroc(label: np.ndarray, _: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    classes = np.unique(label)
    scores = []
    for c in classes[-1:] if len(classes) == 2 else classes:
        given, own = probabilities[:, c], label == c
        ranks, n, m = rankdata(given), own.sum(), (~own).sum()
        place = np.empty(len(label))  # the share of the other images that it stands right of
        place[own] = (ranks[own] - rankdata(given[own])) / m
        place[~own] = 1 - (ranks[~own] - rankdata(given[~own])) / n
        value = place[own].mean()
        scores.append(value + len(label) * (place - value) / np.where(own, n, m))
    return np.mean(scores, axis=0)


def chosen_epoch(parts: dict[str, Predictions], measure: Measure) -> int:
    """The epoch that is best on the validation images (of equals the latest); the last epoch where
    there are none."""
    if "validation" not in parts:
        return len(parts["test"].predicted) - 1
    means = score(measure, parts["validation"]).mean(1).round(9)
    return int(np.flatnonzero(means == means.max())[-1])


def always(found: Predictions) -> Predictions:
    """What answering the most frequent class of these images predicts, in one epoch."""
    counts = np.bincount(found.label, minlength=found.probabilities.shape[2])
    answer = np.full((1, len(found.label)), counts.argmax(), np.int16)
    sure = np.zeros((1, *found.probabilities.shape[1:]), np.float16)
    sure[..., counts.argmax()] = 1
    return Predictions(found.name, found.label, answer, sure)
