"""A small study of its own, with the root's dvc.yaml, for tests of the real dvc and git."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML

from tests import warm
from tests.conftest import ROOT, draw_source
from transfer import cli
from transfer.files import sha256
from transfer.training import models

yaml = YAML()
LIVE = "live.csv"  # of the run that trained last
BACKBONE = "miniresnet10"


class Study:
    """A git and DVC repository."""

    def __init__(self, folder: Path):
        self.folder = folder

    def run(self, *command: str, status: int | None = 0, **environment: str) -> str:
        fixed = {"OMP_NUM_THREADS": "1", "DVC_NO_ANALYTICS": "1"}
        if command[0] in ("bash", "dvc", "python"):
            fixed["PATH"] = f"{warm.folder()}:{os.environ['PATH']}"
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**os.environ, **fixed, **environment},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert status is None or done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def repro(self, *arguments: str, status: int = 0) -> set[str]:
        """Reproduce, and return the names of the stages that ran."""
        output = self.run("dvc", "repro", *arguments, status=status)
        return set(re.findall(r"Running stage '([^']+)'", output))

    def change(self, path: str, value) -> None:
        settings = yaml.load(self.folder / "params.yaml")
        *parents, last = path.split(".")
        section = settings
        for key in parents:
            section = section[key]
        section[last] = value
        yaml.dump(settings, self.folder / "params.yaml")

    def json(self, path: str):
        return json.loads((self.folder / path).read_text())

    def commit(self) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-qm", "x")

    def copy(self, folder: Path) -> "Study":
        """The whole repository, its data and cache included, elsewhere; this study within it."""
        root = Path(self.run("git", "rev-parse", "--show-toplevel").strip())
        shutil.copytree(root, folder, symlinks=True)
        return Study(folder / self.folder.resolve().relative_to(root))

    def metrics(self, folder="metrics") -> dict[str, bytes]:
        return results(self.folder / folder)


def in_process(folder: Path, main: Callable[[], None], *words) -> tuple[int, str, str]:
    """Run a command in the folder as its module does, but for a process of its own, which takes
    seconds; its status, and what it says on stdout and on stderr."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, chdir(folder):
        patch.setattr(sys, "argv", ["", *map(str, words)])
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            cli.run(main)
    # What the interpreter makes of a message.
    code = ended.value.code
    said = f"{code}\n" if isinstance(code, str) else ""
    return (1 if said else code), out.getvalue(), err.getvalue() + said


def results(root: Path) -> dict[str, bytes]:
    """Everything under the folder that DVC or git keeps."""
    files = (path for path in root.rglob("*") if path.is_file() and path.name != LIVE)
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def save_weights(path: Path, seed: int, backbone: str = BACKBONE) -> str:
    """Random weights in a file; returns its sha256."""
    torch.manual_seed(seed)
    torch.save(models.architecture(backbone)().state_dict(), path)
    return sha256(path)


def data_set(name: str, **count) -> dict:
    """An entry of `datasets`, of two classes that are divided into train and test."""
    folders = {"train": {"a": "train/a", "b": "train/b"}, "test": {"a": "test/a", "b": "test/b"}}
    place = {"title": name, "table": 0, "quadrant": "none", "source": f"data/raw/{name}"}
    return place | {"folders": folders, "count": {"train": "all", "test": "all"} | count}


def by_hand(settings: dict, **grid) -> None:
    """Let a stage's script run on data/packed/ab: the grid holds but that, with a small ResNet."""
    settings["datasets"] = {"ab": data_set("ab")}
    settings["weights"] = {BACKBONE: {"source": "x.pth", "sha256": "0" * 64}}
    settings["grid"].update(dataset=["ab"], backbone=[BACKBONE])
    settings["grid"].update(grid)


def small(folder: Path, datasets=("one", "two"), **grid) -> Study:
    """Data sets of 4 + 3 images a class at 40 px, and one epoch; committed and not run."""
    folder.mkdir(exist_ok=True)
    for name in ("dvc.yaml", ".gitignore", ".gitattributes", ".dvcignore"):
        shutil.copy(ROOT / name, folder)
    for name in ("stages", "transfer"):
        shutil.copytree(ROOT / name, folder / name)  # with what Python has compiled
    settings = yaml.load(ROOT / "params.yaml")
    settings["download"] = {}
    settings["datasets"] = {name: data_set(name, train=4, test=3) for name in datasets}
    for seed, name in enumerate(datasets):
        draw_source(folder / "data/raw" / name, {"train": 6, "test": 4}, seed=seed)
    grid = {"backbone": [BACKBONE], "lr": [0.001]} | grid
    (backbone,) = grid["backbone"]
    source = f"data/raw/{backbone}.pth"
    digest = save_weights(folder / source, 0, backbone)
    settings["weights"] = {backbone: {"source": source, "sha256": digest}}
    settings["pack"].update(resize=40, size=40)
    settings["grid"].update(dataset=list(datasets), **grid)
    settings["split"].update(validation=0.25)
    settings["train"].update(epochs=1, device="cpu")
    yaml.dump(settings, folder / "params.yaml")
    made = Study(folder)
    initialise(made)
    made.run("dvc", "init", "-q")
    made.commit()
    return made


def drawn(folder: Path) -> Study:
    """This repository as it is, with the sample made tiny: two data sets, two runs of one epoch.
    Committed, and neither study run; commands run in sample/."""
    listed = ["git", "ls-files", "-co", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in files.splitlines():
        made = name.startswith("sample/metrics/") or name == "sample/dvc.lock"
        if not made and (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name, follow_symlinks=False)
    settings = yaml.load(ROOT / "sample/params.yaml")
    for name, count in {"things": (2, 1), "hearts_drops": (6, 4)}.items():
        settings["draw"][name]["images"] = sum(count)
        settings["datasets"][name]["count"] = dict(zip(("train", "test"), count, strict=True))
    for name in ("arrows_bolts", "scans", "cells"):
        del settings["draw"][name], settings["datasets"][name]
    settings["pretrain"] = {"miniresnet10": settings["pretrain"]["miniresnet10"] | {"epochs": 1}}
    settings["grid"].update(
        dataset=["hearts_drops"], backbone=["miniresnet10"], lr=[0.001], freezing=["frozen"]
    )
    settings["train"].update(epochs=1)
    yaml.dump(settings, folder / "sample/params.yaml")
    (folder / ".venv").mkdir()
    (folder / ".venv/installed").touch()  # so that make does not install
    initialise(Study(folder))
    return Study(folder / "sample")


def initialise(study: Study) -> None:
    study.run("git", "init", "-q", "-b", "main")
    study.run("git", "config", "user.email", "a@example.org")
    study.run("git", "config", "user.name", "a")
    study.commit()
