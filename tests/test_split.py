"""Sources, the audit and the split stage, on small images made here."""

import hashlib
import io
import json
import os
import resource
import stat
import struct
import tracemalloc
import unicodedata
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder, folder

import stages.split
from tests.conftest import ROOT
from tests.study import in_process
from transfer import params
from transfer.cli import UserError
from transfer.images import archive, reader, scan
from transfer.images.audit import Audit
from transfer.images.audit import summary as lines
from transfer.images.names import CLASSES, Classes
from transfer.images.split import divide as split

OWN = {
    "train": {"ant": "train/ant", "bee": "train/bee"},
    "test": {"ant": "val/ant", "bee": "val/bee"},
}
POOL = {"all": {"ant": "Ant", "bee": "Bee"}}


def image(
    seed: int, kind: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (12, 9)
) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 4), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).convert("RGB").convert(mode).save(out, kind)
    return out.getvalue()


def stored(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def files(train: int = 4, test: int = 3) -> dict[str, bytes]:
    """An own split, every image different, `train` and `test` per class."""
    seeds = iter(range(10**6))
    counts = {"train": train, "val": test}
    return {
        f"set/{part}/{label}/{n}.png": image(next(seeds))
        for part, count in counts.items()
        for label in ("ant", "bee")
        for n in range(count)
    }


def pool(count: int) -> dict[str, bytes]:
    return {
        f"{label}/{n}.png": image(1000 * (label == "Bee") + n)
        for label in ("Ant", "Bee")
        for n in range(count)
    }


@pytest.fixture(autouse=True)
def study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pack(members: dict[str, bytes], path: str = "a.zip", method: int = zipfile.ZIP_DEFLATED) -> str:
    with zipfile.ZipFile(path, "w", method) as out:
        for name, data in members.items():
            out.writestr(name, data)
    return path


def unpack(members: dict[str, bytes], path: str = "a") -> str:
    for name, data in members.items():
        Path(path, name).parent.mkdir(parents=True, exist_ok=True)
        Path(path, name).write_bytes(data)
    return path


def run(source, folders=OWN, train="all", test="all", name="ab", **rules) -> dict:
    where = params.Folders(**folders) if isinstance(folders, dict) else folders
    dataset = params.Dataset(
        title="ant and bee",
        table=0,
        quadrant="none",
        source=source,
        folders=where,
        count=params.Counts(train=train, test=test),
    )
    rules = {"seed": 0, "validation": 0.0, "duplicates": "keep", "unreadable": "fail"} | rules
    rules = {"exif": "ignore", "transparency": "drop", "resplit": False} | rules
    rules |= {"icc": "ignore", "max_pixels": 10**7} | rules
    return split(name, dataset, params.Split(**rules)).model_dump(mode="json")


def summary(report: dict) -> list[str]:
    return lines(Audit.model_validate(report))


def written(name="ab") -> dict[str, bytes]:
    """<part>/<class>/<file> → its bytes."""
    root = Path("data/split", name)
    classes = Classes.read(root / CLASSES).names
    images = [path for path in root.rglob("*") if path.is_file() and path.suffix != ".json"]
    places = {path: path.relative_to(root).parts for path in images}
    return {
        f"{part}/{classes[int(number)]}/{file}": path.read_bytes()
        for path, (part, number, file) in places.items()
    }


def refused(source, *words, **settings) -> None:
    """It fails on one line with these words, and leaves what was there before, nothing more."""
    unpack({"split/ab/train/0/old.png": b"old", "../metrics/data/ab.json": b"old"}, "data")
    Classes(names=["ant", "bee"]).write("data/split/ab/classes.json")
    with pytest.raises(UserError) as error:
        run(source, **settings)
    message = str(error.value)
    assert "\n" not in message and all(word in message for word in words), message
    assert written() == {"train/ant/old.png": b"old"}
    assert Path("metrics/data/ab.json").read_bytes() == b"old"
    assert not list(Path(".").rglob("*.part"))


# Sources


@pytest.mark.parametrize("make", [pack, unpack])
def test_a_zip_and_a_folder_read_alike(make):
    members = files() | {"notes.txt": b"hello"}
    with archive.opened(make(members)) as source:
        assert source.names == sorted(members)
        assert {name: source.read(name) for name in source.names} == members


def test_folders_and_dots_in_a_zip_are_no_members():
    with archive.opened(pack({"./a//b.txt": b"1", "c/": b"", "d": b"old"})) as source:
        assert source.names == ["a/b.txt", "d"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["not there", "download"]),
        (b"", ["empty"]),
        (b"<!DOCTYPE html>", ["not a zip"]),
        ("cut", ["cut short"]),
        ("middle", ["damaged"]),
    ],
)
def test_a_source_that_is_no_whole_zip_is_refused(content, words):
    whole = Path(pack(files())).read_bytes()
    Path("a.zip").unlink()
    if content == "cut":
        content = whole[: len(whole) // 2]
    elif content == "middle":
        content = whole[:100] + whole[400:]
    if content is not None:
        Path("a.zip").write_bytes(content)
    refused("a.zip", "a.zip", *words, unreadable="skip" if words == ["damaged"] else "fail")


@pytest.mark.parametrize("name", ["../x.png", "a/../../x.png", "/x.png", "C:/x.png", "..\\x.png"])
def test_a_path_that_leaves_the_folder_is_refused(name):
    refused(pack(files() | {name: b"1"}), repr(name), "could leave its folder")


def test_backslashes_in_a_zip_divide_folders_and_a_colon_is_a_letter():
    with archive.opened(pack({"set\\a\\0.png": b"1", "a: b/0.png": b"2"})) as source:
        assert source.names == ["a: b/0.png", "set/a/0.png"]
        assert source.read("set/a/0.png") == b"1"


def test_a_path_with_a_nul_is_refused():
    whole = Path(pack(files() | {"x|y.png": b""})).read_bytes()
    Path("a.zip").write_bytes(whole.replace(b"x|y", b"x\0y"))
    refused("a.zip", r"'x\x00y.png'", "could leave its folder")


@pytest.mark.parametrize(("kind", "word"), [(stat.S_IFLNK, "a link"), (stat.S_IFIFO, "special")])
def test_a_link_in_a_zip_is_refused(kind, word):
    info = zipfile.ZipInfo("set/train/ant/link.png")
    info.external_attr = (kind | 0o777) << 16
    pack(files())
    with zipfile.ZipFile("a.zip", "a") as out:
        out.writestr(info, "/etc/passwd")
    refused("a.zip", "link.png", word)


def test_what_is_no_file_in_a_folder_is_refused():
    unpack(files())
    os.mkfifo("a/set/train/ant/odd.png")
    refused("a", "odd.png", "put the file itself")


def test_the_source_itself_may_be_a_link():
    os.symlink(pack(files()), "link.zip")
    assert run("link.zip")["split"]["images"]["train"] == {"ant": 4, "bee": 4}


def patch(path: str, name: str, **fields: int) -> None:
    """Overwrite flags, method, packed size or size of a member in a zip's central directory."""
    data = bytearray(Path(path).read_bytes())
    at = data.rindex(name.encode()) - 46
    assert data[at : at + 4] == b"PK\x01\x02"
    for field, value in fields.items():
        offset = {"flags": 8, "method": 10, "packed": 20, "size": 24}[field]
        struct.pack_into("<L" if offset > 10 else "<H", data, at + offset, value)
    Path(path).write_bytes(data)


def test_an_encrypted_archive_is_refused():
    patch(pack(files()), "set/val/bee/0.png", flags=1)
    refused("a.zip", "val/bee/0.png", "encrypted")


def test_a_member_with_an_absurd_ratio_is_refused():
    # a blank bitmap as dense as deflate can make it, and far larger than one in a data set
    refused(pack(files() | {"x.bmp": bytes(64 << 20)}), "x.bmp", "64 MiB", "bomb")


def test_an_absurd_total_is_refused():
    pack(files() | {f"{n:02}.bin": b"" for n in range(30)})
    for n in range(30):
        patch("a.zip", f"{n:02}.bin", packed=2**32 - 2, size=2**32 - 2)
    refused("a.zip", "120 GiB", "over 100 GiB")


@pytest.mark.parametrize(("size", "bound"), [(100, 1 << 20), (80 << 20, 32 << 20)])
def test_a_read_is_bounded_by_the_claimed_size_and_the_true_one(size, bound):
    data = bytes(8 << 20) + os.urandom(100_000)
    patch(pack({"x.bin": data}), "x.bin", size=size)
    with archive.opened("a.zip") as source:
        tracemalloc.start()
        with pytest.raises(archive.Unreadable):
            source.read("x.bin")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < bound


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_method_that_inflates_without_bound_is_not_read(method):
    refused(pack(files(), method=method), "compression method")


def test_a_member_too_large_for_an_image_is_not_read():
    name = "set/val/ant/9.png"
    patch(pack(files() | {name: b""}), name, packed=2**30 + 1, size=2**30 + 1)
    refused("a.zip", name, "over 1 GiB")
    os.truncate(Path(unpack(files() | {name: b""}), name), 2**30 + 1)
    refused("a", name, "over 1 GiB")


# Choosing


def test_the_split_loads_with_imagefolder_and_bytes_are_unchanged():
    members = files(train=5, test=2)
    report = run(pack(members))
    loaded = {part: ImageFolder(f"data/split/ab/{part}") for part in ("train", "test")}
    assert {part: len(data) for part, data in loaded.items()} == {"train": 10, "test": 4}
    assert loaded["train"].classes == ["0", "1"] and loaded["train"][0][0].mode == "RGB"
    assert report["split"]["images"] == {"train": dict(ant=5, bee=5), "test": dict(ant=2, bee=2)}
    assert sorted(written().values()) == sorted(members.values())
    assert report == json.loads(Path("metrics/data/ab.json").read_text())
    assert summary(report) == ["ab: train: 5 ant, 5 bee; test: 2 ant, 2 bee; left out: none"]


def test_all_that_imagefolder_reads_is_read():
    assert set(folder.IMG_EXTENSIONS) < set(reader.EXTENSIONS)


def test_a_class_is_a_folders_end_with_all_below_it():
    members = files() | {
        "set/train/ant/more/0.png": image(90),
        "set/train/more ant/0.png": image(91),
        "set/val/ants/0.png": image(92),
    }
    report = run(unpack(members))
    assert report["split"]["images"]["train"]["ant"] == 5
    assert {"train/ant/0.png", "train/ant/more-0.png"} < set(written())
    assert report["left_out"]["elsewhere"]["count"] == 2


@pytest.mark.parametrize(
    ("extra", "folders", "words"),
    [
        ({"other/train/ant/0.png": b""}, OWN, ["several", "'other/train/ant'", "'set/train/ant'"]),
        ({"set/train/ant/train/ant/0.png": b""}, OWN, ["several folders end in 'train/ant'"]),
        (
            {},
            OWN | {"train": dict(ant="train/Ant", bee="train/bee")},
            ["'train/Ant'", "'set/train"],
        ),
        ({"none/ant/.DS_Store": b""}, {"all": dict(ant="none/ant", bee="b")}, ["none/ant"]),
        ({"none/ant/": b""}, {"all": dict(ant="none/ant", bee="b")}, ["none/ant"]),
        ({}, {"all": dict(ant="train/ant", bee="train")}, ["overlap", "set/train/ant/"]),
        ({}, {"all": dict(ant="train/ant", bee="train/ant")}, ["overlap"]),
        ({f"{n}/x": b"" for n in range(30)}, {"all": dict(ant="n", bee="m")}, ["and 17 more"]),
    ],
)
def test_a_folder_that_is_missing_empty_or_ambiguous_is_refused(extra, folders, words):
    refused(pack(files() | extra), "a.zip", *words, folders=folders, test=1)


def test_hidden_files_are_left_out():
    names = ["set/.DS_Store", "__MACOSX/set/train/ant/0.png"]
    hidden = ("_DS_Store", "._0.png", "Thumbs.db", "desktop.ini", ".ipynb_checkpoints/0.png")
    names += [f"set/train/ant/{name}" for name in hidden]
    report = run(pack(files() | dict.fromkeys(names, image(99))))
    assert report["left_out"]["hidden"]["count"] == len(names)
    assert sorted(report["left_out"]["hidden"]["names"]) == sorted(names)
    assert report["archive"]["train"]["ant"] == 4


def test_what_imagefolder_would_not_read_is_left_out():
    gif = image(99, "GIF", "P")
    gifs = {"x.gif": gif, "x.jpg": gif}
    others = {"y.gif": b"no image", "labels.csv": b"a,b", "README": b""}
    members = {f"set/train/ant/{name}": data for name, data in (gifs | others).items()}
    report = run(pack(files() | members))
    for reason, names in {"gif": gifs, "other": others}.items():
        left = report["left_out"][reason]
        assert sorted(left["names"]) == sorted(f"set/train/ant/{name}" for name in names)
    assert report["split"]["images"]["train"]["ant"] == 4


def bomb() -> bytes:
    data = bytearray(image(1, "BMP"))
    struct.pack_into("<ll", data, 18, 10_000, 10_000)  # above the warning, below the error
    return bytes(data)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("x.jpg", b"no image", "not an image"),
        ("x.PNG", b"", "empty"),
        ("x.jpg", image(1, "JPEG", size=(60, 60))[:-400], "truncated"),
        ("x", image(1, "JPEG", size=(60, 60))[:-400], "truncated"),
        ("x.png", image(1, size=(60, 60))[:-400], "truncated"),
        ("x.bmp", bomb(), "more than split.max_pixels: 10000000"),
    ],
)
def test_an_unreadable_image_fails_or_is_skipped(name, data, words):
    path = f"set/train/ant/{name}"
    source = pack(files() | {path: data})
    refused(source, "a.zip", repr(path), words, "split.unreadable: skip")
    report = run(source, unreadable="skip")
    (shown,) = report["left_out"]["unreadable"]["names"]
    assert shown.startswith(path) and words in shown and "\n" not in shown
    assert report["split"]["images"]["train"]["ant"] == 4


