"""Images that look alike: near copies across the parts, fixed cameras, and shortcuts of files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from scipy.sparse.csgraph import connected_components

from tests.test_split import GROUPED, POOL, image, pack, run, stored, study, summary
from transfer.cli import UserError
from transfer.images import duplicates, near, packed
from transfer.images.scan import Content, Picture

__all__ = ["study"]  # a fixture: each test has a folder of its own


def photo(seed: int, side: int = 96) -> Image.Image:
    """Something smooth, as photographs are, that no other seed resembles."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def photos() -> dict[str, bytes]:
    """Of the test images of ant, three were made of training images, and one equals one."""
    members = {
        f"set/{part}/{label}/{n}.png": stored(photo(seed))
        for seed, (part, label, n) in enumerate(
            (part, label, n)
            for part in ("train", "val")
            for label in ("ant", "bee")
            for n in range(5)
        )
    }
    made = {
        "saved": (photo(0), "JPEG", {"quality": 40}),
        "scaled": (photo(1).resize((40, 40)), "PNG", {}),
        "mirrored": (ImageOps.mirror(photo(2)), "PNG", {}),
        "equal": (photo(3), "PNG", {}),
    }
    return members | {
        f"set/val/ant/{name}.{kind.lower()}": stored(picture, kind, **options)
        for name, (picture, kind, options) in made.items()
    }


def test_near_copies_across_the_split_are_named_and_dropped():
    report = run(pack(photos()))
    assert report["near"] == [
        ["ant/mirrored.png", "train/ant/2.png"],
        ["ant/saved.jpeg", "train/ant/0.png"],
        ["ant/scaled.png", "train/ant/1.png"],
    ]
    assert [pair[0] for pair in report["leaked"]] == ["ant/equal.png"]
    assert "ab: 3 further test images look like one in training" in summary(report)[1]
    assert run("a.zip", duplicates="drop")["near"] == report["near"]
    dropped = run("a.zip", duplicates="drop_near")
    assert (dropped["near"], dropped["leaked"]) == ([], [])
    assert dropped["split"]["images"]["train"] == {"ant": 1, "bee": 5}
    assert dropped["split"]["images"]["test"] == report["split"]["images"]["test"]


def test_near_copies_in_a_pool_are_dropped_before_it_is_divided():
    members = {f"Ant/{n}.png": stored(photo(n)) for n in range(8)}
    members |= {f"Bee/{n}.png": stored(photo(50 + n)) for n in range(8)}
    members |= {f"Ant/z{n}.png": stored(photo(n).resize((50, 50))) for n in range(4)}
    report = run(pack(members), POOL, test=2, duplicates="drop_near")
    assert report["dropped"] == {"all": {"ant": 4, "bee": 0}} and report["near"] == []


def test_near_copies_are_proposed_to_be_dropped_only_where_that_leaves_enough():
    members = photos()
    for n in range(5):
        members[f"set/val/bee/again{n}.png"] = stored(photo(5 + n).resize((50, 50)))
    report = run(pack(members))
    assert len(report["near"]) == 8 and report["remedies"] == ["drop"]
    assert summary(report)[1].endswith("re-saved, scaled or mirrored")
    with pytest.raises(UserError, match="drop_near would leave class 'bee' 0 of 5 .* to keep"):
        run("a.zip", duplicates="drop_near")


# Comparing


@pytest.fixture
def thumbnails(monkeypatch) -> np.ndarray:
    """Copies of 12 images with noise, so that some of the images of one are alike and some not, of
    which one is of one colour; compared in blocks of 7."""
    monkeypatch.setattr(near, "BLOCK", 7)
    rng = np.random.default_rng(0)
    scenes = rng.integers(0, 256, (12, 3 * near.SIDE**2))[rng.integers(0, 12, 60)]
    scenes[5] = 80
    noise = rng.normal(0, rng.uniform(0, 12, (60, 1)), scenes.shape)
    return (scenes + noise * (np.arange(60)[:, None] != 5)).clip(0, 255).astype(np.uint8)


def all_pairs(thumbnails: np.ndarray) -> np.ndarray:
    """bool [n, n]: which images look alike, one pair after the other."""
    mirrored = thumbnails.reshape(-1, near.SIDE, near.SIDE, 3)[:, :, ::-1].reshape(thumbnails.shape)
    n = len(thumbnails)
    with np.errstate(invalid="ignore"):
        both = [np.corrcoef(thumbnails, other)[:n, n:] for other in (thumbnails, mirrored)]
    return np.nan_to_num(np.maximum(*both)) >= near.ALIKE


def test_comparing_in_blocks_finds_what_comparing_all_pairs_does(thumbnails):
    alike = all_pairs(thumbnails)
    assert alike.sum() > 2 * len(alike) and not alike[5].any()
    expected = connected_components(alike, directed=False)[1]
    assert near.components(thumbnails).tolist() == expected.tolist()
    classes = np.arange(60) % 2
    same = alike & (classes[:, None] == classes)
    expected = connected_components(same, directed=False)[1]
    assert near.components(thumbnails, classes).tolist() == expected.tolist()
    kept: list[int] = []
    for i in range(60):
        kept += [] if alike[i, kept].any() else [i]
    assert np.flatnonzero(near.distinct(thumbnails)).tolist() == kept
    correlation, place = near.nearest(thumbnails[:20], thumbnails[20:])
    assert (correlation >= near.ALIKE).tolist() == alike[:20, 20:].any(axis=1).tolist()
    assert all(alike[i, 20 + place[i]] for i in np.flatnonzero(correlation >= near.ALIKE))


