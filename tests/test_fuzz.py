"""Damaged and made-up input: it works or is refused in one line, quickly, and writes nowhere else.

`FUZZ=2500 python -m pytest tests/test_fuzz.py` tries that many inputs of each kind, instead of 20;
`make test-all` tries 100.
"""

import copy
import csv
import io
import os
import resource
import zipfile
from datetime import timedelta
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from ruamel.yaml import YAML

from tests.conftest import ROOT
from transfer import params
from transfer.cli import UserError
from transfer.images import layout, reader
from transfer.images.archive import Source
from transfer.images.split import divide as split
from transfer.images.split import files_of_classes
from transfer.training import models
from transfer.training.engine import Checkpoint

fuzzed = settings(
    max_examples=int(os.environ.get("FUZZ", 20)),
    deadline=timedelta(seconds=10),
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SETTINGS = YAML(typ="safe").load(ROOT / "params.yaml")
DATASET = {
    "title": "ab",
    "table": 0,
    "quadrant": "none",
    "folders": {"all": {"a": "a", "b": "b"}},
    "count": {"train": 1, "test": 1},
}
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=9), v, max_size=3)
)


@st.composite
def damage(draw, whole: bytes) -> bytes:
    """The bytes cut, with some overwritten, or with some put in."""
    data = bytearray(whole[: draw(st.integers(0, len(whole)) | st.just(len(whole)))])
    for _ in range(draw(st.integers(0, 4))):
        at, new = draw(st.integers(0, len(data))), draw(st.binary(min_size=1, max_size=8))
        data[at : at + draw(st.sampled_from([0, len(new)]))] = new
    return bytes(data)


