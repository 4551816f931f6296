"""Each benchmark runs to its end, in miniature; what it measures then means nothing."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torchvision.models import resnet18

from tests.conftest import ROOT, draw_split

SCRIPTS = {path.stem for path in (ROOT / "benchmarks").glob("[!_]*.py")} - {"common", "tutorial"}
# Script → its arguments, and what it has to print. SPLIT, WEIGHTS, CLONE and SAMPLE are made here.
RUNS = {
    "pipeline": ("SPLIT --rounds 1", r"\d × the tutorial"),
    "finetune": ("SPLIT --checkpoint WEIGHTS --epochs 1 --rounds 1", r"\d × the tutorial"),
    "frozen": ("SPLIT --checkpoint WEIGHTS --epochs 1", r"one more learning rate.* × the tutorial"),
    "memory": ("SPLIT --epochs 1 --large 0.02", r"\d+ GiB of memory: \d+ MiB"),
    "near": ("--images 300", r"300 images that are different, nearest: "),
    "noop": ("--rounds 1 --datasets ants_bees", r"\d × the same graph"),
    "growth": ("--runs 16 32 --datasets ants_bees", r"32 runs: a further run"),
    "study": ("--shrink 60 --epochs 1 --datasets ants_bees", r"× the floor"),
    "factors": ("CLONE --axes freezing --datasets hearts_drops", r"last2"),
    "kill": ("--tiny --kills 2 --targets stage dvc", r"2 kills; 0 files differ"),
    "workers": ("--tiny", r"(\d+) of \1 files are the same"),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Path]:
    split = draw_split(tmp_path_factory.mktemp("split"), {"train": 4, "test": 2})
    weights = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(resnet18().state_dict(), weights)
    return {"SPLIT": split, "WEIGHTS": weights}


def test_every_script_is_here():
    assert set(RUNS) == SCRIPTS


@pytest.mark.release
@pytest.mark.parametrize("script", RUNS)
def test_a_benchmark_runs(made, tmp_path, request, script):
    arguments, expected = RUNS[script]
    if script == "workers" and not find_spec("ray"):
        pytest.skip("Ray is an extra: requirements-ray.txt")
    if "CLONE" in arguments:
        sample = request.getfixturevalue("sample").copy(tmp_path / "repository")
        sample.change("train.epochs", 2)
        sample.change("train.probe_epochs", 1)
        sample.commit()
        made = {**made, "CLONE": sample.folder.parent}
    if "SAMPLE" in arguments:
        made = {**made, "SAMPLE": request.getfixturevalue("sample").folder}
    words = [str(made.get(word, word)) for word in arguments.split()]
    done = subprocess.run(
        [sys.executable, ROOT / f"benchmarks/{script}.py", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(expected, done.stdout), done.stdout
