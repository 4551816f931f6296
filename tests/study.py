"""A small study of its own, with the root's dvc.yaml, for tests of the real dvc and git."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import torch
from ruamel.yaml import YAML
from torchvision.models import resnet18

from tests.conftest import ROOT, draw_split

yaml = YAML()
TIMED = {"timing", "recommendation.md"}


class Study:
    """A git and DVC repository."""

    def __init__(self, folder: Path):
        self.folder = folder

    def run(self, *command: str, status: int | None = 0, **environment: str) -> str:
        fixed = {"OMP_NUM_THREADS": "1", "DVC_NO_ANALYTICS": "1"}
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
        self.run("git", "add", ".")
        self.run("git", "commit", "-qm", "x")

    def metrics(self, folder="metrics") -> dict[str, bytes]:
        return results(self.folder / folder)


def results(root: Path) -> dict[str, bytes]:
    """Everything under the folder, but what tells times."""
    files = (path for path in root.rglob("*") if path.is_file() and not {*path.parts} & TIMED)
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def save_weights(path: Path, seed: int) -> str:
    """Random weights in a file; returns the start of its sha256."""
    torch.manual_seed(seed)
    torch.save(resnet18().state_dict(), path)
    return subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout[
        :16
    ]


def small(folder: Path, datasets=("one", "two"), **grid) -> Study:
    """Data sets of 4 + 3 images a class at 40 px, ResNet-18, one epoch; committed and not run."""
    for name in ("dvc.yaml", ".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, folder)
    for name in ("cluster", "stages", "transfer"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    settings = yaml.load(ROOT / "params.yaml")
    settings["download"] = {}
    folders = {"train": {"a": "train/a", "b": "train/b"}, "test": {"a": "test/a", "b": "test/b"}}
    settings["datasets"] = {
        name: {
            "title": name,
            "table": 0,
            "quadrant": "none",
            "source": f"data/raw/{name}",
            "folders": folders,
            "count": {"train": 4, "test": 3},
        }
        for name in datasets
    }
    for seed, name in enumerate(datasets):
        draw_split(folder / "data/raw" / name, {"train": 6, "test": 4}, seed=seed)
    digest = save_weights(folder / "data/raw/resnet18.pth", seed=0)
    settings["weights"] = {"resnet18": {"source": "data/raw/resnet18.pth", "sha256": digest}}
    settings["pack"] = {"resize": 40, "size": 40, "short_side": 0}
    settings["grid"].update(dataset=list(datasets), backbone=["resnet18"], lr=[0.001], **grid)
    settings["split"].update(validation=0.25)
    settings["train"].update(epochs=1, device="cpu")
    yaml.dump(settings, folder / "params.yaml")
    made = Study(folder)
    made.run("git", "init", "-q")
    made.run("git", "config", "user.email", "a@example.org")
    made.run("git", "config", "user.name", "a")
    made.run("dvc", "init", "-q")
    made.commit()
    return made
