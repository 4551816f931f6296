"""Running dvc and git, and what they say when they fail."""

import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from transfer.cli import UserError


def call(*command: str, folder: Path | str = ".") -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def dvc(*arguments: str, folder: Path | str = ".") -> subprocess.CompletedProcess[str]:
    return call(sys.executable, "-m", "dvc", *arguments, folder=folder)


def own_path() -> str:
    """PATH with this environment's `python` and `dvc` first, even if it is not activated."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    """What a command printed. Raises UserError when it failed."""
    if done.returncode:
        raise UserError(error_line(done))
    return done.stdout


def error_line(done: subprocess.CompletedProcess[str]) -> str:
    """What a failed command said of its error."""
    lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("ERROR", "fatal"))] or lines
    return errors[0] if errors else f"{done.args} failed"


def preceding(graph: str, stages: set[str]) -> set[str]:
    """The stages that these build on, themselves aside; `graph` is `dvc dag --dot`'s."""
    before = defaultdict(set)
    for first, stage in re.findall(r'^"([^"]+)" -> "([^"]+)";', graph, re.M):
        before[stage].add(first)
    found: set[str] = set()
    new = stages
    while new:
        new = set().union(*(before[stage] for stage in new)) - found
        found |= new
    return found - stages
