"""The frozen half of the study for one data set and backbone: two learning rates from each start.

Prints the tutorial's seconds ÷ ours for the four runs, and for one more learning rate.
`PYTHONPATH=. python benchmarks/frozen.py data/split/ants_bees --checkpoint resnet18.pth`
"""

import argparse
import shutil
import tempfile
from itertools import product
from pathlib import Path

from benchmarks.common import Study, alternate, show


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("split", type=Path)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--further-only", action="store_true", help="leave the half itself out")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        study = Study(folder, args.split, args.checkpoint, epochs=args.epochs)
        runs = [
            (args.backbone, lr, "frozen", init)
            for init, lr in product(("pretrained", "scratch"), (1e-3, 1e-4))
        ]

        def ours(round: int) -> float:
            shutil.rmtree(study.folder / "data/features", ignore_errors=True)
            return sum(study.ours(*run) for run in runs)

        def theirs(round: int) -> float:
            return sum(study.tutorial(*run, args.epochs) for run in runs)

        if args.further_only:
            study.ours(*runs[0])
        else:
            results = alternate({"tutorial": theirs, "ours": ours}, args.rounds, warm_up=0)
            show(f"frozen half, {args.backbone}, {args.epochs} epochs", results, "s")
        further = alternate(
            {
                "tutorial": lambda round: study.tutorial(
                    args.backbone, 3e-4, "frozen", "pretrained", args.epochs
                ),
                "ours": lambda round: study.ours(args.backbone, 3e-4, "frozen", "pretrained"),
            },
            args.rounds,
            warm_up=0,
        )
        show(f"one more learning rate, {args.backbone}, {args.epochs} epochs", further, "s")


if __name__ == "__main__":
    main()
