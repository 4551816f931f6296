"""The measures that runs are judged by, as a score for each image: a measure is its scores' mean.

For accuracy a score is whether the image was classified right. For the other measures it is the
measure plus the image's influence on it (Hampel 1974), so that the scores' standard error is the
measure's: for the area under the curve it is DeLong's (1988).
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
"""How many times as large as another a class may be while `auto` takes accuracy."""


def score(measure: Measure, predictions: Predictions) -> np.ndarray:
    """[epochs, n]: bool for accuracy, else float. The measures are those of scikit-learn, averaged
    over the classes that the images have; the area under the curve is of one class against all
    others."""
    if measure == "accuracy":
        return predictions.right
    score = {"balanced_accuracy": _balanced, "macro_f1": _f1, "auroc": _auroc}[measure]
    # A run that diverged has probabilities that are not numbers.
    probabilities = np.nan_to_num(predictions.probabilities.astype(float))
    epochs = zip(predictions.predicted, probabilities, strict=True)
    return np.stack([score(predictions.label, *epoch) for epoch in epochs])


def measure(asked: str, counts: dict[str, int]) -> Measure:
    """The measure that `asked` means. counts: class → training images. `auto` is accuracy where no
    class has more than twice the images of another, and balanced accuracy otherwise."""
    if asked in get_args(Measure):
        return asked  # type: ignore[return-value]
    uneven = max(counts.values()) > UNEVEN * min(counts.values())
    return "balanced_accuracy" if uneven else "accuracy"


def effective_images(measure: Measure, labels: np.ndarray) -> int:
    """The most images that an interval may count: where each class weighs the same, as many as if
    each had only as many as the smallest."""
    counts = np.unique(labels, return_counts=True)[1]
    return len(labels) if measure == "accuracy" else int(len(counts) * counts.min())


def _balanced(label: np.ndarray, predicted: np.ndarray, _: np.ndarray) -> np.ndarray:
    right, classes = (predicted == label).astype(float), np.unique(label)
    recall = {c: right[label == c].mean() for c in classes}
    own_recall = np.array([recall[c] for c in label])
    weight = np.array([len(label) / (label == c).sum() / len(classes) for c in label])
    return np.mean([*recall.values()]) + weight * (right - own_recall)


def _f1(label: np.ndarray, predicted: np.ndarray, _: np.ndarray) -> np.ndarray:
    classes = np.union1d(label, predicted)
    scores = []
    for c in classes:
        is_c, taken_for_c = (label == c).astype(float), (predicted == c).astype(float)
        both, either = is_c * taken_for_c, is_c + taken_for_c
        value = 2 * both.mean() / either.mean()
        scores.append(value + (2 * both - value * either) / either.mean())
    return np.mean(scores, axis=0)


def _auroc(label: np.ndarray, _: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    classes = np.unique(label)
    scores = []
    for c in classes[-1:] if len(classes) == 2 else classes:
        given, is_c = probabilities[:, c], label == c
        ranks, n, m = rankdata(given), is_c.sum(), (~is_c).sum()
        share = np.empty(len(label))  # of the images of the other kind, those ordered rightly
        share[is_c] = (ranks[is_c] - rankdata(given[is_c])) / m
        share[~is_c] = 1 - (ranks[~is_c] - rankdata(given[~is_c])) / n
        value = share[is_c].mean()
        scores.append(value + len(label) * (share - value) / np.where(is_c, n, m))
    return np.mean(scores, axis=0)


def chosen_epoch(parts: dict[str, Predictions], measure: Measure) -> int:
    """The best epoch on the validation images (of equals the latest); without any, the last."""
    if "validation" not in parts:
        return len(parts["test"].predicted) - 1
    means = score(measure, parts["validation"]).mean(1).round(9)
    return int(np.flatnonzero(means == means.max())[-1])


def always(predictions: Predictions) -> Predictions:
    """Those of always answering the most frequent class of these images, in one epoch."""
    counts = np.bincount(predictions.label, minlength=predictions.probabilities.shape[2])
    answer = np.full((1, len(predictions.label)), counts.argmax(), np.int16)
    probabilities = np.zeros((1, *predictions.probabilities.shape[1:]), np.float16)
    probabilities[..., counts.argmax()] = 1
    return Predictions(predictions.name, predictions.label, answer, probabilities)
