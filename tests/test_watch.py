"""The table of all runs, of a study that is finished, begun, interrupted and stale."""

import os
import re
import shutil
import time
from contextlib import chdir

import pytest
from rich.console import Console

from tests.study import in_process
from transfer import params
from transfer.cluster import watch
from transfer.runs import RECORD, all_runs
from transfer.training import run_cache
from transfer.training.record import Record, Time


@pytest.fixture
def study(finished, tmp_path):
    return finished.copy(tmp_path / "study")


def seen(study, height: int = 50) -> str:
    with chdir(study.folder):
        settings = params.load()
        console = Console(width=120)
        with console.capture() as said:
            console.print(watch.table(settings, watch.read_states(settings, {}), height))
    return said.get()


def begin(study, run, epochs: int, seconds_ago: float = 0.0) -> None:
    """As a training process leaves the run's files after so many epochs."""
    shutil.rmtree(study.folder / run.folder)
    path = study.folder / run.time
    Time(seconds=8.0, images_per_second=1.0, host="here", of="key", epochs=epochs).write(path)
    os.utime(path, (time.time() - seconds_ago,) * 2)


def test_each_run_is_shown_as_it_stands(study):
    with chdir(study.folder):
        all_four = all_runs(params.load().grid)
        accuracies = [f"{Record.load(run).best.accuracy:.3f}" for run in all_four]
    text = seen(study)  # of one epoch, which is the best
    assert re.findall(r"\d\.\d{3} |\d\.\d{3}$", text, re.M) and "4 of 4 runs done" in text
    assert all(accuracy in text for accuracy in accuracies)
    begin(study, all_four[0], epochs=0)
    begin(study, all_four[1], epochs=0, seconds_ago=2 * watch.QUIET)
    text = seen(study)
    assert text.count("0/1") == 2 and "2 of 4 runs done, 1 in training, 1 left; about" in text


def test_a_run_that_only_its_group_has_trained_is_done(study):
    with chdir(study.folder):
        settings = params.load()
        run = all_runs(settings.grid)[0]
        kept = run_cache.kept(run, run_cache.key(run, settings))
        kept.parent.mkdir(parents=True, exist_ok=True)
        run.folder.rename(kept)
    assert "4 of 4 runs done" in seen(study)
    kept = study.folder / kept
    kept.rename(kept.with_name(f"{run.name}.0123456789abcdef"))  # of other settings
    assert "3 of 4 runs done" in seen(study)


def test_runs_that_dvc_would_train_again_are_not_done(study):
    study.change("train.epochs", 2)
    study.run("dvc", "repro", "-s", "code", "params")
    assert (study.folder / "metrics/runs").is_dir()
    assert "0 of 4 runs done, 0 in training, 4 left" in seen(study)


def test_runs_of_another_torch_are_told(study):
    assert "trained alike" not in seen(study)
    with chdir(study.folder):
        run = all_runs(params.load().grid)[0]
        record = Record.load(run)
        versions = record.versions | {"torch": "0.1"}
        record.model_copy(update={"versions": versions}).write(run.folder / RECORD)
    words = f"3 with torch {record.versions['torch']}; 1 with torch 0.1."
    assert f"Not all runs were trained alike: {words}" in " ".join(seen(study).split())


def test_a_low_terminal_has_a_line_for_what_stands_still(study):
    assert re.search(r"^one +4 of 4 runs done *$", seen(study, height=5), re.M)


def test_it_ends_when_all_is_done(study):
    status, out, err = in_process(study.folder, watch.main)
    assert (status, err) == (0, "") and out.count("4 of 4 runs done") == 1


def test_while_a_file_is_half_written_the_table_stays(study):
    with chdir(study.folder):
        settings = params.load()
        before = watch.read_states(settings, {})
        lock = study.folder / "dvc.lock"
        lock.write_text(lock.read_text()[:-30] + "\n: - [")
        assert watch.read_states(settings, before) is before
