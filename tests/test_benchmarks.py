"""The benchmarks start, and those that compare results find them equal."""

import os
import re
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec

import pytest

from tests.conftest import ROOT
from tests.study import in_process

SCRIPTS = sorted({path.stem for path in (ROOT / "benchmarks").glob("[!_]*.py")} - {"common"})


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_finds_what_it_imports_and_says_how_it_is_used(script):
    status, out, _ = in_process(ROOT, import_module(f"benchmarks.{script}").main, "--help")
    assert status == 0 and out.startswith("usage: ")


def printed(script: str, arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, ROOT / f"benchmarks/{script}.py", *arguments.split()],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.release
def test_a_study_that_is_killed_gives_the_same_files():
    said = printed("kill", "--tiny --kills 2 --targets stage dvc")
    assert "2 kills; 0 files differ" in said


@pytest.mark.release
@pytest.mark.skipif(not find_spec("ray"), reason="Ray is an extra: requirements-ray.txt")
def test_workers_give_the_same_files():
    assert re.search(r"(\d+) of \1 files are the same", printed("workers", "--tiny"))
