"""Input pipeline alone: crop, flip, normalise, batches of 4. Ours ÷ the tutorial's, images/s.

`PYTHONPATH=. python benchmarks/pipeline.py data/split/ants_bees`
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.common import ROOT, alternate, show
from benchmarks.tutorial import loaders
from transfer import params
from transfer.images import packed
from transfer.runs import all_runs
from transfer.training.engine import Job


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("split", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "packed")
        packed.write(args.split, out, resize=256, size=224, short_side=0)
        data = packed.load(out)
        theirs = loaders(str(args.split), 256, 224, workers=cores)["train"]
        results = alternate(
            {
                "tutorial": lambda round: rate(lambda: sum(len(x) for x, _ in theirs)),
                "ours": lambda round: rate(lambda: ours(data, round, cores)),
            },
            args.rounds,
        )
    show(f"input pipeline, {len(data.train)} images, {cores} cores", results, "images/s")


def ours(data: packed.Packed, epoch: int, threads: int) -> int:
    study = params.load(ROOT / "params.yaml")
    job = Job(all_runs(study.grid)[0], study.train, data, torch.device("cpu"))
    feed = job.feed()
    feed.threads = threads
    return sum(len(images) for images, _ in feed.train(*job.plan(epoch)))


def rate(once: Callable[[], int]) -> float:
    started = time.perf_counter()
    images = once()
    return images / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