def test_a_damaged_member_is_unreadable():
    source = pack(files(), method=zipfile.ZIP_STORED)
    data = bytearray(Path(source).read_bytes())
    data[data.index(b"IDAT") + 20] ^= 255
    Path(source).write_bytes(data)
    refused(source, "set/train/ant/0.png", "CRC")
    assert run(source, unreadable="skip")["left_out"]["unreadable"]["count"] == 1


def test_a_wrong_extension_is_corrected():
    members, expected = {}, {}
    for kind in set(reader.READ) - {"AVIF", "HEIF"}:
        own = reader.FORMATS[kind][-1]
        for n, extension in enumerate((own, own.upper(), ".png", ".jpg", ".jfif", "")):
            name, data = f"x y ({kind}{n})", image(len(members) + 500, kind)
            members[f"set/train/ant/{name}{extension}"] = data
            right = extension.lower() in reader.FORMATS[kind]
            kept = right and extension.lower() != ".jfif"  # which ImageFolder does not read
            expected[f"train/ant/{name}{extension if kept else reader.FORMATS[kind][0]}"] = data
    run(pack(files() | members))
    assert expected.items() < written().items()
    assert len(ImageFolder("data/split/ab/train")) == 8 + len(expected)


def test_a_cameras_jpeg_of_several_pictures_is_a_jpeg():
    out = io.BytesIO()
    pictures = [Image.open(io.BytesIO(image(n))) for n in (98, 99)]
    pictures[0].save(out, "MPO", save_all=True, append_images=pictures[1:])
    assert scan.decode(out.getvalue()).format == "JPEG"


