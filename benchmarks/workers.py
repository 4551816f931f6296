"""The sample's runs by two workers, against one after another.

Both start from the same made data and weights, in clones of the last commit, and time until tables
and report are there: `dvc repro`, and `python -m transfer run` followed by `dvc repro`.
`PYTHONPATH=. python benchmarks/workers.py` (with requirements-ray.txt)
"""

import argparse
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.kill import CLUSTER, METRICS, clone
from benchmarks.kill import DVC as REPRO
from tests.study import results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tiny", action="store_true", help="the sample of the tests: two runs")
    args = parser.parse_args()
    workers = str(args.workers)
    with tempfile.TemporaryDirectory() as folder:
        start = clone(Path(folder, "start"), args.tiny)
        for stage in ("pack", "pretrain"):
            run(start, [*REPRO, stage])
        contestants = {
            "one after another": [REPRO],
            f"{workers} workers": [[*CLUSTER, "--workers", workers], REPRO],
        }
        seconds, made = [], []
        for number, (name, commands) in enumerate(contestants.items()):
            study = Path(folder, str(number))
            shutil.copytree(start, study, symlinks=True)
            began = time.perf_counter()
            for command in commands:
                run(study, command)
            seconds.append(time.perf_counter() - began)
            made.append(results(study / METRICS))
            print(f"{name}: {seconds[-1]:.0f} s", flush=True)
    print(f"{workers} workers against one after another: {seconds[0] / seconds[1]:.2f} ×")
    same = sum(made[0][path] == made[1][path] for path in made[0])
    print(f"{same} of {len(made[0])} files are the same, byte for byte")


def run(folder: Path, command: list[str]) -> None:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)


if __name__ == "__main__":
    main()
