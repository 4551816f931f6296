"""What DVC itself takes for a stage as the pipeline grows: 64, 256 and 1024 runs.

The study's graph with more seeds, its commands writing one short file for each output. Printed are
one run by itself (`dvc repro -s`, what a worker calls), and each further run of one `dvc repro`,
of our DVC (transfer.cluster.dvc) and of the peer, plain `dvc`.
`PYTHONPATH=. python benchmarks/growth.py`
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from ruamel.yaml import YAML

from benchmarks.noop import SIZES, make

ROOT = Path(__file__).resolve().parents[1]
MORE = 3  # runs in one `dvc repro`


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--datasets", nargs="+", default=list(SIZES), help="those of the grid")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder, "study")
        make(study, args.datasets, full=False)
        for runs in args.runs:
            grow(study, runs)
            peer = measure(study, ["dvc"])
            ours = measure(study, [sys.executable, "-m", "transfer.cluster.dvc"])
            for what, seconds in ours.items():
                ratio = seconds / peer[what]
                times = f"{seconds:.2f} s, dvc {peer[what]:.2f} s, ratio {ratio:.2f}"
                print(f"{runs} runs: {what} {times}", flush=True)


def grow(study: Path, runs: int) -> None:
    """Add seeds to the grid until it has so many runs, each with its lines in dvc.lock."""
    settings = yaml.safe_load((study / "params.yaml").read_text())
    lock = yaml.load((study / "dvc.lock").read_text(), yaml.CSafeLoader)
    first = {name: entry for name, entry in lock["stages"].items() if name.endswith("-0")}
    settings["grid"]["seed"] = seeds = list(range(-(-runs // len(first))))
    for seed in seeds[1:]:
        for name, entry in first.items():
            lock["stages"][f"{name[:-1]}{seed}"] = reseeded(study, entry, seed)
    (study / "params.yaml").write_text(yaml.safe_dump(settings))
    with open(study / "dvc.lock", "w") as file:
        YAML().dump(json.loads(json.dumps(lock)), file)


def reseeded(study: Path, entry: dict, seed: int) -> dict:
    """The run's entry with another seed; its outputs are written as the fake command would."""
    outs = []
    for out in entry["outs"]:
        path = f"{out['path'].removesuffix('-0')}-{seed}"
        md5 = hashlib.md5(path.encode()).hexdigest()
        (study / path).write_text(path)
        outs.append(out | {"path": path, "md5": md5, "size": len(path)})
    return entry | {"cmd": f"{entry['cmd'].removesuffix('-0')}-{seed}", "outs": outs}


def measure(study: Path, dvc: list[str]) -> dict[str, float]:
    names = [f"train@{path.name}" for path in sorted((study / "metrics/runs").iterdir())]
    one, more = (repro(study, dvc, names[:count]) for count in (1, 1 + MORE))
    return {"one run by itself": one, "a further run": (more - one) / MORE}


def repro(study: Path, dvc: list[str], stages: list[str]) -> float:
    own, started = {**os.environ, "PYTHONPATH": str(ROOT)}, time.perf_counter()
    subprocess.run([*dvc, "repro", "-q", "-s", "-f", *stages], cwd=study, env=own, check=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
