"""Run dvc and git, and pass on their error messages."""

import os
import re
import subprocess
import sys
import time
from collections import defaultdict
from functools import cache
from pathlib import Path

from transfer.cli import UserError

BLOCKED = ("Unable to acquire lock", "is being blocked by")
"""What DVC prints when another DVC command uses the same files."""
PAUSE = 5.0  # seconds before a blocked DVC command is tried again


def call(*command: str, folder: Path | str = ".") -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def dvc(*arguments: str, folder: Path | str = ".") -> subprocess.CompletedProcess[str]:
    return call(sys.executable, "-m", "dvc", *arguments, folder=folder)


def own_path() -> str:
    """PATH with this environment's `python` and `dvc` first, even if it is not activated."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    """The command's output. Raises UserError if it failed."""
    if done.returncode:
        raise UserError(error_line(done))
    return done.stdout


def error_line(done: subprocess.CompletedProcess[str]) -> str:
    """The line in which a failed command names its error."""
    lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("ERROR", "fatal"))] or lines
    return errors[0] if errors else f"{done.args} failed"


def wait_if_blocked(output: str) -> bool:
    """Whether a DVC command failed because another one used the same files; if so, returns after a
    PAUSE."""
    if not any(words in output for words in BLOCKED):
        return False
    announce(f"waiting for another DVC command: {' '.join(output.split())}")
    time.sleep(PAUSE)
    return True


@cache
def announce(text: str) -> None:
    """Print it to stderr, once."""
    print(text, file=sys.stderr, flush=True)


def commit() -> str:
    """The working folder's commit, with -dirty if tracked files differ; '' without git."""
    try:
        done = call("git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
    except FileNotFoundError:
        return ""
    return done.stdout.strip()


def preceding(graph: str, stages: set[str]) -> set[str]:
    """All stages that these depend on, themselves excluded. graph: printed by `dvc dag --dot`."""
    needs = defaultdict(set)
    for needed, stage in re.findall(r'^"([^"]+)" -> "([^"]+)";', graph, re.M):
        needs[stage].add(needed)
    preceding: set[str] = set()
    new = stages
    while new:
        new = set().union(*(needs[stage] for stage in new)) - preceding
        preceding |= new
    return preceding - stages
