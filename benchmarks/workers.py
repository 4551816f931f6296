"""The sample's runs by two workers, against one after another.

Both start from the same made data and weights, in clones of the last commit, and time until tables
and report are there: `dvc repro` with all cores, then one thread as a worker has, and
`python -m transfer run` followed by `dvc repro`.
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
            "one after another, all cores": ([REPRO], {}),
            "one after another, one thread": ([REPRO], {"OMP_NUM_THREADS": "1"}),
            f"{workers} workers": ([[*CLUSTER, "--workers", workers], REPRO], {}),
        }
        seconds, made = {}, []
        for number, (name, (commands, environment)) in enumerate(contestants.items()):
            study = Path(folder, str(number))
            shutil.copytree(start, study, symlinks=True)
            began = time.perf_counter()
            for command in commands:
                run(study, command, **environment)
            seconds[name] = time.perf_counter() - began
            made.append(results(study / METRICS))
            print(f"{name}: {seconds[name]:.0f} s", flush=True)
    *peers, ours = seconds
    for peer in peers:
        print(f"{ours} against {peer}: {seconds[peer] / seconds[ours]:.2f} ×")
    same = sum(made[1][path] == made[2][path] for path in made[1])
    print(f"{same} of {len(made[1])} files are those of one thread, byte for byte")


def run(folder: Path, command: list[str], **environment: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(folder), **environment}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)


if __name__ == "__main__":
    main()
