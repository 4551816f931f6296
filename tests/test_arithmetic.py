"""Fixed arithmetic gives the same bytes, whatever the processor's best kernels are."""

import os
import platform
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.study import yaml
from transfer import arithmetic
from transfer.cli import UserError
from transfer.runs import Run
from transfer.training import models

RUN = Run(
    dataset="scans",
    images="all",
    backbone="miniresnet10",
    lr=0.001,
    freezing="finetuned",
    recipe="default",
    init="scratch",
    seed=0,
)
OTHERWISE = {
    "as it is": {"OMP_NUM_THREADS": "2"},
    "held to AVX2": {
        "OMP_NUM_THREADS": "1",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "ATEN_CPU_CAPABILITY": "default",
        "OPENBLAS_CORETYPE": "Nehalem",
    },
}


def made(sample) -> dict:
    """dvc.lock, but for the stages that depend on the code's very text or on the whole grid."""
    stages = yaml.load(sample / "dvc.lock")["stages"]
    return {name: entry for name, entry in stages.items() if name not in ("code", "params")}


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="promised of x86-64 only")
def test_a_run_of_the_sample_has_the_same_bytes_however_it_is_begun(tmp_path):
    """In repositories without cache, where dvc.lock says what the stages give."""
    first, second = (computed(tmp_path / name, other) for name, other in OTHERWISE.items())
    assert first == second == made(ROOT / "sample")


def computed(folder, otherwise: dict[str, str]) -> dict:
    listed = ["git", "ls-files", "-co", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for file in files.splitlines():
        if (ROOT / file).exists() and not file.startswith(("docs", "tests", "benchmarks")):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, folder / file, follow_symlinks=False)
    sample = folder / "sample"
    settings = yaml.load(sample / "params.yaml")
    # The other runs of its group would be trained too.
    settings["grid"].update({axis: [value] for axis, value in RUN})
    yaml.dump(settings, sample / "params.yaml")
    # The rest of what pretraining makes takes half a minute.
    models.save_scratch(sample / f"data/weights/{RUN.backbone}-scratch.pth")
    environment = {**os.environ, **otherwise, "DVC_NO_ANALYTICS": "1"}
    stages = ["code", "params", *(f"{stage}@{RUN.dataset}" for stage in ("draw", "split", "pack"))]
    command = [sys.executable, "-m", "dvc", "repro", "-s", *stages, f"train@{RUN.name}"]
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    done = subprocess.run(command, cwd=sample, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{RUN.name}: test accuracy" in done.stdout
    return made(sample)


def test_a_process_that_began_otherwise_is_refused(monkeypatch):
    monkeypatch.delenv("MKL_CBWR", raising=False)
    with pytest.raises(UserError, match="train.arithmetic: fixed has to be in params.yaml when"):
        arithmetic.apply("fixed")


@pytest.mark.parametrize("text", ["", "train: [", "train: {arithmetic: fast}", "[1, 2]"])
def test_other_settings_leave_the_environment_alone(tmp_path, monkeypatch, text):
    monkeypatch.delenv("MKL_CBWR", raising=False)
    (tmp_path / "params.yaml").write_text(text)
    arithmetic.settle(tmp_path / "params.yaml")
    arithmetic.settle(tmp_path / "missing.yaml")
    assert "MKL_CBWR" not in os.environ
    settings = {"train": {"arithmetic": "fixed"}}
    yaml.dump(settings, tmp_path / "params.yaml")
    monkeypatch.setattr(os, "environ", dict(os.environ))
    arithmetic.settle(tmp_path / "params.yaml")
    assert os.environ["MKL_CBWR"] == "COMPATIBLE"
