"""What the driver and its workers do around DVC and git, with the real ones and without Ray."""

import subprocess
import time
from pathlib import Path
from queue import Queue
from threading import Timer

import pytest
import zc.lockfile
from dvc.cli import main as dvc
from ruamel.yaml import YAML

from tests.conftest import ROOT
from tests.study import in_process
from transfer import cli, commands
from transfer.cluster import run, worker

WAITS = "touch began; while ! [ -e go ]; do sleep 0.1; done; echo a > a"


def git(folder: Path, *arguments: str) -> str:
    told = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    command = ["git", *told, *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def origin(tmp_path) -> Path:
    """A repository of two commits, of which the first is not its branch's."""
    folder = tmp_path / "origin"
    folder.mkdir()
    git(folder, "init", "-q")
    for text in ("first", "second"):
        (folder / "file").write_text(text)
        git(folder, "add", ".")
        git(folder, "commit", "-qm", text)
    return folder


def test_a_clone_is_of_the_commit_and_removed_afterwards(origin, tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    first = git(origin, "rev-parse", "HEAD~").strip()

    def read(root: Path, commit: str) -> str:
        job = worker.Job("a", ["train@a"], str(root), ".", 1, commit)
        with worker.checkout(job) as folder:
            assert folder.parent.stat().st_mode & 0o777 == 0o700
            return (folder / "file").read_text()

    assert read(origin, first) == "first"
    for root, commit, words in (
        (origin, "0" * 40, f"the commit 000000000 is not in {origin}; push it"),
        (origin / "none", first[:-1], "does not exist"),
    ):
        with pytest.raises(cli.UserError, match=words):
            read(root, commit)
    assert not list(temporary.iterdir())


@pytest.mark.parametrize(
    "text",
    [
        "fatal: unable to access 'https://user:T0ken@host.test/a.git/': no",
        "ftp://user:p@T0ken@host.test, HTTPS://T0ken@host.test",
        "['git', 'clone', 'https://x-access-token:T0k/T0ken@host.test/a']",
    ],
)
def test_the_users_of_urls_are_in_no_message(text):
    for said in (str(cli.UserError(text)), cli.one_line(Exception(text))):
        assert "://host.test" in said
        assert not any(word in said for word in ("T0k", "user", "token"))


def test_urls_without_users_stay():
    text = "see https://host.test:8080/a@b/c?d=e@f, git@host.test:a and me@host.test"
    assert cli.without_users(text) == text


@pytest.fixture
def study(tmp_path, monkeypatch) -> Path:
    """A pipeline of two runs, of which the first waits for a file named go."""
    folder = tmp_path / "study"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(commands, "PAUSE", 0.2)
    commands.announce.cache_clear()
    told = "echo https://user:T0ken@host.test; echo b > b"
    each = {"foreach": {"a": WAITS, "b": told}, "do": {"cmd": "${item}", "outs": ["${key}"]}}
    YAML().dump({"stages": {"train": each}}, folder / "dvc.yaml")
    (folder / "transfer").symlink_to(ROOT / "transfer")
    assert dvc(["init", "-q", "--no-scm"]) == 0
    return folder


@pytest.fixture
def at_work(study):
    """A plain DVC that makes the first run, and ends three seconds later."""
    with subprocess.Popen(["dvc", "repro", "-q", "train@a"]) as other:
        while not Path("began").exists():
            time.sleep(0.05)
            assert other.poll() is None
        timer = Timer(3, Path("go").touch)
        timer.start()
        yield other
        timer.join()


def test_the_driver_waits_for_another_dvc(at_work, capsys):
    assert "Stage 'train@a' didn't change" in run.dvc("repro", "--dry", "train@a")
    said = capsys.readouterr().err
    assert said.startswith("waiting for another DVC command: ") and said.count("\n") == 1
    assert f"(PID {at_work.pid})" in said and "manually remove" in said


def test_a_worker_waits_for_another_dvc_and_its_log_has_no_users(at_work, study):
    stages = ["train@a", "train@b"]
    done = worker.reproduce(worker.Job("group", stages, str(study), ".", 1), Queue())
    assert (done.failed, at_work.poll()) == ([], 0)
    log = Path("data/logs/group.log").read_text()
    assert f"(PID {at_work.pid})" in log  # it did try
    assert "\nhttps://host.test\n" in log and "T0ken" not in log + done.log


def test_the_driver_checks_params_before_it_calls_dvc(study):
    settings = YAML().load(ROOT / "params.yaml")
    settings["grid"]["lr"] = ["0.001; touch x #"]
    YAML().dump(settings, study / "params.yaml")
    status, _, said = in_process(study, run.main)
    assert status == 1 and "grid.lr" in said and said.count("\n") == 1
    assert not Path("x").exists() and not Path("dvc.lock").exists()


@pytest.mark.release
def test_the_driver_waits_for_a_dvc_that_works_on_its_own_files(study, capsys):
    lock = zc.lockfile.LockFile(".dvc/tmp/lock")
    Timer(6, lock.close).start()
    assert "Running stage 'train@a'" in run.dvc("repro", "--dry", "train@a")
    assert "Unable to acquire lock" in capsys.readouterr().err
