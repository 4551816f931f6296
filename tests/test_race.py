"""Races of settings whose validation images are known."""

import numpy as np

from transfer.evidence import race, stats
from transfer.evidence.arms import Scored
from transfer.evidence.race import Race
from transfer.runs import Place, Run

N = 40
"""Validation images."""
RIGHT = {0.1: [36, 36, 36], 0.01: [35, 35, 37], 0.001: [33, 32, 32], 0.0001: [12, 36, 36]}
"""Learning rate → how many are right with each seed."""


def scored(right: int) -> Scored:
    held = np.arange(N) < right
    return Scored(*[np.array([])] * 6, chosen=0, held=held, loss=1.0 - held)


def raced(made: int, order: tuple[float, ...] = tuple(RIGHT)) -> Race:
    """After the first `made` runs of all three rounds, in the order of the rates."""
    settings = [
        (Place(dataset="d", images="all", backbone="b", lr=lr, freezing="f", recipe="r"), "scratch")
        for lr in RIGHT
    ]
    there = [(lr, seed) for seed in (0, 1, 2) for lr in order][:made]

    def read(run: Run) -> Scored | None:
        return scored(RIGHT[run.lr][run.seed]) if (run.lr, run.seed) in there else None

    return race.of(settings, [0, 1, 2], read)


def rates(found: Race) -> list[float]:
    return [one.place.lr for one in found.runners]


def test_one_that_is_worse_beyond_its_paired_interval_leaves_and_runs_no_more():
    found = raced(4)
    assert found.rounds == 1 and rates(found) == list(RIGHT)
    *still, last = found.runners
    assert not any(one.behind for one in still) and len(found.finalists) == 3
    worse, first = (np.arange(N) < right for right in (12, 36))
    assert last.behind == stats.compare(stats.Seeds([worse]), stats.Seeds([first]))
    assert last.behind.high < 0
    later = raced(12)
    assert len(later.runners[-1].runs) == 1, "its later runs, which are good, do not count"


def test_a_round_counts_when_all_that_are_left_have_run_it():
    early = raced(3)
    assert early.rounds == 0 and len(early.finalists) == 3 and not early.runners[-1].runs
    # 0.0001 has left, and so the second round is of three.
    assert [raced(made).rounds for made in (4, 6, 7, 11)] == [1, 1, 2, 3]
    # 0.01, which runs first, has the best third run, which no other has yet.
    assert rates(raced(9, (0.01, 0.1, 0.001, 0.0001))) == list(RIGHT)
