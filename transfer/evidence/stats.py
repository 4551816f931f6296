"""Intervals and tests of a measure over test images and seeds.

A run on n images is its n `scores`, whose mean is the measure: see transfer.evidence.scores. Where
several seeds were tested on the same images, an interval adds the variation of images to that of
seeds, as if independent, and so rather too much than too little (Owen 2007 on crossed samples; Zou
and Donner 2008 on adding distances). Where each seed divided the images anew, the variance of the
mean over seeds is that of a two-way random-effects model, by moments: that of the different images,
and that of the seeds as far as it exceeds what their images explain (Satterthwaite 1946 gives the
degrees of freedom).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import hypot, inf, sqrt

import numpy as np
from scipy.optimize import brentq
from scipy.special import bdtr, ndtr, ndtri, stdtrit

LEVEL = 0.05


@dataclass(frozen=True)
class Difference:
    """A difference of accuracies (fractions), its 95 % interval, and the p-value of no difference:
    at most 0.05 where the interval excludes 0."""

    value: float
    low: float
    high: float
    p: float

    def __str__(self) -> str:
        return f"{self.value:+.3f} [{self.low:.3f}, {self.high:.3f}]"

    @property
    def sign(self) -> int:
        """1 or -1 where the interval excludes 0, else 0."""
        return int(self.low > 0) - int(self.high < 0)


@dataclass(frozen=True)
class Seeds:
    """A setting's runs. scores: of each seed, float [n]. names: of each seed's images, str [n],
    where each has its own; None where all have the same."""

    scores: list[np.ndarray]
    names: list[np.ndarray] | None = None

    @property
    def means(self) -> np.ndarray:
        """float [seeds]."""
        return np.array([score.mean() for score in self.scores])

    @property
    def value(self) -> float:
        return float(self.means.mean())

    @property
    def sd(self) -> float | None:
        """Standard deviation over the seeds, None for one."""
        return float(self.means.std(ddof=1)) if len(self.scores) > 1 else None


def minus(first: Seeds, second: Seeds) -> Seeds:
    """Image by image."""
    pairs = zip(first.scores, second.scores, strict=True)
    return Seeds([minuend.astype(float) - other for minuend, other in pairs], first.names)


def average(settings: list[Seeds]) -> Seeds:
    """The mean score of each image, over settings."""
    by_seed = zip(*(setting.scores for setting in settings), strict=True)
    return Seeds([np.mean(scores, axis=0) for scores in by_seed], settings[0].names)


def wilson(accuracy: float, n: float, among: int = 1) -> tuple[float, float]:
    """95 % interval of an accuracy on n images (Wilson 1927); if it was picked among several, the
    interval that holds for each of them (Bonferroni)."""
    z = -float(ndtri(LEVEL / among / 2))
    centre = accuracy + z**2 / (2 * n)
    reach = z * sqrt(accuracy * (1 - accuracy) / n + z**2 / (4 * n**2))
    scale = 1 + z**2 / n
    return max(0.0, (centre - reach) / scale), min(1.0, (centre + reach) / scale)


def interval(runs: Seeds, n: int) -> tuple[float, float]:
    """95 % interval of a measure: Wilson's for as many images as have its standard error, with that
    of the seeds added. n: the images of one seed that the interval may claim to have, at most."""
    value = runs.value
    if runs.names:
        n = n * len(np.unique(np.concatenate(runs.names))) // len(runs.scores[0])
        error = _redrawn(runs).half(LEVEL) / ndtri(1 - LEVEL / 2)
    else:
        error = _image_error(runs)
    effective = min(n, value * (1 - value) / error**2) if error else n
    low, high = wilson(value, effective)
    if runs.names or runs.sd is None:
        return low, high
    wide = _seed_error(runs) * stdtrit(len(runs.scores) - 1, 1 - LEVEL / 2)
    return max(0.0, value - hypot(value - low, wide)), min(1.0, value + hypot(high - value, wide))


def compare(first: Seeds, second: Seeds, among: int = 1) -> Difference:
    """The first's measure minus the second's, paired by seed and image. `among`: the number of
    differences that this one was picked from, see wilson.

    With one seed it is about these two runs alone, on other images: Newcombe's interval for pairs
    if scores are right or wrong, widened to hold 0 where McNemar's exact test does not reject.
    """
    difference, level = minus(first, second), LEVEL / among
    value = difference.value
    test = sign_test(difference)
    if len(difference.scores) == 1 and _is_right(first) and _is_right(second):
        low, high = _newcombe_paired(first.scores[0], second.scores[0], among)
        return _widened(Difference(value, low, high, test), level)
    half = _errors(difference).half
    wide = half(level)
    p = max(_level(half, abs(value)), test if _is_right(first) and not first.names else 0.0)
    low, high = max(-1.0, value - wide), min(1.0, value + wide)
    return _widened(Difference(value, low, high, p), level)


def _level(half: Callable[[float], float], value: float) -> float:
    """The level at which an interval of that half-width just reaches 0."""
    least, most = 1e-12, 1 - 1e-12
    if half(least) <= value:
        return least if value else 1.0
    return float(brentq(lambda a: half(a) - value, least, most)) if half(most) < value else 1.0


def _widened(difference: Difference, level: float) -> Difference:
    """With 0 in the interval where the p-value exceeds the level."""
    if difference.p <= level:
        return difference
    low, high = min(difference.low, 0.0), max(difference.high, 0.0)
    return replace(difference, low=low, high=high)


@dataclass(frozen=True)
class Errors:
    """Standard errors of a mean: by the images, and by the seeds with `df` degrees of freedom; or
    both in `images`, which then has them."""

    images: float
    seeds: float
    df: float

    def half(self, alpha: float) -> float:
        """Half the width of the interval that leaves out the truth with probability alpha."""
        t = stdtrit(self.df, 1 - alpha / 2)
        if not self.seeds:
            return float(t * self.images)
        return hypot(ndtri(1 - alpha / 2) * self.images, t * self.seeds)


def _errors(difference: Seeds) -> Errors:
    """Of a difference. Settings that agree on all n images may still differ on others: their error
    is at least that of one image in n + 2 (Agresti and Min 2005)."""
    if difference.names:
        errors, n = _redrawn(difference), len(np.unique(np.concatenate(difference.names)))
    else:
        df = len(difference.scores) - 1 if difference.sd else inf
        errors = Errors(_image_error(difference), _seed_error(difference), df)
        n = len(difference.scores[0])
    return replace(errors, images=max(errors.images, 1 / (n + 2)))


def _redrawn(runs: Seeds) -> Errors:
    """Of seeds that were each tested on images of their own, some of them on the same."""
    count = len(runs.scores)
    names, place = np.unique(np.concatenate(runs.names or []), return_inverse=True)
    by_image = influences(runs.scores, place)
    images = float(by_image @ by_image) * len(names) / max(1, len(names) - 1)
    if count == 1:
        return Errors(sqrt(images), 0.0, inf)
    between = float(runs.means.var(ddof=1))
    within = float(np.mean([score.var(ddof=1) / len(score) for score in runs.scores]))
    total = images + max(0.0, between - within) / count
    df = (count - 1) * (total * count / between) ** 2 if between > within else inf
    return Errors(sqrt(total), 0.0, max(df, count - 1))


def influences(scores: list[np.ndarray], place: np.ndarray) -> np.ndarray:
    """By how much each different image moves the mean over the seeds, float [images]. place: of
    the seeds' images, one seed's after another's, the places among the different ones."""
    parts = [(score - score.mean()) / len(score) / len(scores) for score in scores]
    return np.bincount(place, np.concatenate(parts))


