"""The calibration of a setting's confidence, and the temperature that improves it.

A temperature T divides a network's outputs before the softmax (Guo 2017). It is fitted on the
validation images of all seeds, and judged on the test images.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, exp, log, log1p

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import bdtr

from transfer.evidence import stats
from transfer.evidence.scores import Measure, chosen_epoch
from transfer.files import Fields
from transfer.training.predictions import Predictions

FEWEST = 50
"""The fewest different validation images that a temperature is fitted on."""
FEWEST_WRONG = 5
"""The fewest of them that some seed classifies wrongly. Of simulated networks with true confidence,
95 % got a temperature between 0.6 and 1.4 with five wrong answers, and between 0.3 and 1.3 with
one. With none, nearly all got the lowest allowed, which calls every answer certain."""
HOTTEST = 20.0
BINS = 10
DRAWS = 1000


class Bin(Fields):
    """Test images of similar confidence: its mean, and the share that is right."""

    confidence: float
    right: float


class Error(Fields):
    """The expected calibration error (Naeini 2015), the mean distance of confidence and accuracy in
    bins of equally many images, with its interval over test images. chance_low, chance_high: its
    95 % range if the confidence were true."""

    value: float
    low: float
    high: float
    chance_low: float
    chance_high: float
    bins: list[Bin]

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


class Calibration(Fields):
    """temperature: 1 if too few are available of the `n` different validation images or of the
    `wrong` ones among them, which some seed classifies wrongly. before, after: the error without
    the temperature and with it."""

    temperature: float
    n: int
    wrong: int
    before: Error
    after: Error

    @property
    def lack(self) -> str:
        """See lack()."""
        return lack(self.n, self.wrong)

    @property
    def fitted(self) -> bool:
        return not self.lack


@dataclass(frozen=True)
class Answers:
    """Answers for images, those of several seeds one after another. name: str [n]. label: int [n].
    probabilities: float [n, classes]."""

    name: np.ndarray
    label: np.ndarray
    probabilities: np.ndarray

    @classmethod
    def from_runs(
        cls, runs: Sequence[dict[str, Predictions]], part: str, measure: Measure
    ) -> "Answers":
        """The runs' answers for that part of the images, each at its chosen epoch."""
        chosen = [(run[part], chosen_epoch(run, measure)) for run in runs if part in run]
        if not chosen:
            return cls(np.array([], str), np.array([], int), np.zeros((0, 2)))
        probabilities = [
            np.nan_to_num(predictions.probabilities[epoch]) for predictions, epoch in chosen
        ]
        return cls(
            np.concatenate([predictions.name for predictions, _ in chosen]),
            np.concatenate([predictions.label for predictions, _ in chosen]),
            np.concatenate(probabilities).astype(float),
        )

    @property
    def images(self) -> int:
        """The number of different images."""
        return len(np.unique(self.name))

    @property
    def wrong(self) -> int:
        """The number of different images that some seed classifies wrongly."""
        return len(np.unique(self.name[self.probabilities.argmax(1) != self.label]))

    def only(self, places: np.ndarray) -> "Answers":
        return Answers(self.name[places], self.label[places], self.probabilities[places])

    def at(self, temperature: float) -> "Answers":
        return replace(self, probabilities=scaled(self.probabilities, temperature))


def lack(images: int, wrong: int) -> str:
    """What is missing to fit a temperature, or ''."""
    if images < FEWEST:
        return "images"
    return "wrong answers" if wrong < FEWEST_WRONG else ""


def calibrate(runs: Sequence[dict[str, Predictions]], measure: Measure) -> Calibration:
    """That of a setting. runs: its predictions for each seed, by part."""
    validation, test = (Answers.from_runs(runs, part, measure) for part in ("validation", "test"))
    temperature, before = fit(validation), error(test)
    return Calibration(
        temperature=temperature,
        n=validation.images,
        wrong=validation.wrong,
        before=before,
        after=before if temperature == 1 else error(test.at(temperature)),
    )


def fit(validation: Answers) -> float:
    """The temperature with the lowest cross entropy; 1 where there are too few answers, or where
    temperatures fitted on one half of the images do not help on the other."""
    if lack(validation.images, validation.wrong):
        return 1.0
    half = np.unique(validation.name, return_inverse=True)[1] % 2 == 0
    gains = [
        _loss(validation.only(other), 1.0)
        - _loss(validation.only(other), _lowest(validation.only(~other)))
        for other in (half, ~half)
    ]
    return _lowest(validation) if sum(gains) > 0 else 1.0


