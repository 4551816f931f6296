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
Criterion = Measure | Literal["brier", "balanced_brier"]
WORDS: dict[Criterion, str] = {
    "brier": "Brier score",
    "balanced_brier": "balanced Brier score",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "mean F1",
    "auroc": "area under the ROC curve",
}
TIE = 1e-6
"""What the Brier score weighs against another criterion: it only decides between equals."""
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


def measure(select_by: str, counts: dict[str, int]) -> Measure:
    """What settings are judged by on the test images: `select_by`, or, for the Brier score, the
    accuracy, which is balanced where a class has more than twice the training images of another.
    counts: class → training images."""
    if select_by in get_args(Measure):
        return select_by  # type: ignore[return-value]
    return "balanced_accuracy" if _uneven(counts) else "accuracy"


def criterion(select_by: str, counts: dict[str, int]) -> Criterion:
    """What settings are chosen by on the validation images, likewise; `auto` is the Brier score."""
    if select_by in get_args(Measure):
        return select_by  # type: ignore[return-value]
    return "balanced_brier" if _uneven(counts) else "brier"


def _uneven(counts: dict[str, int]) -> bool:
    return max(counts.values()) > UNEVEN * min(counts.values())


def penalty(criterion: Criterion, predictions: Predictions, epoch: int) -> np.ndarray:
    """float [n]: the setting with the least mean is chosen. The Brier score (1950) is the squared
    distance of the probabilities from the truth, summed over the classes. Of settings with the
    same value of another criterion, the one with the lower Brier score is chosen."""
    probabilities = np.nan_to_num(predictions.probabilities[epoch].astype(float))
    truth = np.eye(probabilities.shape[1])[predictions.label]
    brier = ((probabilities - truth) ** 2).sum(1)
    if criterion == "brier":
        return brier
    if criterion == "balanced_brier":
        classes, counts = np.unique(predictions.label, return_counts=True)
        weight = len(brier) / len(classes) / counts
        return brier * weight[np.searchsorted(classes, predictions.label)]
    return TIE * brier - score(criterion, predictions)[epoch]


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
