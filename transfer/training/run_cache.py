"""What runs give, kept under a hash of all that they depend on until their stages take it.

Runs of one data set, size, backbone, recipe and seed are a group. The first stage of a group trains
all of it that is not made yet, in one process; the others only take their own, which needs no
PyTorch.
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
digest = cache(code.digest)
"""Read once a process, which runs the code that it has read."""


def fingerprint(script: str, bound: list[Path], **depends: Any) -> str:
    """A hash of the code that the script, such as stages.train, imports, of the files' content and
    of what else is named.

    Also of PyTorch's version and number of threads, on which a CPU's rounding depends.
    """
    depends |= {"code": digest(script), "files": [files.sha256(path) for path in bound]}
    threads = os.environ.get("OMP_NUM_THREADS", os.cpu_count())
    depends |= {"torch": version("torch"), "threads": threads}
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()


def key(run: Run, study: Params) -> str:
    """A hash of all that the run's results depend on."""
    settings = study.trained_by(run.recipe).deciding(run.freezing)
    return fingerprint("stages.train", inputs(run), run=run.name, settings=settings)


def inputs(run: Run) -> list[Path]:
    return [Path(f"data/packed/{run.dataset}/index.json"), weights(run)]


def weights(run: Run) -> Path:
    return Path(f"data/weights/{run.backbone}-{run.init}.pth")


def kept(run: Run, key: str) -> Path:
    """The folder of its results until they are taken."""
    return RUN_CACHE / f"{run.name}.{key[:16]}"


def take(run: Run, key: str) -> bool:
    """Move the run's results to where DVC expects them, if they are kept."""
    if not kept(run, key).is_dir():
        return False
    files.remove(run.folder)
    run.folder.parent.mkdir(parents=True, exist_ok=True)
    os.replace(kept(run, key), run.folder)
    for older in RUN_CACHE.glob(f"{run.name}.*"):
        files.remove(older)
    return True


def staleness() -> Callable[[Run], bool]:
    """Whether DVC would train a run: by dvc.lock it is not made, or of another code, other
    settings, images or weights."""
    lock = Path("dvc.lock")
    text = lock.read_text(encoding="utf-8") if lock.is_file() else "stages: {}"
    made = (yaml.load(text, yaml.CSafeLoader) or {}).get("stages") or {}
    now = {out["path"]: out["md5"] for stage in made.values() for out in stage.get("outs", ())}

    def current(path: str) -> str:
        # Of the folders data/code and data/settings the lock knows no file.
        file = Path(path)
        if file.parent not in (Path("data/code"), Path("data/settings")):
            return now.get(path, "")
        return hashlib.md5(file.read_bytes()).hexdigest() if file.is_file() else ""

    def stale(other: Run) -> bool:
        deps = made.get(f"train@{other.name}", {}).get("deps", [])
        return not deps or any(dep["md5"] != current(dep["path"]) for dep in deps)

    return stale


def companions(run: Run, study: Params) -> list[Run]:
    """The others of the run's group that DVC would train and that can be. Where dvc.lock says that
    the run itself is made, as in a fresh clone, its results are nowhere; then so are those of
    others that are not here."""
    stale = staleness()

    def wanted(other: Run) -> bool:
        return stale(other) or not (stale(run) or other.folder.is_dir())

    others = [one for one in runs(study.grid, run.dataset) if one.group == run.group and one != run]
    return [one for one in others if wanted(one) and weights(one).is_file()]