def _image_error(runs: Seeds) -> float:
    """Standard error by the images, where all seeds have the same."""
    mean = np.mean(runs.scores, axis=0)
    return float(mean.std() / sqrt(len(mean)))


def _seed_error(runs: Seeds) -> float:
    """Standard error by the seeds, where all have the same images."""
    return (runs.sd or 0.0) / sqrt(len(runs.scores))


def _is_right(runs: Seeds) -> bool:
    return runs.scores[0].dtype == bool


def sign_test(difference: Seeds) -> float:
    """Exact p of the sign test on each image's mean over the seeds; with one seed it is McNemar's.
    1 with several seeds that each have their own images."""
    if difference.names and len(difference.scores) > 1:
        return 1.0
    mean = np.mean(difference.scores, axis=0)
    return _mcnemar(int((mean > 0).sum()), int((mean < 0).sum()))


def _mcnemar(first_only: int, second_only: int) -> float:
    """The exact two-sided test (McNemar 1947)."""
    fewer, both = min(first_only, second_only), first_only + second_only
    return min(1.0, 2 * float(bdtr(fewer, both, 0.5)))


def _newcombe_paired(first: np.ndarray, second: np.ndarray, among: int) -> tuple[float, float]:
    """Newcombe 1998 (Stat Med 17:2635), method 10: bool [n] each."""
    n, p, q = len(first), float(first.mean()), float(second.mean())
    (low_p, high_p), (low_q, high_q) = wilson(p, n, among), wilson(q, n, among)
    both, only_p, only_q = (first & second).sum(), (first & ~second).sum(), (~first & second).sum()
    neither = n - both - only_p - only_q
    product = float(both + only_p) * (only_q + neither) * (both + only_q) * (only_p + neither)
    cross = float(both) * neither - float(only_p) * only_q
    if cross > 0:
        cross = max(cross - n / 2, 0.0)
    phi = cross / sqrt(product) if product else 0.0

    def distance(a: float, b: float) -> float:
        return sqrt(max(0.0, a**2 - 2 * phi * a * b + b**2))

    return p - q - distance(p - low_p, high_q - q), p - q + distance(high_p - p, q - low_q)


def newcombe(
    first: float, n_first: int, second: float, n_second: int, among: int = 1
) -> Difference:
    """Accuracy of the first minus the second's, on n images each, with the interval of Newcombe
    (1998, Stat Med 17:873, method 10). It takes the images as drawn independently: on shared images
    a paired interval, which needs each image's answer, is narrower. `among`: see wilson."""
    low, high = wilson(first, n_first, among)
    low_second, high_second = wilson(second, n_second, among)
    value = first - second
    low, high = hypot(first - low, high_second - second), hypot(high - first, second - low_second)
    return normal(value, value - low, value + high, among)


def normal(value: float, low: float, high: float, among: int = 1) -> Difference:
    """With the p-value that the interval has if the difference is normally distributed."""
    reach = value - low if value > 0 else high - value
    z = abs(value) / reach * ndtri(1 - LEVEL / among / 2) if reach else 0.0
    return Difference(value, low, high, float(2 * ndtr(-z)))


def holm(p_values: list[float]) -> list[float]:
    """p-values corrected for their number (Holm 1979)."""
    order = np.argsort(p_values)
    steps = np.sort(p_values) * np.arange(len(p_values), 0, -1)
    adjusted = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted[np.argsort(order)].tolist()


def bootstrap_weights(n: int, draws: int, seed: int) -> np.ndarray:
    """float [draws, n]: the weight of each of n items in each draw of n with replacement."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(n, np.full(n, 1 / n), size=draws) / n
