import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from stages import draw as stage
from tests.conftest import ROOT
from transfer import params
from transfer.cli import UserError
from transfer.images import draw
from transfer.pages import pictures
from transfer.params import Draw
from transfer.training.preflight import check

TARGETS = ("hearts_drops", "arrows_bolts", "scans", "cells")
FEW = {"hearts_drops": Draw(images=2, size=32, seed=0), "scans": Draw(images=3, size=32, seed=0)}
yaml = YAML()


def _sample(dataset: str, name: str, count: int, size: int = 32) -> np.ndarray:
    return np.stack([draw.image(0, dataset, name, i, size) for i in range(count)])


def _bytes(folder) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.png"))}


@pytest.mark.parametrize("size", [16, 32, 45])
@pytest.mark.parametrize("dataset", draw.DATASETS)
def test_an_image_is_a_function_of_its_arguments(dataset, size):
    name = list(draw.painters(dataset))[-1]
    once, again = (draw.image(7, dataset, name, 3, size) for _ in range(2))
    assert once.shape == (size, size, 3) and once.dtype == np.uint8
    assert np.array_equal(once, again)
    assert once.std() > 10


def test_seed_class_and_index_each_change_the_image():
    images = [
        draw.image(seed, "things", name, index, 32).tobytes()
        for seed in (0, 1)
        for name in draw.painters("things")
        for index in (0, 1)
    ]
    assert len(set(images)) == len(images)


def test_classes():
    assert len(draw.painters("things")) == 16
    assert {len(draw.painters(dataset)) for dataset in TARGETS} == {2}
    assert not draw.SHAPES.keys() & draw.UNSEEN.keys()


@pytest.mark.parametrize("shape", [*draw.SHAPES, *draw.UNSEEN])
def test_outlines_fit_the_unit_circle(shape):
    outline = (draw.SHAPES | draw.UNSEEN)[shape]
    radius = np.linalg.norm(outline, axis=1)
    assert 0.8 < radius.max() < 1.15


def test_a_ring_has_its_hole():
    centre = draw._coverage(draw.SHAPES["ring"], 32)[16, 16]
    assert centre == 0 and draw._coverage(draw.SHAPES["disc"], 32)[16, 16] == 1


def test_the_different_targets_are_grey_and_the_similar_ones_are_not():
    for dataset in TARGETS:
        images = np.concatenate([_sample(dataset, name, 10) for name in draw.painters(dataset)])
        grey = np.array_equal(images[..., 0], images[..., 1])
        assert grey == (dataset in ("scans", "cells"))


def test_a_lesion_is_a_bright_spot():
    def brightest(name):
        grey = _sample("scans", name, 60)[:, 10:22, 10:22, 0].astype(float)
        blocks = grey.reshape(60, 4, 3, 4, 3).mean(axis=(2, 4)).reshape(60, -1)
        return blocks.max(axis=1) - np.median(blocks, axis=1)

    lesion, none = brightest("lesion"), brightest("no_lesion")
    assert (lesion[:, None] > none).mean() > 0.75


@pytest.mark.parametrize("dataset", TARGETS)
def test_brightness_alone_does_not_tell_the_classes(dataset):
    first, second = (_sample(dataset, n, 60).mean(axis=(1, 2, 3)) for n in draw.painters(dataset))
    assert 0.2 < (first[:, None] > second).mean() < 0.8


def test_unknown_data_set():
    with pytest.raises(UserError, match="'hats'.*things"):
        draw.painters("hats")


def drawn(sets: dict[str, Draw]) -> None:
    """Run the stage on these, in the working folder."""
    settings = yaml.load(ROOT / "sample/params.yaml")
    settings["draw"] = {name: dict(one) for name, one in sets.items()}
    yaml.dump(settings, Path("params.yaml"))
    for name in sets:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["draw", name])
            stage.main()


def test_stage_writes_every_class_and_the_same_bytes_twice(tmp_path, monkeypatch):
    for folder in ("once", "again"):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        drawn(FEW)
    once = _bytes(tmp_path / "once")
    assert once == _bytes(tmp_path / "again")
    assert len(once) == 2 * 2 + 2 * 3
    assert "data/raw/scans/no_lesion/0002.png" in once
    with Image.open(tmp_path / "once/data/raw/hearts_drops/drop/0001.png") as image:
        assert image.size == (32, 32) and image.mode == "RGB"


def test_more_images_leave_the_earlier_ones_as_they_were(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    drawn({"scans": FEW["scans"]})
    few = _bytes(tmp_path)
    drawn({"scans": FEW["scans"].model_copy(update={"images": 5})})
    more = _bytes(tmp_path)
    assert len(more) == 10 and few.items() <= more.items()


def test_an_unknown_drawing_is_refused_before_anything_starts():
    study = params.load(ROOT / "sample/params.yaml")
    with pytest.raises(UserError, match="draw: no drawing for 'hats'"):
        check(study.model_copy(update={"draw": study.draw | {"hats": FEW["scans"]}}))


def test_stage_refuses_a_data_set_that_is_not_drawn(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="draw has no 'hats'; it has hearts_drops, scans"):
        drawn(FEW)
        monkeypatch.setattr(sys, "argv", ["draw", "hats"])
        stage.main()


def test_contact_sheet_shows_every_class_of_what_is_drawn():
    shown = pictures.drawn_images(params.load(ROOT / "sample/params.yaml"))
    assert list(map(len, shown.values())) == [16, 8, 8, 8, 8]
    (source, *_, cells) = shown
    assert source == "things: 16 classes of 72 images" and cells.endswith("(large, different)")
    assert [one.name for one in shown[cells]] == ["pale_core"] * 4 + ["dark_core"] * 4
