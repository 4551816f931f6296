"""Running dvc and git, and what they say when they fail."""

import re
import subprocess
from collections import defaultdict
from pathlib import Path

from transfer.cli import UserError


def call(*command: str, folder: Path | str = ".") -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


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


def following(graph: str, stages: set[str]) -> set[str]:
    """The stages that build on these, themselves aside; `graph` is `dvc dag --dot`'s."""
    return _beyond(_edges(graph), stages)


def preceding(graph: str, stages: set[str]) -> set[str]:
    """The stages that these build on, themselves aside."""
    return _beyond([(after, before) for before, after in _edges(graph)], stages)


def _edges(graph: str) -> list[tuple[str, str]]:
    return re.findall(r'^"([^"]+)" -> "([^"]+)";', graph, re.M)


def _beyond(edges: list[tuple[str, str]], stages: set[str]) -> set[str]:
    after = defaultdict(set)
    for before, stage in edges:
        after[before].add(stage)
    found: set[str] = set()
    new = stages
    while new:
        new = set().union(*(after[stage] for stage in new)) - found
        found |= new
    return found - stages
