"""Results of runs that wait for their stages, under a hash of all that they depend on.

Runs of one data set, size, backbone, recipe and seed are a group. The first stage of a group trains
all its stale runs in one process. DVC empties a stage's output folder before it starts the stage,
so the other results wait here, and each stage takes its own without PyTorch.
"""

import hashlib
import json
import os
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from transfer import code, files
from transfer.params import Params
from transfer.runs import Run, runs

RUN_CACHE = Path("data/run_cache")
digest = cache(code.digest)  # a process runs the code as it was when it started


def fingerprint(script: str, inputs: list[Path], **depends: Any) -> str:
    """A hash of the code that the script, such as stages.train, imports, of the files' content and
    of the further values; also of PyTorch's version and number of threads, on which a CPU's
    rounding depends."""
    depends |= {"code": digest(script), "files": [files.sha256(path) for path in inputs]}
    threads = os.environ.get("OMP_NUM_THREADS", os.cpu_count())
    depends |= {"torch": version("torch"), "threads": threads}
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()


def key(run: Run, study: Params) -> str:
    """A hash of all that the run's results depend on."""
    settings = study.trained_by(run.recipe).deciding(run.freezing)
    return fingerprint("stages.train", inputs(run), run=run.name, settings=settings)


def inputs(run: Run) -> list[Path]:
    """The files that the run's results depend on: an index, which holds the images' hash, and
    weights."""
    return [Path(f"data/packed/{run.dataset}/index.json"), run.weights]


def kept(run: Run, key: str) -> Path:
    """The folder of the run's results while they wait."""
    return RUN_CACHE / f"{run.name}.{key[:16]}"


def take(run: Run, key: str) -> bool:
    """Move the run's results to where DVC expects them, if they are here."""
    if not kept(run, key).is_dir():
        return False
    files.remove(run.folder)
    run.folder.parent.mkdir(parents=True, exist_ok=True)
    os.replace(kept(run, key), run.folder)
    for older in RUN_CACHE.glob(f"{run.name}.*"):
        files.remove(older)
    return True


def staleness() -> Callable[[Run], bool]:
    """A function that says whether DVC would train a run: dvc.lock lacks it, or has it with other
    code, settings, images or weights than there are now."""
    lock = Path("dvc.lock")
    text = lock.read_text(encoding="utf-8") if lock.is_file() else ""
    stages = (yaml.load(text, yaml.CSafeLoader) or {}).get("stages") or {}
    outputs = {
        out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", ())
    }

    def current(path: str) -> str:
        # dvc.lock has data/code and data/settings as folders, so their files are read.
        file = Path(path)
        if file.parent not in (Path("data/code"), Path("data/settings")):
            return outputs.get(path, "")
        return hashlib.md5(file.read_bytes()).hexdigest() if file.is_file() else ""

    def stale(run: Run) -> bool:
        deps = stages.get(f"train@{run.name}", {}).get("deps", [])
        return not deps or any(dep["md5"] != current(dep["path"]) for dep in deps)

    return stale


def companions(run: Run, study: Params) -> list[Run]:
    """The stale runs of the run's group, itself aside, whose weights are there.

    In a fresh clone DVC trains runs that are not stale, if its cache lacks their results. So where
    the run itself is not stale, those without results count too.
    """
    stale = staleness()
    changed = stale(run)
    return [
        other
        for other in runs(study.grid, run.dataset)
        if other.group == run.group and other != run and other.weights.is_file()
        if stale(other) or not (changed or other.folder.is_dir())
    ]