def test_one_name_for_two_members_becomes_two():
    clash = ["x.png", "x.jpg", "X.PNG", "sub/x.png", "sub-x.png", "\u00e9.png", "e\u0301.png"]
    long = ["l" * 180 + "é" * 20 + f"{n}.png" for n in range(2)]
    odd = ["a:b?.png", "line\nbreak.png"]
    members = {f"set/train/ant/{n}": image(i) for i, n in enumerate(clash + long + odd, 50)}
    run(pack(files() | members))
    first = written()
    run(pack(dict(reversed((files() | members).items()))))
    assert first == written()
    names = {name[10:] for name in first if name.startswith("train/ant/")}
    assert len({unicodedata.normalize("NFC", name).casefold() for name in names}) == 15
    assert {"X.PNG", "x-2.png", "x-3.png", "sub-x.png", "sub-x-2.png", "a_b_.png"} < names
    assert "line_break.png" in names and max(len(name.encode()) for name in names) <= 206


# Duplicates


def copies() -> dict[str, bytes]:
    """Within train: ant 1. Within test: bee 1. Across: ant 1 (by pixels, in another format).
    In two classes: one image, in train's ant and test's bee."""
    return files() | {
        "set/train/ant/copy.png": image(0),
        "set/val/bee/copy.bmp": image(11, "BMP"),
        "set/val/ant/leak.tif": image(1, "TIFF"),
        "set/train/ant/both.png": image(77),
        "set/val/bee/both.png": image(77),
    }


