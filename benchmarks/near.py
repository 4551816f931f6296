"""Seconds and peak memory of comparing each image with all others by their thumbnails: of frames of
a fixed camera, which all look alike, and of images that all differ.

Each measurement is a process of its own. The peak counts the thumbnails, and Python with NumPy.
`PYTHONPATH=. python benchmarks/near.py`
"""

import argparse
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np

from transfer.images import near


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    args = parser.parse_args()
    for kind in ("alike", "different"):
        for task in ("components", "distinct", "nearest"):
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                seconds, peak = pool.submit(measure, kind, task, args.images).result()
            print(f"{args.images} images that are {kind}, {task}: {seconds:.1f} s, {peak} MiB")


def measure(kind: str, task: str, images: int) -> tuple[float, int]:
    """Seconds, and the process's peak memory in MiB."""
    rng = np.random.default_rng(0)
    shape = (images, 3 * near.SIDE**2)
    if kind == "alike":
        scene = rng.integers(20, 236, shape[1])
        thumbnails = (scene + rng.integers(-3, 4, shape)).astype(np.uint8)
    else:
        thumbnails = rng.integers(0, 256, shape, np.uint8)
    started = time.perf_counter()
    if task == "nearest":
        near.nearest(thumbnails[: images // 5], thumbnails[images // 5 :])
    else:
        getattr(near, task)(thumbnails)
    seconds = time.perf_counter() - started
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
