"""From a folder of one's own images to settings that hold."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from transfer import params
from transfer.cli import UserError
from transfer.images import archive
from transfer.images import layout as layouts


def laid_out(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def layout(path: Path):
    with archive.opened(path) as source:
        return layouts.layout(source)


def test_classes_at_the_top(tmp_path):
    names = ("daisy/1.jpg", "rose/2.PNG", "tulip/3.jpeg", "notes.txt", "rose/.DS_Store")
    found = layout(laid_out(tmp_path, *names))
    assert found == {"all": {"daisy": "daisy", "rose": "rose", "tulip": "tulip"}}


def test_classes_deep_inside_a_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        for name in ("a/b/cat/1.jpg", "a/b/dog/1.jpg", "__MACOSX/a/b/cat/1.jpg"):
            file.writestr(name, b"")
    assert layout(tmp_path / "x.zip") == {"all": {"cat": "a/b/cat", "dog": "a/b/dog"}}


def test_a_source_that_is_divided(tmp_path):
    names = [f"x/{part}/{label}/1.jpg" for part in ("Train", "val") for label in ("cat", "dog")]
    assert layout(laid_out(tmp_path, *names)) == {
        "train": {"cat": "Train/cat", "dog": "Train/dog"},
        "test": {"cat": "val/cat", "dog": "val/dog"},
    }


@pytest.mark.parametrize(
    "names,words",
    [
        (["readme.txt"], "no folder with images"),
        (["1.jpg", "2.jpg"], "all: ''"),
        (["cat/1.jpg"], "all: 'cat'"),
        (["cat/1.jpg", "cat/young/2.jpg", "dog/1.jpg"], "'cat' and in 'cat/young' inside it"),
        (["x/cat/1.jpg", "y/cat/1.jpg"], "two folders are called 'cat'"),
        (["train/cat/1.jpg", "train/dog/1.jpg", "test/cat/1.jpg"], "test: 'cat'"),
    ],
)
def test_a_layout_that_says_no_classes_is_refused(tmp_path, names, words):
    with pytest.raises(UserError, match=words) as caught:
        layout(laid_out(tmp_path, *names))
    assert "\n" not in str(caught.value)


def test_params_are_valid_afterwards_and_keep_their_comments(tmp_path):
    text = (ROOT / "params.yaml").read_text()
    for key in ("download", "draw", "split", "train"):
        text = text.replace(f"\n{key}:", f"\n# Above {key}.\n{key}:", 1)
    text = text.replace("\n  epochs:", "\n  # More of them?\n  epochs:")
    text = text.replace("\n  cats_dogs:", "\n\n  # Pets.\n  cats_dogs:")
    (tmp_path / "params.yaml").write_text(text)
    laid_out(tmp_path / "data/raw/My Flowers", "daisy/1.jpg", "rose/1.jpg", "tulip/1.jpg")

    def run(source):
        command = [sys.executable, "-m", "transfer", "own", source]
        environment = {"PYTHONPATH": str(ROOT)}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )

    before = (tmp_path / "params.yaml").read_text()
    assert run("data/raw/none").stderr.startswith("error: data/raw/none: not there")
    assert (tmp_path / "params.yaml").read_text() == before
    done = run("data/raw/My Flowers")
    assert "next: dvc repro (" in done.stdout, done.stderr
    found = params.load(tmp_path / "params.yaml")
    assert found.grid.dataset == ["my_flowers"] == list(found.datasets)
    assert found.datasets["my_flowers"].folders.classes == ["daisy", "rose", "tulip"]
    assert (found.download, found.split.validation, found.train.epochs) == ({}, 0.2, 25)
    after = (tmp_path / "params.yaml").read_text()
    comments = [line for line in before.splitlines() if line.strip().startswith("#")]
    kept = [line for line in after.splitlines() if line.strip().startswith("#")]
    assert len(comments) == 9
    assert [line for line in comments if line not in kept] == ["  # Pets.", "  # Pets."]
    section = after.index("\npack:")
    assert (
        after[section : after.index("\ngrid:")]
        == before[before.index("\npack:") : before.index("\ngrid:")]
    )
