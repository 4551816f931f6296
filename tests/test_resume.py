"""Runs that are killed, and what their next start makes of it."""

import os
import re
import resource
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import torch
from ruamel.yaml import YAML

from tests.conftest import ROOT, draw_split
from tests.study import by_hand
from transfer import files, params
from transfer.images import packed
from transfer.params import Component
from transfer.runs import Run
from transfer.training import models
from transfer.training.engine import Checkpoint, EpochResult, Job
from transfer.training.pretrain import PAPER
from transfer.training.record import Epoch, Time
from transfer.training.run import LIVE, Clock, shown
from transfer.training.run_cache import key

PLACE = {"dataset": "ab", "images": "all", "backbone": "miniresnet10", "lr": 0.001}
RUN = Run(**PLACE, freezing="finetuned", recipe="default", init="scratch", seed=0)
yaml = YAML()


def varied(**axes) -> Run:
    return RUN.model_copy(update=axes)


@pytest.fixture(scope="module")
def calm(tmp_path_factory) -> Path:
    """What the train stage needs, settings of four epochs, and RUN as it comes out undisturbed."""
    folder = tmp_path_factory.mktemp("calm")
    draw_split(folder / "split", {"train": 12, "validation": 3, "test": 5})
    packed.write(folder / "split", folder / "data/packed/ab", resize=40, size=40, short_side=0)
    models.save_scratch(folder / "data/weights/miniresnet10-scratch.pth")
    settings = yaml.load(ROOT / "params.yaml")
    by_hand(settings)
    settings["train"].update(epochs=40, device="cpu", schedule={"StepLR": {"step_size": 20}})
    yaml.dump(settings, folder / "params.yaml")
    finish(init(folder, RUN))
    shutil.rmtree(folder / "data/checkpoints")  # with a lock, which names a process that has ended
    return folder


@pytest.fixture
def study(calm, tmp_path) -> Path:
    """A copy, to disturb."""
    return shutil.copytree(calm, tmp_path / "study")


def init(study: Path, run: Run, every=0.0) -> subprocess.Popen:
    words = [str(value) for value in vars(run).values()]
    command = [sys.executable, "-m", "stages.train", *words, "--alone"]
    command += ["--checkpoint-every", str(every)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command,
        cwd=study,
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> str:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out + err


def written(study: Path, run: Run) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (study / run.folder).iterdir()}


def wait_for(path: Path, process: subprocess.Popen) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)


@pytest.mark.parametrize(
    "freezing", ["finetuned", pytest.param("frozen", marks=pytest.mark.release)]
)
def test_killed_and_started_again_it_comes_out_the_same(study, freezing):
    run = varied(freezing=freezing)
    if run != RUN:
        finish(init(study, run))
    expected = written(study, run)
    shutil.rmtree(study / "data/features", ignore_errors=True)
    saved = {
        "finetuned": f"data/checkpoints/{run.name}.pt",
        "frozen": "data/features/*/*.pt",
    }[freezing]
    for kill in range(3):
        process = init(study, run)
        while not list(study.glob(saved)):
            assert process.poll() is None, process.communicate()
            time.sleep(0.005)
        time.sleep(0.1 * kill)
        process.kill()
        process.communicate()
    output = finish(init(study, run))
    assert "starting anew" not in output
    assert written(study, run) == expected
    left = [p.name for p in (study / "data").rglob("*") if p.suffix == ".part"]
    assert left + list((study / "data/checkpoints").glob("*.pt")) == []


@pytest.mark.parametrize(
    "harm", ["torn", pytest.param("other settings", marks=pytest.mark.release)]
)
def test_a_checkpoint_of_no_use_is_ignored_with_a_word(study, harm):
    expected, path = written(study, RUN), study / f"data/checkpoints/{RUN.name}.pt"
    process = init(study, RUN)
    wait_for(path, process)
    process.kill()
    process.communicate()
    if harm == "torn":
        path.write_bytes(path.read_bytes()[:5000])
    else:
        found = torch.load(path, weights_only=True)
        torch.save(found | {"key": "another"}, path)
    output = finish(init(study, RUN))
    others = "is of other settings, data or code, or another device"
    why = "is not whole" if harm == "torn" else others
    assert f"{RUN.name}.pt {why}; starting anew" in output
    assert written(study, RUN) == expected


