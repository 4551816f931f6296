"""Which settings are worth another seed: a race (Maron and Moore 1994) on validation images.

All settings run with the first seed before any runs with the second. After each such round those
leave whose measure lies below the leader's, paired by image and seed, beyond a 95 % interval.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from transfer.evidence import stats
from transfer.evidence.arms import Scored
from transfer.evidence.stats import Difference, Seeds
from transfer.runs import Place, Run

Made = Callable[[Run], Scored | None]
"""Reads a run that was made, with its validation images."""


@dataclass
class Runner:
    """A setting from a start. runs: one for each seed so far. behind: its measure minus the
    leader's, in the round after which it left; None while it is in."""

    place: Place
    start: str
    runs: list[Scored] = field(default_factory=list)
    behind: Difference | None = None

    def held(self, rounds: int, ratio: float = 0.0) -> Seeds:
        """The scores of its validation images in the first rounds; ratio as in Seeds."""
        return Seeds([run.held for run in self.runs[:rounds] if run.held is not None], ratio)

    def rank(self, rounds: int) -> tuple[float, float]:
        """The best first, and of equals that with the lowest loss, as Arm.rank."""
        losses = [run.loss.mean() for run in self.runs[:rounds] if run.loss is not None]
        return -round(self.held(rounds).value, 6), round(float(np.mean(losses)), 6)


@dataclass(frozen=True)
class Race:
    """rounds: how many all that are still in it have completed. runners: those still in it first,
    by those rounds (by the first as far as it got, if none is complete), then those that left,
    the last to leave first, then those that never ran."""

    rounds: int
    runners: list[Runner]

    @property
    def finalists(self) -> list[Runner]:
        """Those still in it that ran."""
        return [one for one in self.runners if one.runs and not one.behind]


def of(
    settings: Sequence[tuple[Place, str]], seeds: Sequence[int], made: Made, ratio: float = 0.0
) -> Race:
    """The race of these settings of one data set, as far as its runs go. ratio: 0 where all seeds
    have the same validation images; where each has its own, how many for one training image."""
    runners, rounds = [Runner(*setting) for setting in settings], 0
    for seed in seeds:
        still = [one for one in runners if not one.behind]
        for one in still:
            if run := made(one.place.run(one.start, seed)):
                one.runs.append(run)
        if any(len(one.runs) <= rounds for one in still):
            break
        rounds += 1
        leader = min(still, key=lambda one: one.rank(rounds)).held(rounds, ratio)
        for one in still:
            difference = stats.compare(one.held(rounds, ratio), leader)
            one.behind = difference if difference.sign < 0 else None

    def order(one: Runner) -> tuple[bool, int, tuple[float, float]]:
        own = min(len(one.runs), rounds or 1)
        return bool(one.behind), -own, one.rank(own) if own else (0.0, 0.0)

    return Race(rounds, sorted(runners, key=lambda one: (not one.runs, *order(one))))