def test_duplicates_are_counted_by_pixels():
    report = run(pack(copies()))
    assert report["split"]["duplicates"] == {"across": {"ant": 1, "bee": 1}, "between_classes": 2}
    assert report["leaked"] == [
        ["ant/leak.tif", "train/ant/1.png"],
        ["bee/both.png", "train/ant/both.png"],
    ]
    (line, _) = summary(report)[1:]
    assert line.startswith("ab: 1 of 4 test images of ant are in training too; split.duplicates: ")


def test_dropping_leaves_no_duplicate_and_the_test_set_whole():
    report = run(pack(copies()), duplicates="drop")
    kept = report["split"]["duplicates"]
    assert kept == {"across": {"ant": 0, "bee": 0}, "between_classes": 0}
    assert report["dropped"] == {"train": dict(ant=3, bee=0), "test": dict(ant=0, bee=2)}
    assert summary(report)[0].endswith("left out: 5 copies")
    names = set(written())
    assert "test/ant/leak.tif" in names and "train/ant/1.png" not in names
    assert not [name for name in names if "both" in name or "copy" in name]


def test_a_pool_counts_what_the_draw_made_of_its_copies():
    members = pool(6) | {f"Ant/copy{n}.png": image(n) for n in range(6)}
    report = run(pack(members), POOL, test=3)
    assert 1 <= report["split"]["duplicates"]["across"]["ant"] <= 6
    report = run(pack(members), POOL, test=3, duplicates="drop")
    assert report["dropped"] == {"all": {"ant": 6, "bee": 0}}
    assert report["split"]["images"] == {"train": dict(ant=3, bee=3), "test": dict(ant=3, bee=3)}


