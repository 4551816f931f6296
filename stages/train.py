"""Take the results of one run of the grid from the run cache, or train it, together with the stale
runs of its group."""

import argparse

from transfer import cli, files, params
from transfer.runs import Run
from transfer.training import run_cache


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.train", description=__doc__)
    for axis in Run.model_fields:
        parser.add_argument(axis, help=f"a value of grid.{axis} in params.yaml")
    help = "train this run only, not its group"
    parser.add_argument("--alone", action="store_true", help=help)
    help = "least seconds between checkpoints (default %(default)s)"
    parser.add_argument("--checkpoint-every", type=float, default=60.0, help=help)
    args = vars(parser.parse_args())
    study = params.load()
    run = Run.from_words({axis: args[axis] for axis in Run.model_fields}, study.grid)
    key = run_cache.key(run, study)
    with files.locked(f"data/checkpoints/.{run.group}.lock", run.name):
        if not run_cache.take(run, key):
            from transfer.training.run import train_group  # PyTorch takes seconds to import

            companions = [] if args["alone"] else run_cache.companions(run, study)
            train_group([run, *companions], study, args["checkpoint_every"])
            run_cache.take(run, key)


if __name__ == "__main__":
    cli.run(main)
