"""Intervals and tests on test images that were classified right or wrong."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

LEVEL = 0.05


@dataclass(frozen=True)
class Difference:
    """A difference of accuracies (fractions) and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.3f} [{self.low:.3f}, {self.high:.3f}]"

    @property
    def sign(self) -> int:
        """1 or -1 where the interval excludes 0, else 0."""
        return int(self.low > 0) - int(self.high < 0)


@dataclass(frozen=True)
class Discordant:
    """Images that one of two runs alone got right, and McNemar's exact p (McNemar 1947)."""

    first_only: int
    second_only: int
    p: float

    @property
    def decidable(self) -> bool:
        """Whether so few images could be significant at all, before any correction."""
        return 2 * 0.5 ** (self.first_only + self.second_only) <= LEVEL


def wilson(accuracy: float, n: int, among: int = 1) -> tuple[float, float]:
    """95 % interval of an accuracy on n images (Wilson 1927); of one picked among several, that in
    which each of them lies with 95 % (Bonferroni)."""
    low, high = proportion_confint(accuracy * n, n, alpha=LEVEL / among, method="wilson")
    return float(low), float(high)


def newcombe(first: float, n_first: int, second: float, n_second: int) -> Difference:
    """Accuracy of the first minus the second's, on n images each, with the interval of Newcombe
    (1998, Stat Med 17:873, method 10). It takes the images as drawn apart: on shared ones a paired
    interval, which needs to know the images, is narrower."""
    counts = first * n_first, n_first, second * n_second, n_second
    low, high = confint_proportions_2indep(*counts, alpha=LEVEL, method="newcomb", compare="diff")
    return Difference(first - second, float(low), float(high))


def exact_mcnemar(first: np.ndarray, second: np.ndarray) -> Discordant:
    """Two runs on the same images: bool [n] each, right or wrong."""
    only = int((first & ~second).sum()), int((~first & second).sum())
    p = mcnemar([[0, only[0]], [only[1], 0]], exact=True).pvalue if sum(only) else 1.0
    return Discordant(*only, min(1.0, float(p)))


def holm(p_values: list[float]) -> list[float]:
    """p-values adjusted for being several answers to one question (Holm 1979)."""
    return multipletests(p_values, method="holm")[1].tolist() if p_values else []


@lru_cache(maxsize=8)
def _redrawn(n: int, draws: int, seed: int) -> np.ndarray:
    """float32 [draws, n]: the weight of each of n things in each redraw."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(n, np.full(n, 1 / n), size=draws).astype(np.float32) / n


def bootstrap(
    first: np.ndarray, second: np.ndarray, draws: int = 4000, seed: int = 0
) -> Difference:
    """Accuracy of the first minus the second's, bool [seeds, n] each, paired by seed and image.

    Percentile interval over redrawn seeds and redrawn images; every seed is tested on the same
    images, so both are redrawn, crossed (Owen 2007). With one seed it covers the choice of
    images alone.
    """
    difference = first.astype(np.float32) - second.astype(np.float32)
    seeds, n = difference.shape
    images, runs = _redrawn(n, draws, seed), _redrawn(seeds, draws, seed + 1)
    values = ((images @ difference.T) * runs).sum(1)
    low, high = np.quantile(values, [LEVEL / 2, 1 - LEVEL / 2])
    return Difference(float(difference.mean()), float(low), float(high))