def test_alpha_is_no_difference_but_size_is():
    out = io.BytesIO()
    Image.open(io.BytesIO(image(0))).convert("RGBA").save(out, "PNG")
    assert scan.decode(out.getvalue()).digest == scan.decode(image(0)).digest
    tall, wide = (scan.decode(stored(Image.new("RGB", size))) for size in ((4, 9), (9, 4)))
    assert tall.digest != wide.digest


# Drawing


@pytest.mark.parametrize(
    ("folders", "train", "test", "expected"),
    [
        (OWN, 3, 2, (3, 2)),
        (OWN, "all", "all", (20, 20)),
        (OWN, 0.29, 0.01, (5, 1)),
        (POOL, 12, 8, (12, 8)),
        (POOL, 0.7, 0.3, (14, 6)),
        (POOL, "all", 8, (12, 8)),
        (POOL, 15, "all", (15, 5)),
        (POOL, 0.55, 0.45, (11, 9)),
    ],
)
def test_counts(folders, train, test, expected):
    report = run(pack(pool(20) if folders is POOL else files(20, 20)), folders, train, test)
    for part, count in zip(("train", "test"), expected, strict=True):
        assert report["split"]["images"][part] == {"ant": count, "bee": count}
    assert len(set(written().values())) == 2 * sum(expected)