@pytest.fixture(autouse=True)
def memory_is_bounded():
    """2 GiB more than now, at which Python raises MemoryError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (psutil.Process().memory_info().data + 2**31, hard))
    yield
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def one_line(error: UserError) -> None:
    assert "\n" not in str(error) and 0 < len(str(error)) < 2000


@fuzzed
@given(data=st.data())
def test_settings(data, tmp_path):
    changed = copy.deepcopy(SETTINGS)
    section = changed
    while True:
        key = data.draw(st.sampled_from(list(section)))
        if not isinstance(section[key], dict) or not section[key] or data.draw(st.booleans()):
            break
        section = section[key]
    section[data.draw(st.just(key) | st.text(max_size=9))] = data.draw(values)
    YAML(typ="safe").dump(changed, tmp_path / "params.yaml")
    refuse_or_load(tmp_path / "params.yaml")


@fuzzed
@given(text=damage((ROOT / "params.yaml").read_bytes()))
def test_settings_files(text, tmp_path):
    (tmp_path / "params.yaml").write_bytes(text)
    refuse_or_load(tmp_path / "params.yaml")


def refuse_or_load(path: Path) -> None:
    try:
        params.load(path)
    except UserError as error:
        one_line(error)


def picture(kind: str, seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def packed(members: dict[str, bytes], method=zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return out.getvalue()


FILES = {
    f"{label}/{i}.png": picture("PNG", 9 * i + (label == "b")) for label in "ab" for i in (0, 1)
}


@fuzzed
@given(archive=damage(packed(FILES)) | damage(packed(FILES, zipfile.ZIP_STORED)))
def test_archives(archive, tmp_path, monkeypatch):
    split_of(archive, tmp_path, monkeypatch)


@fuzzed
@given(names=st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=4, unique=True))
def test_names_in_archives(names, tmp_path, monkeypatch):
    try:
        archive = packed(FILES | {f"a/{name}": picture("PNG", 5) for name in names})
    except (ValueError, UnicodeError):  # no such zip can be made
        return
    split_of(archive, tmp_path, monkeypatch)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM", "GIF"])
@fuzzed
@given(data=st.data())
def test_images(kind, data, tmp_path, monkeypatch):
    image = data.draw(damage(picture(kind, 7)))
    split_of(packed(FILES | {"a/x.png": image}), tmp_path, monkeypatch)


def split_of(archive: bytes, folder: Path, monkeypatch) -> None:
    """Split it, or be refused; either way nothing is written but under data/split and metrics."""
    study = folder / "study"
    study.mkdir(exist_ok=True)
    monkeypatch.chdir(study)
    Path("a.zip").write_bytes(archive)
    rules = {"duplicates": "keep", "unreadable": "skip", "exif": "ignore", "transparency": "drop"}
    rules |= {"icc": "ignore", "max_pixels": reader.MAX_PIXELS}
    rules = params.Split(seed=0, resplit=False, validation=0.0, **rules)
    try:
        split("ab", params.Dataset(source="a.zip", **DATASET), rules)
    except UserError as error:
        one_line(error)
    found = {path.relative_to(folder).parts[:4] for path in folder.rglob("*") if path.is_file()}
    assert {parts[:4] for parts in found} - {("study", "a.zip")} <= {
        ("study", "metrics", "data", "ab.json"),
        *(("study", "data", "split", "ab"),),
    }


NAMES = ["train", "val", "test", "ants", "bees", "Ants", "p1", "p2", "images", "masks", "@eaDir"]
ENDINGS = st.sampled_from([".jpg", ".HEIC", ".jp2", "", ".jpg?w=9", ".gif", ".txt", ".dcm", "."])
TREES = st.dictionaries(
    st.builds(
        lambda folders, stem, ending: "/".join([*folders, stem + ending]),
        st.lists(st.sampled_from(NAMES), max_size=3),
        st.sampled_from("12.x"),
        ENDINGS | st.from_regex(r"\.[a-z0-9_~]{1,9}", fullmatch=True),
    ),
    st.sampled_from([picture("PNG", 1), picture("GIF", 1), b"other", b""]),
    max_size=25,
)


@settings(parent=fuzzed, max_examples=50 * fuzzed.max_examples, deadline=None)
@given(TREES)
def test_no_file_of_a_source_vanishes(tree):
    """Every file is an image of a class as split reads it, or counted with those left aside; and
    something can be read of each class."""
    source = Source(Path("any"), sorted(tree), tree.__getitem__)
    try:
        reading = layout.read(source)
    except UserError as error:
        one_line(error)
        return
    members, _ = files_of_classes(source, params.Folders(**reading.folders))
    taken = [member.path for member in members if member.path in source.images]
    counts = [count for classes in reading.images.values() for count in classes.values()]
    assert len(taken) == len(set(taken)) == sum(counts)
    left = [name for aside in reading.aside for name in aside.files]
    assert sorted([*taken, *left]) == sorted(tree)
    readable = {(m.part, m.label) for m in members if not source.flaw(m.path)}
    assert len(readable) == len(counts)


CELLS = st.sampled_from(["0.jpg", "1", "x/2.jpg", "a", "b", "a,b", "", "0", "1.0", "train", "nan"])


@settings(parent=fuzzed, max_examples=10 * fuzzed.max_examples, deadline=None)
@given(
    rows=st.lists(st.lists(CELLS | st.text(max_size=5), min_size=1, max_size=4), max_size=9),
    header=st.lists(st.sampled_from(["file", "label", "split", "group", "id", ""]), max_size=4),
    text=st.none() | st.binary(max_size=60),
)
def test_tables_of_anything(rows, header, text):
    """Read, with as many images as labels, or refused in a line."""
    out = io.StringIO()
    csv.writer(out).writerows([header, *rows])
    tree = {f"images/{n}.jpg": picture("PNG", n) for n in range(6)}
    tree["labels.csv"] = out.getvalue().encode(errors="replace") if text is None else text
    source = Source(Path("any"), sorted(tree), tree.__getitem__)
    try:
        reading = layout.read(source)
    except UserError as error:
        one_line(error)
        return
    members, _ = files_of_classes(source, params.Table.model_validate(reading.folders))
    assert len(members) == sum(sum(part.values()) for part in reading.images.values())


def whole_checkpoint() -> bytes:
    out = io.BytesIO()
    state = {"epoch": 1, "tensors": [torch.arange(5), torch.ones(2, 2)]}
    torch.save({"key": "k", "state": state}, out)
    return out.getvalue()


@fuzzed
@given(content=damage(whole_checkpoint()))
def test_checkpoints(content, tmp_path):
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    found = Checkpoint(path, "k").load(torch.device("cpu"))
    assert found is None or isinstance(found, dict)
    try:
        models.load_checkpoint(path)
    except UserError as error:
        one_line(error)