# Fixed cameras

CAMERA = "70 of 80 images look alike, across both classes (a fixed camera?)"


def frames(folders: tuple[str, str] = ("Ant", "Bee"), first: int = 0) -> dict[str, bytes]:
    """35 frames of each class that show one scene, and 5 that do not, in 8 recordings."""
    members = {}
    for label, seed in zip(folders, (first, first + 100), strict=True):
        for n in range(40):
            frame = np.asarray(photo(7 if n % 8 else seed + n + 10)).copy()
            frame[:8, :8] = np.random.default_rng(seed + n).integers(0, 256, (8, 8, 3), np.uint8)
            members[f"{label}/r{n // 5}/{n}.png"] = stored(Image.fromarray(frame))
    return members


@pytest.mark.parametrize("duplicates", ["keep", "drop"])
@pytest.mark.parametrize("folders", [POOL, GROUPED])
def test_a_fixed_camera_is_told_and_its_images_are_divided_all_the_same(folders, duplicates):
    settings = {"resplit": True, "validation": 0.2, "duplicates": duplicates}
    report = run(pack(frames()), folders, test=0.2, **settings)
    (line,) = summary(report)[2:]
    assert line.startswith(f"ab: {CAMERA}, so likeness does not tell copies here")
    assert ("give each recording a folder of its own" in line) == (folders is POOL)
    packed.write(Path("data/split/ab"), Path("data/packed/ab"), resize=10, size=8, short_side=0)
    for seed in range(5):
        data = packed.load("data/packed/ab", seed)
        parts = [getattr(data, part) for part in packed.PARTS]
        assert all(min(part.count(data.classes)) > 0 for part in parts)
        assert 10 <= len(data.test) <= 22
        names = [{name.split("/")[1].split("-")[0] for name in part.names} for part in parts]
        if folders is GROUPED:
            assert sum(map(len, names)) == len(set.union(*names)) == 8


def test_a_fixed_camera_is_told_where_the_source_is_divided():
    folders = {part: {k: f"{part}/{k}" for k in ("ant", "bee")} for part in ("train", "test")}
    members = {}
    for part, first in (("train", 0), ("test", 200)):
        members |= frames((f"{part}/ant", f"{part}/bee"), first)
    report = run(pack(members), folders)
    lines = "\n".join(summary(report))
    assert "140 of 160 images look alike, across both classes (a fixed camera?), so " in lines
    assert "drop_near" not in lines
    with pytest.raises(UserError, match=r"140 of 160 .*so split.duplicates: drop_near .* to keep"):
        run("a.zip", folders, duplicates="drop_near")


def test_likeness_joins_images_of_one_class_where_many_of_several_classes_look_alike():
    """Of a chain of images, alternately of two classes, only neighbours look alike; an image of the
    first class is there twice."""
    across, down = (photo(seed, near.SIDE) for seed in (0, 1))
    planes = [np.asarray(plane, float).ravel() for plane in (across, down)]
    planes = list(np.linalg.qr(np.stack([p - p.mean() for p in planes], 1))[0].T * 1500)
    angles = np.radians(7 * np.r_[0:12, 0, 20:30:2])
    scenes = np.cos(angles)[:, None] * planes[0] + np.sin(angles)[:, None] * planes[1] + 128
    labels = [*"ab" * 6, *"aabbab"]
    pictures = [
        Picture("train", label, f"{n}", f"{n}", Content("PNG", "RGB", (9, 9), f"{n}", thumbnail))
        for n, (label, thumbnail) in enumerate(
            zip(labels, map(bytes, scenes.round().clip(0, 255).astype(np.uint8)), strict=True)
        )
    ]
    alike = duplicates.fixed_camera(pictures, duplicates.components(pictures))
    assert alike and (alike.count, alike.classes, alike.grouped) == (13, 2, False)
    units = duplicates.units(pictures)
    assert units[0] == units[12] and len(set(units)) == len(pictures) - 1


def test_near_copies_of_a_fixed_camera_are_not_dropped():
    words = "70 of 80 .* drop_near would leave class 'ant' 6 of 40 .*; set it to keep"
    with pytest.raises(UserError, match=words):
        run(pack(frames()), POOL, test=0.2, duplicates="drop_near")


# Shortcuts


def test_a_format_a_mode_or_a_size_that_tells_the_class_is_told():
    members = {f"Ant/{n}.jpg": image(n, "JPEG") for n in range(20)}
    members |= {f"Bee/{n}.png": image(50 + n, mode="L", size=(9, 9)) for n in range(20)}
    lines = summary(run(pack(members), POOL, test=0.2))[1:]
    assert [line.split(" alone")[0] for line in lines] == [
        "ab: format",
        "ab: colour mode",
        "ab: size",
    ]
    assert lines[0].startswith(
        "ab: format alone tells ant from other classes: 100% of its images are JPEG, and 0% of the "
        "others; "
    )
    for n in range(2):
        members[f"Ant/{n}.jpg"] = image(90 + n, mode="L", size=(9, 9))
        members[f"Bee/{n}.png"] = image(n, "JPEG")
    assert len(summary(run(pack(members), POOL, test=0.2))) == 1
