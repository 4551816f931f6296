"""What the tests share: small drawn data sets, packed, and small studies that have been run."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Tests run side by side, and threads that wait for a busy core stall. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from PIL import Image

from transfer.files import locked, read_json, write_json
from transfer.images import packed
from transfer.images.names import CLASSES, Classes

ROOT = Path(__file__).parents[1]


def draw_split(folder: Path, per_class: dict[str, int], sides=(40, 90), seed=0) -> Path:
    """draw_source, as `split` leaves it."""
    Classes(names=["a", "b"]).write(folder / CLASSES)
    return draw_source(folder, per_class, sides, seed, "01")


def draw_source(
    folder: Path, per_class: dict[str, int], sides=(40, 90), seed=0, folders="ab"
) -> Path:
    """A tree of JPEGs in which class b is brighter at the top than class a."""
    rng = np.random.default_rng(seed)
    for part, count in per_class.items():
        for label, slope in zip(folders, (-80, 80), strict=True):
            (folder / part / label).mkdir(parents=True)
            for i in range(count):
                height, width = rng.integers(*sides, size=2)
                ramp = np.linspace(128 + slope, 128 - slope, height)[:, None, None]
                noise = rng.normal(0, 40, (height, width, 3))
                pixels = np.clip(ramp + noise, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / part / label / f"{i:03}.jpg")
    return folder


@pytest.fixture(scope="session")
def split(tmp_path_factory) -> Path:
    return draw_split(tmp_path_factory.mktemp("split"), {"train": 11, "validation": 3, "test": 7})


@pytest.fixture(scope="session")
def data(split, tmp_path_factory) -> packed.Packed:
    out = tmp_path_factory.mktemp("packed") / "ab"
    packed.write(split, out, resize=72, size=64, short_side=0)
    return packed.load(out)


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A small study of four runs: run, committed, and pushed to a DVC remote beside it. Tests
    change copies of it."""
    from tests.study import Study, small  # which imports from here

    with made_once(tmp_path_factory, "finished") as (folder, new):
        if new:
            made = small(folder / "study", ["one"], freezing=["finetuned"])
            made.change("grid.lr", [0.001, 0.0003])
            made.repro()
            made.run("dvc", "remote", "add", "-q", "-d", "shared", str(folder / "remote"))
            made.commit()
            made.run("dvc", "push", "-q", "--run-cache")
    return Study(folder / "study").copy(tmp_path_factory.mktemp("finished") / "study")


@pytest.fixture(scope="session")
def sample(tmp_path_factory):
    """The drawn study, made tiny; run and committed. Tests change copies of its repository."""
    from tests.study import Study, drawn

    with made_once(tmp_path_factory, "sample") as (folder, new):
        if new:
            made = drawn(folder / "repository")
            write_json(folder / "ran.json", sorted(made.repro()))
            made.commit()
    made = Study(folder / "repository/sample").copy(tmp_path_factory.mktemp("repository") / "own")
    made.ran = read_json(folder / "ran.json")
    return made


@contextmanager
def made_once(tmp_path_factory, name: str) -> Iterator[tuple[Path, bool]]:
    """A folder that the processes of a test run share, and whether the caller is to fill it."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"shared-{name}"
    with locked(f"{folder}.lock", f"the tests' {name}"):
        if new := not folder.with_suffix(".done").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        yield folder, new
        folder.with_suffix(".done").touch()
