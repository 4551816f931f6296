"""Kill the sample at random instants, start it again, and compare with a run never disturbed.

In turn the stage, DVC, a Ray worker and the Ray node are killed with SIGKILL. At the end every
result under sample/metrics has to be the same, byte for byte, and
after each kill no process may be left. `PYTHONPATH=. python benchmarks/kill.py` (with
requirements-ray.txt)
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks.common import ROOT
from tests.study import drawn, results

METRICS = "sample/metrics"
DVC = [sys.executable, "-m", "transfer.cluster.dvc", "--cd", "sample", "repro"]
CLUSTER = ["env", "-C", "sample", sys.executable, "-m", "transfer", "run", "--threads", "1"]
# What is killed → the command it is killed under, and how to know its process.
TARGETS = {
    "stage": (DVC, lambda words: "stages." in words),
    "dvc": (DVC, lambda words: "sample repro" in words and "sh -c" not in words),
    "ray worker": (CLUSTER, lambda words: words.startswith("ray::reproduce")),
    "ray node": (CLUSTER, lambda words: "/raylet/raylet " in words),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--tiny", action="store_true", help="the sample of the tests: two runs")
    args = parser.parse_args()
    rng, killed, differ = random.Random(args.seed), 0, []
    with tempfile.TemporaryDirectory() as folder:
        calm = clone(Path(folder, "calm"), args.tiny)
        finish(calm)
        while killed < args.kills:
            disturbed = clone(Path(folder, f"disturbed-{killed}"), args.tiny)
            killed = disturb(disturbed, killed, args, rng)
            finish(disturbed)
            expected, found = (results(study / METRICS) for study in (calm, disturbed))
            differ += [path for path in expected if expected[path] != found.get(path)]
    print(f"{killed} kills; {len(differ)} files differ from an undisturbed run's: {differ[:5]}")


def finish(folder: Path) -> None:
    if run(folder, DVC).wait():
        raise SystemExit(f"failed: {folder.with_suffix('.log').read_text()[-2000:]}")


def disturb(folder: Path, killed: int, args: argparse.Namespace, rng: random.Random) -> int:
    """Start and kill until enough were killed, or nothing is left to kill; how many were."""
    process = None
    while killed < args.kills:
        name = args.targets[killed % len(args.targets)]
        command, is_target = TARGETS[name]
        if not process or process.poll() is not None:
            process = run(folder, command)
        if hit(process, is_target, rng.uniform(0, 2 if args.tiny else 30)):
            killed += 1
            print(f"{killed}: killed the {name} at {progress(folder)} runs", flush=True)
        elif process.wait() == 0:
            break
        if name == "ray worker":
            continue  # its run starts again by itself
        process.wait()
        if left := list(remaining(folder)):
            raise SystemExit(f"left after the kill of the {name}: {left}")
    return killed


def clone(folder: Path, tiny: bool = False) -> Path:
    """The repository, to make all of its sample anew."""
    if tiny:
        return drawn(folder).folder.parent
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    (folder / "sample/dvc.lock").unlink()
    return folder


def run(folder: Path, command: list[str]) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)}
    with open(folder.with_suffix(".log"), "a") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)


def hit(process: subprocess.Popen, is_target, delay: float) -> bool:
    """Kill what `is_target` knows by its command line, `delay` seconds after it is first seen."""
    while process.poll() is None:
        if targets := [p for p in under(process) if is_target(words(p))]:
            time.sleep(delay)
            # After the delay it may be another of its kind.
            targets = [p for p in under(process) if is_target(words(p))] or targets
            try:
                targets[-1].kill()
            except psutil.NoSuchProcess:
                continue
            return True
        time.sleep(0.05)
    return False


def under(process: subprocess.Popen) -> list[psutil.Process]:
    try:
        root = psutil.Process(process.pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def words(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def remaining(folder: Path, patience: float = 30) -> Iterator[str]:
    """Processes that still work in the folder after so many seconds."""
    deadline = time.monotonic() + patience
    while True:
        left = [words(p) for p in psutil.process_iter() if works_in(p, folder)]
        if not left or time.monotonic() > deadline:
            return iter(left)
        time.sleep(0.5)


def works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return Path(process.cwd()).is_relative_to(folder)
    except psutil.Error:
        return False


def progress(folder: Path) -> int:
    return len(list((folder / "sample/metrics/runs").glob("*")))


if __name__ == "__main__":
    main()
