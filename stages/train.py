"""Take the results of one run of the grid, or train it: with the others of its group that are not
made yet, unless ALONE is in the environment."""

import argparse
import os
from pathlib import Path

from transfer import cli, files, params
from transfer.runs import Run, known
from transfer.training import run_cache

AXES = list(Run.model_fields)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.train", description=__doc__)
    for axis in AXES:
        parser.add_argument(axis, help=f"a value of grid.{axis} in params.yaml")
    help = "least seconds between checkpoints (default %(default)s)"
    parser.add_argument("--checkpoint-every", type=float, default=60.0, help=help)
    given = parser.parse_args()
    study = params.load()
    one = known(study.grid, given.dataset, "-".join(getattr(given, axis) for axis in AXES))
    key = run_cache.key(one, study)
    alone, locks = "ALONE" in os.environ, Path("data/checkpoints")
    with (
        files.locked(locks / f".{one.group}.lock", one.name, shared=alone),
        files.locked(locks / f".{one.name}.lock", one.name),
    ):
        if not run_cache.take(one, key):
            from transfer.training import run  # and with it PyTorch, which takes seconds

            others = [] if alone else run_cache.companions(one, study)
            run.train_group([one, *others], study, given.checkpoint_every)
            run_cache.take(one, key)


if __name__ == "__main__":
    cli.run(main)
