"""What is installed, by whom and where."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.conftest import ROOT

PINS = ("requirements.txt", "requirements-ray.txt", "requirements-hashed.txt")
WORKFLOWS = {
    path.stem: YAML(typ="safe").load(path) for path in (ROOT / ".github/workflows").glob("*.yaml")
}


def pinned(file: str) -> list[tuple[str, str]]:
    return re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / file).read_text(), re.M)


def test_each_package_has_one_version_for_every_python_in_every_file():
    every = dict(pinned("requirements-hashed.txt"))
    for file in PINS:
        found = pinned(file)
        assert len(dict(found)) == len(found) and found
        assert dict(found).items() <= every.items()
    of_torch = re.compile("(cuda|nvidia)-|triton$")
    assert any(map(of_torch.match, every))
    for file in PINS[:2]:
        assert not any(of_torch.match(name) for name, _ in pinned(file))


def test_the_hashed_lock_has_a_hash_of_each_package():
    text = (ROOT / "requirements-hashed.txt").read_text()
    entries = re.split(r"^(?=\w)", text, flags=re.M)[1:]
    assert all("--hash=sha256:" in entry for entry in entries)


def test_the_workflows_try_every_promised_python():
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    tried = WORKFLOWS["test"]["jobs"]["test"]["strategy"]["matrix"]["python"]
    first, last = (int(one.partition(".")[2]) for one in (tried[0], tried[-1]))
    assert tried == [f"3.{minor}" for minor in range(first, last + 1)]
    assert asked == f">=3.{first},<3.{last + 1}"


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_that_may_write_runs_nothing_of_a_pull_request(name):
    workflow = WORKFLOWS[name]
    for job in workflow["jobs"].values():
        used = [step["uses"] for step in job["steps"] if "uses" in step]
        assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action) for action in used)
        granted = workflow["permissions"] | job.get("permissions", {})
        checks_out = any(action.startswith("actions/checkout@") for action in used)
        assert checks_out == (granted == {"contents": "read"})
        # What a pull request names, such as its branch, is no part of a script.
        assert all("${{" not in step.get("run", "") for step in job["steps"])


@pytest.fixture
def elsewhere(tmp_path) -> Path:
    for name in ("Makefile", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def test_make_installs_only_where_no_active_environment_has_the_packages(elsewhere):
    def planned(path: str) -> str:
        environment = {**os.environ, "PATH": f"{path}{os.pathsep}{os.defpath}"}
        command = ["make", "-n", "lint", "test"]
        return subprocess.run(
            command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=True
        ).stdout

    assert "pip install" not in planned(str(Path(sys.executable).parent))
    assert "pip install" in planned("")


@pytest.mark.release
def test_pip_is_told_that_there_is_no_wheel():
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--dry-run", str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode and "error: this is a study and no package" in done.stderr
    assert "Traceback" not in done.stderr


# Without what Windows lacks; psutil and torch, which look for it on Linux, are there before.
ELSEWHERE = """
import os, signal, sys
import psutil, torch
sys.modules.update(dict.fromkeys(["fcntl", "grp", "pwd", "resource", "termios"]))
for module, names in {
    os: ["fork", "getuid", "killpg", "sched_getaffinity", "sysconf"],
    signal: ["SIGHUP", "SIGKILL", "SIGUSR1"],
}.items():
    for name in names:
        delattr(module, name)
from transfer import cli, files
from transfer.model import predict
from transfer.own import costs, enter, settings

def main():
    sys.argv = ["", "none.safetensors", "none.jpg"]
    try:
        predict.main()
    except cli.UserError as error:
        print(error)
    with files.locked("lock", "x"):
        pass

cli.run(main)
"""


def test_predict_and_own_start_without_what_windows_lacks(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", ELSEWHERE]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.startswith("none.safetensors: ")
    assert done.stderr == "error: training needs Linux or macOS; on Windows run it in WSL\n"
