"""How often a race within a share of the whole grid's time ends with the grid's own choice.

Replayed, without training, on a folder with the runs of a grid of several seeds and their times, in
every draw with the seeds in another order: `python -m benchmarks.budget FOLDER`.
"""

import argparse
import os
import random
from statistics import fmean

from tabulate import tabulate

from transfer import params
from transfer.cluster import budget
from transfer.evidence.race import Runner
from transfer.params import Params
from transfer.runs import Run
from transfer.training.record import Time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", help="a study whose `dvc repro` is done")
    parser.add_argument("--share", type=float, default=1 / 3, help="of the grid's time")
    parser.add_argument("--draws", type=int, default=20)
    given = parser.parse_args()
    os.chdir(given.folder)
    study, lines = params.load(), []
    for name in study.grid.dataset:
        own = narrowed(study, dataset=[name])
        found = [replay(own, given.share, draw) for draw in range(given.draws)]
        lines.append([name, *map(fmean, zip(*found, strict=True))])
    header = ["data set", "same choice", "test measure lost", "runs made", "rounds"]
    print(tabulate(lines, header, floatfmt=".3f", tablefmt="github"))


def replay(study: Params, share: float, draw: int) -> tuple[float, float, float, float]:
    """Whether the race ends with the grid's choice, by how much that is better on the test images
    over all seeds, the share of the runs made, and the rounds completed."""
    (name,), grid = study.grid.dataset, study.grid
    settings = budget.of_dataset(study, name, lambda run: False).runners
    best = min(settings, key=lambda one: whole(one, study).rank(len(grid.seed)))
    study, made = narrowed(study, seed=random.Random(draw).sample(grid.seed, len(grid.seed))), set()
    times = {run: Time.read(run.time).seconds for one in settings for run in all_of(one, grid.seed)}
    left = share * sum(times.values())
    for runs in budget.rounds(study, made.__contains__):
        for run in runs:
            if left > 0:  # as many as begin in time
                left -= times[run]
                made.add(run)
    race = budget.of_dataset(study, name, made.__contains__)
    first = race.runners[0]
    same = (first.place, first.start) == (best.place, best.start)
    lost = tested(whole(best, study)) - tested(whole(first, study))
    return float(same), lost, len(made) / len(times), race.rounds


def all_of(one: Runner, seeds: list[int]) -> list[Run]:
    return [one.place.run(one.start, seed) for seed in seeds]


def whole(one: Runner, study: Params) -> Runner:
    """With the runs of all seeds."""
    runs = all_of(one, sorted(study.grid.seed))
    scored = [budget.scored(run, study.evidence.select_by) for run in runs]
    return Runner(one.place, one.start, scored)


def tested(one: Runner) -> float:
    return fmean(float(run.scores[run.chosen].mean()) for run in one.runs)


def narrowed(study: Params, **axes: list) -> Params:
    return study.model_copy(update={"grid": study.grid.model_copy(update=axes)})


if __name__ == "__main__":
    main()