def test_results_are_bound_to_all_they_depend_on(study, monkeypatch):
    monkeypatch.chdir(study)

    def bound(run=RUN, **changed) -> str:
        loaded = params.load()
        return key(
            run, loaded.model_copy(update={"train": loaded.train.model_copy(update=changed)})
        )

    same = bound()
    assert bound(keep_features=False) == same
    different = [
        bound(varied(seed=9)),
        bound(varied(lr=1.0)),
        bound(varied(images=2)),
        bound(varied(freezing="frozen")),
        bound(epochs=9),
        bound(batch_size=2),
        bound(frozen_batchnorm="eval"),
        bound(arithmetic="fixed"),
        bound(optimizer=Component("SGD")),
    ]
    for path in ("data/weights/miniresnet10-scratch.pth", "data/packed/ab/index.json"):
        Path(path).write_bytes(Path(path).read_bytes() + b" ")
        different.append(bound())
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    different.append(bound())
    assert len({same, *different}) == 1 + len(different)


def test_checkpoints_are_as_far_apart_as_asked(tmp_path):
    saved, cpu = {0: [], 60: []}, torch.device("cpu")
    for every, found in saved.items():
        checkpoint = Checkpoint(tmp_path / f"{every}.pt", "key", every)
        for epoch in range(3):
            checkpoint.save({"epoch": epoch})
            found.append(Checkpoint(checkpoint.path, "key").load(cpu))
    assert saved == {0: [{"epoch": 0}, {"epoch": 1}, {"epoch": 2}], 60: [None] * 3}


def test_a_state_that_does_not_fit_on_the_disk_is_the_systems_error(tmp_path):
    checkpoint = Checkpoint(tmp_path / "one.pt", "key", every=0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            checkpoint.save({"features": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_the_time_before_an_interruption_counts(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    job = Job(RUN, PAPER, data, torch.device("cpu"))
    Clock(job, "key").write(1)
    first = Time.read(RUN.time)
    again = Clock(job, "key")
    (tmp_path / "run.json").write_text("{}")
    again.write(2, tmp_path / "run.json")
    assert again.seconds > first.seconds > 0
    found = Time.read(RUN.time)
    assert (first.epochs, found.epochs, found.seconds) == (1, None, again.seconds)
    assert Clock(job, "key").seconds == 0  # it is finished, and this is another start


def test_a_second_process_waits_and_says_for_whom(study):
    with files.locked(study / f"data/checkpoints/.{RUN.group}.lock", "the test"):
        second = init(study, RUN)
        line = second.stderr.readline()
    finish(second)
    assert re.fullmatch(rf"{RUN.name}: waiting for process {os.getpid()} on \S+\n", line)


def test_runs_side_by_side_share_the_file_that_shows_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    epochs = [EpochResult(Epoch(i, 1e-3, 0.7, 0.5, None, None, 0.7, 0.5), {}) for i in range(150)]
    with ThreadPoolExecutor() as pool:
        for run in [pool.submit(lambda: list(shown(RUN, epochs))) for _ in range(4)]:
            assert run.result() == epochs
    assert LIVE.read_text().startswith("run,epoch,train_accuracy,test_accuracy\n" + RUN.name)


@pytest.mark.release
def test_a_killed_dvc_leaves_no_stage_behind(study):
    settings = {
        "stages": {
            "train": {
                "cmd": f"PYTHONPATH={ROOT} {sys.executable} -m stages.train "
                + " ".join(map(str, vars(RUN).values())),
                "outs": [str(RUN.folder)],
            }
        }
    }
    yaml.dump(settings, study / "dvc.yaml")
    epochs = yaml.load(study / "params.yaml")
    epochs["train"]["epochs"] = 10000
    yaml.dump(epochs, study / "params.yaml")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], cwd=study, check=True)
    dvc = subprocess.Popen(["dvc", "repro"], cwd=study, stdout=subprocess.DEVNULL)
    lock = study / f"data/checkpoints/.{RUN.group}.lock"
    while not (lock.exists() and lock.read_text()):
        assert dvc.poll() is None
        time.sleep(0.05)
    stage = psutil.Process(int(lock.read_text().split()[1]))
    dvc.kill()
    dvc.wait()
    stage.wait(timeout=20)
    assert not stage.is_running()
