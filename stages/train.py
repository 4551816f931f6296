"""Train one run of the grid and write its results."""

import argparse

from transfer import cli, params
from transfer.runs import Run, known
from transfer.training import run
from transfer.training.checkpoint import alone

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
    with alone(f"data/checkpoints/.{one.name}.lock", one.name):
        run.train(one, study, given.checkpoint_every)


if __name__ == "__main__":
    cli.run(main)
