"""Stages run by hand, as DVC runs them: what they write, and what they say when they cannot."""

import hashlib
import os
import pickle
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML
from torchvision.models import resnet18, resnet50

from tests.conftest import ROOT, draw_split
from tests.study import by_hand, in_process
from transfer.runs import Run
from transfer.training import models

yaml = YAML()
RUN = ("ab", "all", "miniresnet10", "0.001", "frozen", "default", "scratch", "0")
FINETUNED = tuple("finetuned" if word == "frozen" else word for word in RUN)


@pytest.fixture
def study(tmp_path) -> Path:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path


def stage(study: Path, name: str, *arguments: str, limit: str = "") -> tuple[int, str]:
    """Its status and all it says. With a limit, which the shell sets, in a process of its own."""
    if not limit:
        status, out, err = in_process(study, import_module(f"stages.{name}").main, *arguments)
        return status, out + err
    command = f"{limit} exec {sys.executable} -m stages.{name} {' '.join(arguments)}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", command], cwd=study, env=environment, capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


def refused(study: Path, name: str, *arguments: str, **options) -> str:
    """The one line a stage ends with; it must fail, and leave no output."""
    before = outputs(study)
    status, output = stage(study, name, *arguments, **options)
    assert status != 0
    assert "Traceback" not in output
    assert outputs(study) == before
    lines = [line for line in output.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, output
    return lines[0]


def outputs(study: Path) -> set[Path]:
    """All files but locks, which stay."""
    return {path for path in study.rglob("*") if path.is_file() and path.suffix != ".lock"}


def set_weights(study: Path, file: Path | str, sha256: str | None = None) -> None:
    settings = yaml.load(study / "params.yaml")
    digest = sha256 or hashlib.sha256(file.read_bytes()).hexdigest()
    settings["weights"]["resnet18"] = {"source": str(file), "sha256": digest}
    yaml.dump(settings, study / "params.yaml")


def save(study: Path, value) -> Path:
    torch.save(value, study / "weights.pth")
    return study / "weights.pth"


def test_weights_copies_a_checked_file(study):
    file = save(study, resnet18().state_dict())
    set_weights(study, file)
    assert stage(study, "weights", "resnet18")[0] == 0
    assert (study / "data/weights/resnet18-pretrained.pth").read_bytes() == file.read_bytes()
    assert torch.load(study / "data/weights/resnet18-scratch.pth", weights_only=True) == {}


def test_weights_that_torchvision_lacks_are_refused(study):
    set_weights(study, "IMAGENET1K_V3", sha256="0" * 64)
    line = refused(study, "weights", "resnet18")
    assert "has no IMAGENET1K_V3, only IMAGENET1K_V1; or give the path of a file" in line


def test_weights_of_another_architecture_are_refused(study):
    set_weights(study, save(study, resnet50().state_dict()))
    assert "not weights of resnet18" in refused(study, "weights", "resnet18")


def test_a_wrong_hash_is_refused(study):
    set_weights(study, save(study, resnet18().state_dict()), sha256="0" * 64)
    assert "its sha256 is" in refused(study, "weights", "resnet18")


def test_a_missing_weights_file_is_refused(study):
    set_weights(study, study / "none.pth", sha256="0" * 64)
    assert "none.pth: no such weights file" in refused(study, "weights", "resnet18")


class Trap:
    def __reduce__(self):
        return (os.mkdir, ("trapped",))


@pytest.mark.parametrize("form", ["zip", "pickle"])
def test_pickled_code_is_refused_and_not_run(study, form):
    file = study / "weights.pth"
    if form == "zip":
        torch.save({"conv1.weight": Trap()}, file)
    else:
        file.write_bytes(pickle.dumps(Trap()))
    set_weights(study, file)
    assert "holds more than tensors, and is not run" in refused(study, "weights", "resnet18")
    assert not (study / "trapped").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04cut", b"hello, no weights"])
def test_a_file_that_is_no_checkpoint_is_refused(study, content):
    (study / "weights.pth").write_bytes(content)
    set_weights(study, study / "weights.pth")
    assert "weights.pth" in refused(study, "weights", "resnet18")


@pytest.mark.parametrize("value", [[1, 2], {"conv1.weight": 3}, {1: torch.ones(1)}])
def test_a_checkpoint_that_is_no_state_dict_is_refused(study, value):
    set_weights(study, save(study, value))
    assert "state_dict" in refused(study, "weights", "resnet18")


def test_no_network_is_one_line(study, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setattr("urllib.request._opener", None)  # which keeps the proxies it first saw
    line = refused(study, "weights", "resnet18")
    assert "resnet18-f37072fd.pth" in line and "weights.resnet18.source" in line


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_no_gpu_when_one_is_asked_for(study):
    prepare_run(study, device="cuda")
    line = refused(study, "train", *RUN)
    assert "train.device: no GPU was found" in line


@pytest.mark.parametrize("name", [path.stem for path in (ROOT / "stages").glob("[!_]*.py")])
def test_a_stage_answers_help_and_refuses_other_words(study, name):
    status, said = stage(study, name, "--help")
    assert status == 0 and said.startswith(f"usage: python -m stages.{name} [-h]")
    status, said = stage(study, name, *("x" * 9))
    assert status == 2 and "unrecognized arguments: x" in said
    assert outputs(study) == {study / "params.yaml"}


def test_similarity_refuses_weights_that_are_no_numbers(study):
    prepare_run(study)
    state = models.architecture("miniresnet10")().state_dict()
    broken = {name: value.float() * torch.nan for name, value in state.items()}
    torch.save(broken, study / "data/weights/miniresnet10-pretrained.pth")
    line = refused(study, "similarity", "ab", "miniresnet10")
    assert "ab, miniresnet10: " in line and "are not finite; check the weights" in line


def test_a_last_batch_of_one_is_refused_where_batchnorm_cannot_take_it(study):
    prepare_run(study, batch_size=3)
    line = refused(study, "train", *FINETUNED)
    assert "train.batch_size 3 leaves a last batch of one" in line


def test_a_diverging_run_is_written_down(study):
    prepare_run(study, batch_size=2)
    status, output = stage(
        study, "train", "ab", "all", "miniresnet10", "1e+30", "finetuned", "default", "scratch", "0"
    )
    assert status == 0, output
    assert (
        study / "metrics/runs/ab-all-miniresnet10-1e+30-finetuned-default-scratch-0/run.json"
    ).is_file()


def test_a_full_disk_is_one_line(study):
    write = "pathlib.Path('/dev/full').write_text('x')"
    code = f"import pathlib; from transfer import cli; cli.run(lambda: {write})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("error: the disk is full")


def test_a_write_that_ends_half_way_leaves_nothing(study):
    draw_split(study / "data/split/ab", {"train": 4, "test": 2}, sides=(200, 300))
    set_sizes(study)
    assert "ulimit" in refused(study, "pack", "ab", limit="ulimit -f 100;")


@pytest.mark.parametrize(
    ("place", "word"), [(0, "wasps"), (1, "-3"), (3, "-0.001"), (4, "froozen"), (6, "nowhere")]
)
def test_a_run_that_the_grid_does_not_have_is_refused(study, place, word):
    prepare_run(study)
    line = refused(study, "train", "--", *RUN[:place], word, *RUN[place + 1 :])
    axis = list(Run.model_fields)[place]
    assert f"{axis} {word}: not in params.yaml's grid.{axis}: " in line


def test_missing_input_is_one_line(study):
    set_sizes(study)
    assert "data/split/ab" in refused(study, "pack", "ab")
    assert "data/packed/ab" in refused(study, "train", *RUN)


def set_sizes(study: Path, **train) -> None:
    settings = yaml.load(study / "params.yaml")
    by_hand(settings, lr=[0.001, 1e30])
    settings["pack"].update(resize=32, size=32)
    settings["train"].update(epochs=1, **train)
    yaml.dump(settings, study / "params.yaml")


def prepare_run(study: Path, **train) -> None:
    draw_split(study / "data/split/ab", {"train": 2, "test": 2})
    set_sizes(study, **train)
    assert stage(study, "pack", "ab")[0] == 0
    (study / "data/weights").mkdir()
    torch.save({}, study / "data/weights/miniresnet10-scratch.pth")
