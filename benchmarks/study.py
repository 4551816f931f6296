"""All runs of the study, and how far that is from the machine's limit.

Data sets of the paper's sizes, drawn as noise (500 × 375 pixels), and random weights: a run's time
depends on neither. The floor is the networks' operations ÷ the rate of a large matrix product.
`PYTHONPATH=. python benchmarks/study.py --precision bfloat16 --cuda-graph --at-once 4`
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from ruamel.yaml import YAML
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import ROOT, hardware
from transfer import params
from transfer.images import packed
from transfer.images.names import CLASSES, Classes
from transfer.runs import Run, all_runs
from transfer.training import models

SIZES = {  # images per class, as params.yaml has them
    "ants_bees": (122, 77),
    "cats_dogs": (2000, 1000),
    "glioma": (200, 100),
    "cars_bikes": (1500, 500),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shrink", type=int, default=1, help="divide the data sets' sizes")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--precision", choices=["default", "bfloat16"], default="default")
    parser.add_argument("--cuda-graph", action="store_true")
    parser.add_argument("--at-once", type=int, default=1, help="groups of runs side by side")
    parser.add_argument("--datasets", nargs="+", default=list(SIZES), help="those of the grid")
    args = parser.parse_args()
    sizes = {name: [n // args.shrink for n in SIZES[name]] for name in args.datasets}
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), sizes, args)
        study = params.load(Path(folder, "params.yaml"))
        seconds = train(Path(folder), study.grid, args.at_once)
    done, rate = operations(study, sizes), peak(args.precision)
    print(
        f"study: {study.runs} runs, {args.epochs} epochs, {args.precision}, {args.at_once} at once"
    )
    print(f"study: {seconds:.0f} s [{hardware()}]")
    print(f"study: floor {done / rate:.0f} s = {done:.3g} operations ÷ {rate:.3g}/s")
    print(f"study: {seconds * rate / done:.1f} × the floor")


def prepare(folder: Path, sizes: dict, args) -> None:
    settings = YAML().load(ROOT / "params.yaml")
    chosen = {"epochs": args.epochs, "precision": args.precision, "cuda_graph": args.cuda_graph}
    settings["train"].update(chosen)
    settings["grid"]["dataset"] = args.datasets
    YAML().dump(settings, folder / "params.yaml")
    (folder / "data/weights").mkdir(parents=True)
    for backbone, init in product(settings["grid"]["backbone"], settings["grid"]["start"]):
        models.save_scratch(folder / f"data/weights/{backbone}-{init}.pth")
    rng = np.random.default_rng(0)
    for name, counts in sizes.items():
        for part, label in product(("train", "test"), "01"):
            into = folder / "split" / name / part / label
            into.mkdir(parents=True)
            for i in range(counts[part == "test"]):
                noise = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
                noise.resize((500, 375)).save(into / f"{i}.bmp")
        out = folder / "data/packed" / name
        Classes(names=["a", "b"]).write(folder / "split" / name / CLASSES)
        packed.write(folder / "split" / name, out, resize=256, size=224, short_side=0)


def train(folder: Path, grid: params.Grid, at_once: int) -> float:
    """Seconds of all runs, a process for each group of runs that share their images."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def run(one: Run) -> None:
        command = [sys.executable, "-m", "stages.train", *map(str, dict(one).values())]
        subprocess.run(command, cwd=folder, env=environment, check=True)

    started = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(run, {one.group: one for one in all_runs(grid)}.values()))
    return time.perf_counter() - started


def operations(study: params.Params, sizes: dict) -> float:
    """Of the whole grid: a training step counts three forwards, a frozen pass one for all rates."""
    total, grid = 0, study.grid
    for backbone, dataset in product(grid.backbone, grid.dataset):
        train, test = (2 * n for n in sizes[dataset])
        finetuned = len(grid.lr) * (3 * train + test)
        frozen = train + test
        passes = sum({"finetuned": finetuned, "frozen": frozen}[f] for f in grid.freezing)
        total += passes * len(grid.init) * study.train.epochs * forward_operations(backbone)
    return total


def forward_operations(backbone: str) -> int:
    """Of one 224 px image; a multiply-add is two."""
    with tempfile.TemporaryDirectory() as folder:
        models.save_scratch(Path(folder, "empty.pth"))
        model = models.build(backbone, 2, Path(folder, "empty.pth"), seed=0).eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.zeros(1, 3, 224, 224))
    return counter.get_total_flops()


def peak(precision: str) -> float:
    """Operations per second of the best of ten large matrix products."""
    cuda = torch.cuda.is_available()
    # Convolutions use TF32 by default.
    torch.backends.cuda.matmul.allow_tf32 = True
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    n = 8192 if cuda else 2048
    a = torch.randn(n, n, device="cuda" if cuda else "cpu", dtype=dtype)
    best = float("inf")
    for _ in range(10):
        started = time.perf_counter()
        a @ a
        if cuda:
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return 2 * n**3 / best


if __name__ == "__main__":
    main()
