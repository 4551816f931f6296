"""What workers run: stages forked from a warm process, and a DVC that writes whole files."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
from ruamel.yaml import YAML

from tests.conftest import ROOT

STAGE = """
import json, os, sys, time
from transfer import cli

def main():
    if sys.argv[1] == "fail":
        raise cli.UserError("no luck")
    if sys.argv[1] == "sleep":
        print(os.getpid(), flush=True)
        time.sleep(60)
    words = {"parent": os.getppid(), "arguments": sys.argv[1:], "folder": os.getcwd()}
    print(json.dumps({**words, "x": os.environ.get("X"), "name": __name__}))

if __name__ == "__main__":
    cli.run(main)
"""


@pytest.fixture
def code(tmp_path, monkeypatch):
    """A repository of one stage, and the warm process for it."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name in ("cluster", "transfer"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages/echo.py").write_text(STAGE)
    (tmp_path / "sample").mkdir()
    return tmp_path


@pytest.fixture
def warm(code):
    folder = code / "warm"
    folder.mkdir()
    command = [sys.executable, "-m", "cluster.warm", str(folder), "stages.echo"]
    process = subprocess.Popen(command, cwd=code)
    while not (folder / "python").is_file():
        time.sleep(0.05)
    yield process
    process.kill()
    process.wait()


def command(code, *arguments, warm=True, **environment):
    environment = {**os.environ, "PYTHONPATH": "..", **environment}
    python = str(code / "warm/python") if warm else sys.executable
    words = [python, "-m", "stages.echo", *arguments]
    options = {"cwd": code / "sample", "env": environment, "text": True}
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def outcome(process):
    output, errors = process.communicate()
    return output, errors, process.returncode


def test_a_forked_stage_is_as_one_started_by_itself(code, warm):
    said = [json.loads(outcome(command(code, "a b", warm=w, X="1"))[0]) for w in (True, False)]
    assert [words.pop("parent") for words in said] == [warm.pid, os.getpid()]
    assert said[0] == said[1]
    failed = [outcome(command(code, "fail", warm=w)) for w in (True, False)]
    assert failed[0] == failed[1] == ("", "error: no luck\n", 1)


@pytest.mark.parametrize("environment", [{"OMP_NUM_THREADS": "2"}, {"PYTHONPATH": "../sample/.."}])
def test_other_threads_start_by_themselves(code, warm, environment):
    parent = json.loads(outcome(command(code, "a", **environment))[0])["parent"]
    assert (parent == warm.pid) == ("PYTHONPATH" in environment)


def test_edited_code_is_what_runs(code, warm):
    stage = code / "stages/echo.py"
    assert json.loads(outcome(command(code, "a"))[0])["parent"] == warm.pid
    stage.write_text(STAGE.replace("no luck", "none at all"))
    assert outcome(command(code, "fail")) == ("", "error: none at all\n", 1)


def test_a_fault_in_the_code_is_told_by_the_stage(code, request):
    (code / "stages/echo.py").write_text("import nothing_of_this_name\n")
    request.getfixturevalue("warm")
    _, errors, status = outcome(command(code, "a"))
    assert "nothing_of_this_name" in errors and status == 1


@pytest.mark.parametrize("killed", ["stage", "warm process", "who asked"])
def test_nothing_is_left_when_one_dies(code, warm, killed):
    asks = command(code, "sleep")
    stage = psutil.Process(int(asks.stdout.readline()))
    assert stage.ppid() == warm.pid
    {"stage": stage, "warm process": warm, "who asked": asks}[killed].send_signal(signal.SIGKILL)
    _, errors, status = outcome(asks)
    assert {"stage": status == 128 + signal.SIGKILL, "who asked": status == -signal.SIGKILL}.get(
        killed, (errors, status) == ("error: the warm process has died\n", 1)
    )
    stage.wait(timeout=10)
    words = json.loads(outcome(command(code, "a"))[0])
    assert (words["parent"] == warm.pid) == (killed != "warm process")


WRITES = """
from dvc.utils.serialize import modify_yaml
from cluster.dvc import write_whole

write_whole()
while True:
    with modify_yaml("dvc.lock") as lock:
        lock["stages"] = {f"stage {i}": {"cmd": "x"} for i in range(300)}
        print(flush=True)
"""


def test_a_dvc_lock_is_whole_when_its_writer_is_killed(tmp_path):
    rng, (root, lock) = random.Random(0), (str(ROOT), tmp_path / "dvc.lock")
    for _ in range(8):
        environment = {**os.environ, "PYTHONPATH": root}
        options = {"cwd": tmp_path, "env": environment, "stdout": subprocess.PIPE}
        with subprocess.Popen([sys.executable, "-c", WRITES], **options) as writer:
            for _ in range(2):
                writer.stdout.readline()
            time.sleep(rng.uniform(0, 0.1))
            writer.kill()
        assert len(YAML(typ="safe").load(lock)["stages"]) == 300