def test_a_fraction_is_not_cut_by_rounding():
    assert int(0.58 * 50) == 28
    report = run(pack(files(50, 1)), train=0.58)
    assert report["split"]["images"]["train"] == {"ant": 29, "bee": 29}


@pytest.mark.parametrize(
    ("folders", "train", "test", "words"),
    [
        (OWN, 5, "all", ["ab.count.train", "'ant'", "4 images", "5 are asked", "set 4 or fewer"]),
        (OWN, "all", 4, ["ab.count.test", "3 images"]),
        (POOL, 5, 6, ["ab.count.train", "4 images left", "5 are asked"]),
        (POOL, 5, 11, ["ab.count.test", "10 images"]),
        (POOL, 1, 10, ["ab.count.train", "none left", "lower the other"]),
        (POOL, "all", 10, ["ab.count.train", "none left"]),
    ],
)
def test_too_few_images_are_refused(folders, train, test, words):
    members = pool(10) if folders is POOL else files()
    refused(pack(members), "params.yaml", *words, folders=folders, train=train, test=test)


def test_a_class_without_a_usable_image_is_refused():
    members = {name: data for name, data in files().items() if "train/ant" not in name}
    refused(pack(members | {"set/train/ant/x.gif": image(1, "GIF", "P")}), "'ant'", "has no image")


@pytest.mark.parametrize(("folders", "members"), [(OWN, files(20, 20)), (POOL, pool(20))])
def test_the_draw_is_seeded_and_nested(folders, members):
    def draw(part, **settings):
        run(pack(members), folders, **({"train": 5, "test": 5} | settings))
        return {name for name in written() if name.startswith(part)}

    small = draw("train")
    assert small == draw("train") != draw("train", seed=1)
    assert small < draw("train", train=9)
    assert draw("test") < draw("test", test=9)
    ants = {name.rsplit("/")[-1] for name in small if "/ant/" in name}
    assert ants != {name.rsplit("/")[-1] for name in small if "/bee/" in name}
    assert ants != {name.rsplit("/")[-1] for name in draw("test") if "/ant/" in name}


def test_validation_is_a_share_of_each_class_and_leaves_test_alone():
    source = pack(files(train=10))
    without, whole = run(source), written()
    report = run(source, validation=0.25)
    assert report["split"]["images"] == {
        "train": dict(ant=8, bee=8),
        "validation": dict(ant=2, bee=2),
        "test": without["split"]["images"]["test"],
    }
    moved = {name.replace("validation/", "train/"): pixels for name, pixels in written().items()}
    assert moved == whole
    assert "validation: 2 ant, 2 bee" in summary(report)[0]
    assert run(source, validation=0.01)["split"]["images"]["validation"] == dict(ant=1, bee=1)


def test_copies_stay_on_one_side_of_validation_and_a_leak_from_either_is_named():
    members = files(train=8)
    for n in range(4):
        members[f"set/train/ant/copy-{n}.png"] = members[f"set/train/ant/{n}.png"]
    for n in range(3):
        members[f"set/val/ant/{n}.png"] = members[f"set/train/ant/{n + 4}.png"]
    for seed in range(6):
        report = run(pack(members), validation=0.5, seed=seed)
        held = {data for name, data in written().items() if name.startswith("validation/")}
        assert held.isdisjoint(d for name, d in written().items() if name.startswith("train/"))
        assert report["split"]["duplicates"]["across"] == dict(ant=3, bee=0)
        pairs = report["leaked"]
        assert [test for test, _ in pairs] == [f"ant/{n}.png" for n in range(3)]
        assert all(written()[f"test/{test}"] == written()[duplicate] for test, duplicate in pairs)


def test_groups_that_share_a_copy_stay_on_one_side_of_validation():
    members = patients({"Ant": [2] * 8, "Bee": [2] * 8})
    for label in ("Ant", "Bee"):
        for n in range(0, 8, 2):
            members[f"{label}/p{n}/copy.png"] = members[f"{label}/p{n + 1}/0.png"]
    for seed in range(10):
        run(pack(members), GROUPED, test=0.1, validation=0.3, seed=seed)
        held = {data for name, data in written().items() if name.startswith("validation/")}
        left = {data for name, data in written().items() if name.startswith("train/")}
        assert held and left and held.isdisjoint(left)
        parts = sides()
        assert parts["train"].isdisjoint(parts["validation"])