def _lowest(validation: Answers) -> float:
    most = log(HOTTEST)
    bounds = (-most, most)
    found = minimize_scalar(
        lambda log_t: _loss(validation, exp(log_t)), bounds=bounds, method="bounded"
    )
    return round(exp(found.x), 3)


def _loss(validation: Answers, temperature: float) -> float:
    """Cross entropy in nats, summed over the images."""
    rows = np.arange(len(validation.label))
    given = scaled(validation.probabilities, temperature)[rows, validation.label]
    return -float(np.log(np.maximum(given, np.finfo(float).tiny)).sum())


def scaled(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """As if the outputs had been divided by the temperature; float [n, classes]."""
    least = float(np.finfo(np.float16).smallest_subnormal)  # they are stored as float16
    logits = np.log(np.maximum(probabilities, least)) / temperature
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


def confidence_threshold(validation: Answers, risk: float, guarantee: bool = False) -> float | None:
    """The lowest confidence from which on at most that share of these images is wrong (Geifman and
    El-Yaniv 2017, without their bound); None if there is none, or fewer than FEWEST images.

    With `guarantee`, for one seed's images, the lowest at which the share on all images exceeds the
    risk with a probability of at most 5 % (Learn then Test, Angelopoulos 2021, by fixed sequence):
    for 2 % it takes 149 images without an error at least.
    """
    confidence = validation.probabilities.max(1)
    order = confidence.argsort(kind="stable")[::-1]
    wrong = (validation.probabilities.argmax(1) != validation.label)[order].cumsum()
    taken = np.arange(1, len(order) + 1)
    # Of equal confidences all are taken, or none.
    last = np.append(np.diff(confidence[order]) < 0, True)
    fits = (wrong <= risk * taken) & last
    if guarantee:
        least = fewest(risk) if risk else len(order) + 1
        tested = last & (taken >= least)
        refused = tested & (bdtr(wrong, taken, risk) > stats.LEVEL)
        fits = tested & (refused.cumsum() == 0)
    places = np.flatnonzero(fits)
    if validation.images < FEWEST or not len(places):
        return None
    return float(confidence[order][places[-1]])


def fewest(risk: float) -> int:
    """The images without an error that a guarantee of that risk takes, at least."""
    return ceil(log(stats.LEVEL) / log1p(-risk))


def error(answers: Answers) -> Error:
    """The expected calibration error of these answers, rounded to 4 digits."""
    confidence = answers.probabilities.max(1)
    right = answers.probabilities.argmax(1) == answers.label
    # By ranks, so that bins are equally large even where confidences are equal.
    bins = confidence.argsort(kind="stable").argsort(kind="stable") * BINS // len(confidence)
    value = _gap(confidence - right, bins).sum()
    # An image is as hard for all seeds, so they share a draw.
    image = np.unique(answers.name, return_inverse=True)[1]
    drawn = np.random.default_rng(0).random((DRAWS, image.max() + 1))[:, image] < confidence
    chance = np.quantile(_gap(confidence - drawn, bins).sum(-1), [0.025, 0.975])
    low, high = np.quantile(_bootstrap(confidence - right, bins, answers.name), [0.025, 0.975])
    return Error(
        value=round(float(value), 4),
        low=round(float(min(low, value)), 4),
        high=round(float(max(high, value)), 4),
        chance_low=round(float(chance[0]), 4),
        chance_high=round(float(chance[1]), 4),
        bins=[
            Bin(
                confidence=round(float(confidence[bins == i].mean()), 4),
                right=round(float(right[bins == i].mean()), 4),
            )
            for i in np.unique(bins)
        ],
    )


def _gap(excess: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """Each bin's part of the error; excess, [..., n], is confidence less whether it was right."""
    member = np.eye(BINS)[bins]
    return np.abs(excess @ member) / len(bins)


def _bootstrap(excess: np.ndarray, bins: np.ndarray, name: np.ndarray) -> np.ndarray:
    """The error, [draws], with the different images resampled, each with all its answers."""
    names, image = np.unique(name, return_inverse=True)
    by_image = np.zeros((len(names), BINS))
    np.add.at(by_image, (image, bins), excess)
    weights = stats.bootstrap_weights(len(names), DRAWS, seed=0) * len(names)
    return np.abs(weights @ by_image).sum(1) / len(name)
