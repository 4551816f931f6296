"""How far a setting's confidence can be believed, and the temperature that mends it.

A temperature T divides a network's outputs before the softmax (Guo 2017). It is fitted on the
validation images of all seeds, and judged on the test images.
"""

from collections.abc import Sequence
from math import exp, log
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

from transfer.evidence import stats
from transfer.evidence.scores import Measure, chosen_epoch
from transfer.files import Fields
from transfer.training.predictions import Predictions

FEWEST = 50
"""Different validation images that a temperature is fitted on at least."""
FEWEST_WRONG = 5
"""Those among them that some seed takes wrongly, at least. Of simulated networks whose confidence
is true, 95 % got a temperature between 0.6 and 1.4 with five wrong answers, and between 0.3 and 1.3
with one. With none nearly all got the lowest allowed, which calls every answer certain."""
HOTTEST = 20.0
BINS = 10
DRAWS = 1000


class Bin(Fields):
    """Test images of similar confidence: its mean, and the share that is right."""

    confidence: float
    right: float


class Error(Fields):
    """The expected calibration error (Naeini 2015), the mean distance of confidence and accuracy in
    bins of equally many images: its interval over test images, and its mean by `chance` for a
    network whose confidence is true."""

    value: float
    low: float
    high: float
    chance: float
    bins: list[Bin]

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


class Calibration(Fields):
    """temperature: 1 if the `n` different validation images are too few for one, or those that some
    seed takes wrongly, `wrong`. before, after: without it and with it."""

    temperature: float
    n: int
    wrong: int
    before: Error
    after: Error

    @property
    def lack(self) -> str:
        """As `lack` has it."""
        return lack(self.n, self.wrong)

    @property
    def fitted(self) -> bool:
        return not self.lack


class Answers(NamedTuple):
    """Of images, those of several seeds one after another: name, str [n]; label, int [n];
    probabilities, float [n, classes]."""

    name: np.ndarray
    label: np.ndarray
    probabilities: np.ndarray

    @classmethod
    def from_runs(
        cls, runs: Sequence[dict[str, Predictions]], part: str, measure: Measure
    ) -> "Answers":
        """What the runs say of their part, each at its chosen epoch."""
        found = [(run[part], chosen_epoch(run, measure)) for run in runs if part in run]
        if not found:
            return cls(np.array([], str), np.array([], int), np.zeros((0, 2)))
        return cls(
            np.concatenate([one.name for one, _ in found]),
            np.concatenate([one.label for one, _ in found]),
            np.concatenate([np.nan_to_num(one.probabilities[e]).astype(float) for one, e in found]),
        )

    @property
    def images(self) -> int:
        """How many different ones."""
        return len(np.unique(self.name))

    @property
    def wrong(self) -> int:
        """How many of the different ones get a wrong answer by some seed."""
        return len(np.unique(self.name[self.probabilities.argmax(1) != self.label]))

    def at(self, temperature: float) -> "Answers":
        return self._replace(probabilities=scaled(self.probabilities, temperature))


def lack(images: int, wrong: int) -> str:
    """Of what there is too little for a temperature; '' if of nothing."""
    if images < FEWEST:
        return "images"
    return "wrong answers" if wrong < FEWEST_WRONG else ""


def calibrate(runs: Sequence[dict[str, Predictions]], measure: Measure) -> Calibration:
    """Of a setting's runs, one for each seed, by part."""
    held, test = (Answers.from_runs(runs, part, measure) for part in ("validation", "test"))
    temperature, before = fit(held), error(test)
    after = before if temperature == 1 else error(test.at(temperature))
    return Calibration(
        temperature=temperature, n=held.images, wrong=held.wrong, before=before, after=after
    )


def fit(held: Answers) -> float:
    """The temperature with the lowest cross entropy; 1 where there is too little for one."""
    if lack(held.images, held.wrong):
        return 1.0
    rows = np.arange(len(held.label))

    def loss(log_t: float) -> float:
        given = scaled(held.probabilities, exp(log_t))[rows, held.label]
        return -float(np.log(np.maximum(given, np.finfo(float).tiny)).mean())

    most = log(HOTTEST)
    return round(exp(minimize_scalar(loss, bounds=(-most, most), method="bounded").x), 3)


def scaled(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """As if the outputs had been divided by the temperature; float [n, classes]."""
    least = float(np.finfo(np.float16).smallest_subnormal)  # what they are stored with
    logits = np.log(np.maximum(probabilities, least)) / temperature
    given = np.exp(logits - logits.max(1, keepdims=True))
    return given / given.sum(1, keepdims=True)


def confidence_threshold(held: Answers, risk: float) -> float | None:
    """The lowest confidence from which on at most that share of these images is wrong (Geifman and
    El-Yaniv 2017, without their bound); None if there is none, or fewer than FEWEST images."""
    confidence = held.probabilities.max(1)
    order = confidence.argsort(kind="stable")[::-1]
    wrong = (held.probabilities.argmax(1) != held.label)[order].cumsum()
    # Of equal confidences all are taken, or none.
    last = np.append(np.diff(confidence[order]) < 0, True)
    fits = np.flatnonzero((wrong <= risk * np.arange(1, len(order) + 1)) & last)
    if held.images < FEWEST or not len(fits):
        return None
    return float(confidence[order][fits[-1]])


def error(predicted: Answers) -> Error:
    confidence, right = (
        predicted.probabilities.max(1),
        predicted.probabilities.argmax(1) == predicted.label,
    )
    # Ranks, so that equal confidences do not crowd one bin.
    bins = confidence.argsort(kind="stable").argsort(kind="stable") * BINS // len(confidence)
    value = _gap(confidence - right, bins).sum()
    drawn = np.random.default_rng(0).random((DRAWS, len(confidence))) < confidence
    chance = _gap(confidence - drawn, bins).sum(-1).mean()
    low, high = np.quantile(_redrawn(confidence - right, bins, predicted.name), [0.025, 0.975])
    return Error(
        value=round(float(value), 4),
        low=round(float(min(low, value)), 4),
        high=round(float(max(high, value)), 4),
        chance=round(float(chance), 4),
        bins=[
            Bin(
                confidence=round(float(confidence[bins == one].mean()), 4),
                right=round(float(right[bins == one].mean()), 4),
            )
            for one in np.unique(bins)
        ],
    )


def _gap(excess: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """Each bin's part of the error; excess, [..., n], is confidence less whether it was right."""
    member = np.eye(BINS)[bins]
    return np.abs(excess @ member) / len(bins)


def _redrawn(excess: np.ndarray, bins: np.ndarray, name: np.ndarray) -> np.ndarray:
    """The error, [draws], when the different images are drawn again, each with all it is in."""
    names, unit = np.unique(name, return_inverse=True)
    by_unit = np.zeros((len(names), BINS))
    np.add.at(by_unit, (unit, bins), excess)
    weights = stats.redrawn(len(names), DRAWS, seed=0) * len(names)
    return np.abs(weights @ by_unit).sum(1) / len(name)