def test_validation_that_takes_a_whole_class_is_refused():
    members = files(train=3)
    for n in range(3):
        members[f"set/train/ant/{n}.png"] = members["set/train/ant/0.png"]
    refused(pack(members), "split.validation: 0.5", "no training image", "'ant'", validation=0.5)


def test_the_draw_knows_neither_the_archives_order_nor_the_other_classes():
    run(pack(pool(20)), POOL, 5, 5)
    before = written()
    run(pack(dict(reversed(pool(20).items()))), POOL, 5, 5)
    assert written() == before
    run(unpack(pool(20)), POOL, 5, 5, name="cd")
    assert written("cd").keys() != before.keys()
    run("a", POOL, 5, 5)
    assert written() == before
    more = pool(20) | {f"Bee/more{n}.png": image(5000 + n) for n in range(9)}
    run(pack(more), POOL, 5, 5)
    ants = {name for name in before if "/ant/" in name}
    assert ants == {name for name in written() if "/ant/" in name} and written() != before


# Groups


def patients(counts: dict[str, list[int]]) -> dict[str, bytes]:
    """label → the number of images of each patient."""
    seeds = iter(range(10**6))
    return {
        f"{label}/p{patient}/{n}.png": image(next(seeds))
        for label, its in counts.items()
        for patient, count in enumerate(its)
        for n in range(count)
    }


GROUPED = {"all": {"ant": "Ant/*", "bee": "Bee/*"}}


def sides() -> dict[str, set[str]]:
    """part → patients with an image in it, by the names that files are written under."""
    found: dict[str, set[str]] = {}
    for name in written():
        part, _, file = name.split("/")
        found.setdefault(part, set()).add(file.split("-")[0])
    return found


def test_a_group_stays_on_one_side_of_every_division():
    members = patients({"Ant": [5] * 8, "Bee": [3, 9, 2, 6, 5, 5, 5, 5]})
    for seed in range(5):
        report = run(pack(members), GROUPED, test=0.25, validation=0.25, seed=seed)
        parts = sides()
        assert len(parts) == 3 and sum(map(len, parts.values())) == 8
        counts = report["split"]["images"]
        assert sum(sum(its.values()) for its in counts.values()) == 80
        assert all(count > 0 for its in counts.values() for count in its.values())
        assert report["shared"]["count"] == 0


def test_a_group_of_two_classes_is_one_and_may_leave_a_class_without_images():
    both = {f"Ant/p{n}/{n}.png": image(n) for n in range(9)}
    both |= {f"Bee/p{n}/{n}.png": image(50 + n) for n in range(9)}
    run(pack(both), GROUPED, test=0.3)
    found = sides()
    assert len(found["train"]) + len(found["test"]) == 9
    few = {name: data for name, data in both.items() if "Bee" not in name}
    few |= {"Bee/p0/0.png": image(90), "Bee/p1/0.png": image(91)}
    words = ["no image of class 'bee' is left for test", "try another split.seed"]
    for seed in range(9):
        try:
            run(pack(few), GROUPED, test=0.3, seed=seed)
        except UserError as error:
            assert all(word in str(error) for word in words)
            break
    else:
        pytest.fail("some seed draws both patients of bee for training")


def test_a_part_far_from_its_share_is_told():
    report = run(pack(patients({"Ant": [30, 30, 30], "Bee": [9] * 10})), GROUPED, test=0.1)
    assert report["split"]["images"]["test"] == {"ant": 30, "bee": 9}
    (line,) = (line for line in summary(report) if "share" in line)
    assert line == (
        "ab: test has 30 of 90 images of ant, where a share of 0.1 was asked for: groups and "
        "copies of an image stay together"
    )


def test_a_group_that_the_source_itself_divides_is_told():
    members = patients({"train/ant": [2, 2], "train/bee": [2, 2], "val/ant": [1], "val/bee": [1]})
    folders = {part: {k: f"{v}/*" for k, v in its.items()} for part, its in OWN.items()}
    lines = summary(run(pack(members), folders))
    assert "ab: 1 groups are in test and in training too: p0" in lines


