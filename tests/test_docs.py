"""The commands of README and docs: those of dvc and git run as they are written, each verb accepts
its arguments, and make knows its targets."""

import argparse
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT, draw_source
from tests.study import Study, in_process
from transfer.__main__ import main

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
ELSEWHERE = ("dvc repro", "git merge theirs", "git commit")
"""Commands of dvc and git that need what a reader has done before; see test_reruns.py."""


def commands(text: str) -> list[str]:
    """The lines of its blocks without a language, and what follows the prompts of transcripts. A
    line that ends in a backslash continues on the next."""
    found = []
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S):
        lines = block.replace("\\\n", "").splitlines()
        if any(line.startswith("$ ") and not line.startswith("$ EDITOR") for line in lines):
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        if not language:
            found += [line.split("  #")[0].strip() for line in lines]
    return [line for line in found if line]


def here(command: str) -> bool:
    """Whether it is run below, in a small sample."""
    return command.startswith(("dvc ", "git ")) and not command.startswith(ELSEWHERE)


@pytest.fixture(scope="module")
def changing(sample, tmp_path_factory) -> Study:
    """A sample in which each section's commands find what those before have left."""
    made = sample.copy(tmp_path_factory.mktemp("changing") / "repository")
    made.page = None
    split = draw_source(tmp_path_factory.mktemp("flowers"), {"train": 5})
    for label, flower in {"a": "daisy", "b": "rose"}.items():
        shutil.copytree(split / "train" / label, made.folder / "data/raw/flowers" / flower)
    return made


WITNESSES = ("Watch runs", "Share results")  # for all sections, but before a release


def sections() -> list:
    """Page and commands of those with some to run here, in their order."""
    found = []
    for page in PAGES:
        for section in re.split("^#+ ", page.read_text(), flags=re.M)[1:]:
            title, lines = section.partition("\n")[0], list(filter(here, commands(section)))
            marks = () if title in WITNESSES else pytest.mark.release
            if lines:
                name = f"{page.stem}: {title}"
                found.append(pytest.param(page.stem, lines, id=name, marks=marks))
    return found


@pytest.mark.parametrize(("page", "lines"), sections())
def test_the_commands_of_dvc_and_git_run_in_their_order(changing, page, lines):
    if page != changing.page:  # what a page leaves uncommitted is nothing to the next
        changing.run("git", "checkout", "-q", ".")
        changing.run("dvc", "checkout", "-q")
        changing.page = page
    remote = changing.folder.parents[1] / "remote"
    for command in lines:
        changing.run("bash", "-ec", command.replace("/some/folder", str(remote)))
        if command == "dvc queue start":
            changing.run("bash", "-c", "while dvc queue status | grep Running; do sleep 1; done")
            assert "Success" in changing.run("dvc", "queue", "status")
        if command.startswith("dvc push"):
            assert list(remote.rglob("*.dir"))


def test_no_command_is_outside_the_sections():
    ran = [line for section in sections() for line in section.values[1]]
    assert ran == [line for page in PAGES for line in commands(page.read_text()) if here(line)]
    assert any(line.startswith("dvc push") for line in ran)
    assert len([section for section in sections() if not section.marks]) == len(WITNESSES)


ALL = {command for page in PAGES for command in commands(page.read_text())}
VERBS = sorted(command for command in ALL if command.startswith("python -m transfer "))
TARGETS = sorted(command for command in ALL if command.startswith("make "))


@pytest.mark.parametrize("command", VERBS)
def test_a_verb_accepts_its_arguments(command, monkeypatch):
    parse = argparse.ArgumentParser.parse_args
    monkeypatch.setattr(
        argparse.ArgumentParser, "parse_args", lambda self: sys.exit(not parse(self))
    )
    status, _, err = in_process(ROOT, main, *shlex.split(command)[3:])
    assert status == 0, err


@pytest.mark.parametrize("command", TARGETS)
def test_make_knows_its_target(command):
    folder = ROOT / "sample" if "-C .." in command else ROOT
    done = subprocess.run(["make", "-n", *command.split()[1:]], cwd=folder, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_links_lead_somewhere():
    for page in [*PAGES, ROOT / "CHANGELOG.md", *ROOT.glob("*/README.md")]:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page}: {link}"
