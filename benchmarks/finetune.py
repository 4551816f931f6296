"""One finetuned run, whole process, batches of 4, 224 px. Tutorial's seconds ÷ ours.

`PYTHONPATH=. python benchmarks/finetune.py data/split/ants_bees`
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks.common import Study, alternate, show


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("split", type=Path)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--checkpoint", type=Path, help="start from it, not at random")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    run = (args.backbone, 1e-4, "finetuned", "pretrained" if args.checkpoint else "scratch")
    with tempfile.TemporaryDirectory() as folder:
        study = Study(folder, args.split, args.checkpoint, epochs=args.epochs)
        results = alternate(
            {
                "tutorial": lambda round: study.tutorial(*run, args.epochs),
                "ours": lambda round: study.ours(*run),
            },
            args.rounds,
            warm_up=0,
        )
    show(f"finetuned {args.backbone}, {args.epochs} epochs", results, "s")


if __name__ == "__main__":
    main()