def test_the_sources_own_validation_part_is_taken():
    folders = OWN | {"validation": {"ant": "more/ant", "bee": "more/bee"}}
    more = {f"more/{label}/{n}.png": image(500 + n) for label in ("ant", "bee") for n in range(2)}
    report = run(pack(files() | more), folders, validation=0.5)
    assert {part: its["ant"] for part, its in report["split"]["images"].items()} == {
        "train": 4,
        "validation": 2,
        "test": 3,
    }


def test_a_table_divides_as_it_says():
    members = {f"images/{n}.png": image(n) for n in range(8)}
    members["labels.csv"] = b"file,label,split,group\n" + b"".join(
        f"{n}.png,{'ant' if n % 2 else 'bee'},{'train' if n < 6 else 'val'},{n // 2}\n".encode()
        for n in range(8)
    )
    names = {"table": "labels.csv", "file": "file", "label": "label", "split": "split"}
    where = params.Table(**names, group="group", classes=["ant", "bee"])
    report = run(pack(members), where, validation=0.3)
    assert report["split"]["images"] == {
        "train": {"ant": 2, "bee": 2},
        "validation": {"ant": 1, "bee": 1},
        "test": {"ant": 1, "bee": 1},
    }
    groups = {(name.split("/")[0], int(name[-5]) // 2) for name in written()}
    assert Counter(part for part, _ in groups) == {"train": 2, "validation": 1, "test": 1}


def test_a_folder_that_belongs_to_no_class_is_named():
    extra = {f"set/train/wasp/{n}.png": image(700 + n) for n in range(20)}
    (line,) = summary(run(unpack(files() | extra)))[1:]
    assert line == (
        "ab: no class takes set/train/wasp (20 images); if one should, add it to "
        "datasets.ab.folders, or run `python -m transfer own a` again"
    )


# The stage


def stage(*words: str) -> tuple[int, str, str]:
    return in_process(Path("."), stages.split.main, *words)


@pytest.fixture
def report_params(study):
    text = (ROOT / "params.yaml").read_text()
    (study / "params.yaml").write_text(text.replace("data/raw/ants_bees.zip", "a.zip"))
    rename = {"train/ant": "train/ants", "train/bee": "train/bees", "val/ant": "val/ants"}
    rename |= {"val/bee": "val/bees"}
    return {
        name.replace(old, new): data
        for name, data in files().items()
        for old, new in rename.items()
        if old in name
    }


def test_the_stage_writes_and_says_what_it_did(report_params):
    pack(report_params)
    said = "ants_bees: train: 4 ants, 4 bees; test: 3 ants, 3 bees; left out: none\n"
    assert stage("ants_bees") == (0, said, "")
    assert len(written("ants_bees")) == 14
    assert json.loads(Path("metrics/data/ants_bees.json").read_text())["rules"]["seed"] == 0


def test_a_disk_that_refuses_a_write_costs_nothing_that_was_there(report_params):
    pack(report_params)
    stage("ants_bees")
    before = written("ants_bees")
    pack(report_params | {"set/val/bees/9.png": image(99, size=(90, 90))})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        status, _, err = stage("ants_bees")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert status == 1 and "ulimit" in err and written("ants_bees") == before
    assert not list(Path(".").rglob("*.part"))


def test_an_unknown_data_set_is_refused(report_params):
    status, _, err = stage("ants")
    assert status == 1 and "datasets has no 'ants'" in err and err.count("\n") == 1


def test_the_hash_is_of_size_and_rgb_pixels():
    found = scan.decode(image(3))
    with Image.open(io.BytesIO(image(3))) as opened:
        pixels = np.asarray(opened.convert("RGB"))
    height, width, _ = pixels.shape
    expected = hashlib.sha256(f"{width}x{height}:".encode() + pixels.tobytes())
    assert (found.format, found.mode, found.size) == ("PNG", "RGB", (width, height))
    assert found.digest == expected.hexdigest()
