"""From a folder of one's own images to settings that hold."""

import io
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.study import in_process
from transfer import params
from transfer.cli import UserError
from transfer.images import archive, audit, reader, scan, split
from transfer.images import layout as layouts
from transfer.images.table import Asked
from transfer.own import costs
from transfer.own import enter as own

AB = ("ants", "bees")


def picture(kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (2, 2)).save(out, kind)
    return out.getvalue()


PNG, GIF = picture(), picture("GIF")


def laid_out(folder: Path, *names: str, content: bytes = PNG, **texts: str) -> Path:
    """Files, those that are named as images with that content."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        known = reader.kind(name) or not archive.ending(name)
        (folder / name).write_bytes(content if known else b"x")
    for name, text in texts.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def files(*folders: str, count: int = 3, suffix: str = ".jpg") -> list[str]:
    return [f"{folder}/{n}{suffix}" for folder in folders for n in range(count)]


def layout(path: Path, level=None, take=(), **asked) -> layouts.Reading:
    with archive.opened(path) as source:
        return layouts.read(source, layouts.Choice(level, take, Asked(**asked)))


def aside(reading: layouts.Reading) -> list[str]:
    return list(map(str, reading.aside))


def parts(*names: str, classes=AB) -> list[str]:
    return files(*(f"{name}/{label}" for name in names for label in classes))


UNDERSTOOD = {
    # what is there: part → (folder of ants, images of it)
    "classes at the top": (files(*AB), {"all": "ants"}),
    "deep inside": (files("x/y/ants", "x/y/bees"), {"all": "x/y/ants"}),
    "train and val": (parts("x/Train", "x/val"), {"train": "x/Train/ants", "test": "x/val/ants"}),
    "three parts": (
        parts("train", "val", "test"),
        {"train": "train/ants", "validation": "val/ants", "test": "test/ants"},
    ),
    "valid": (
        parts("Training", "valid", "Testing"),
        {"train": "Training/ants", "validation": "valid/ants", "test": "Testing/ants"},
    ),
    "validation": (
        parts("01_train", "02_validation", "03_test"),
        {
            "train": "01_train/ants",
            "validation": "02_validation/ants",
            "test": "03_test/ants",
        },
    ),
    "sets": (
        parts("training_set/training_set", "test_set/test_set"),
        {"train": "training_set/training_set/ants", "test": "test_set/test_set/ants"},
    ),
    "dev and eval": (parts("dev", "eval"), {"train": "dev/ants", "test": "eval/ants"}),
    "train_val": (parts("train_val", "test"), {"train": "train_val/ants", "test": "test/ants"}),
    "train alone": (parts("train"), {"all": "train/ants"}),
    "unlabelled test": (parts("train") + files("test"), {"all": "train/ants"}),
    "patients": (
        files(*(f"{label}/patient_{n}" for label in AB for n in range(4))),
        {"all": "ants/*"},
    ),
    "sessions": (
        files(*(f"session{n}/{label}" for label in AB for n in range(4))),
        {"all": "*/ants"},
    ),
    "patients in parts": (
        parts("train/ants/p1", "train/bees/p2", "test/ants/p3", "test/bees/p4", classes=[""]),
        {"train": "train/ants/*", "test": "test/ants/*"},
    ),
    "a folder in each class": (files("ants/images", "bees/images"), {"all": "ants"}),
    "some in a folder more": (files("ants", "ants/young", "bees"), {"all": "ants"}),
    "masks": (parts("images", "masks"), {"all": "images/ants"}),
    "masks in classes": (
        files(*(f"{label}/{kind}" for label in AB for kind in ("images", "masks"))),
        {"all": "ants/images"},
    ),
    "thumbs": (files(*AB, "thumbs"), {"all": "ants"}),
    "jfif": (files(*AB, suffix=".jfif"), {"all": "ants"}),
    "a part's word in a name": (
        parts("seg_train/seg_train", "seg_test/seg_test") + files("seg_pred/seg_pred"),
        {"train": "seg_train/seg_train/ants", "test": "seg_test/seg_test/ants"},
    ),
    "test images of no class": (parts("train") + files("test/unknown"), {"all": "train/ants"}),
    "parts in classes": (
        files(*(f"{label}/{part}" for label in AB for part in ("train", "test"))),
        {"train": "ants/train", "test": "ants/test"},
    ),
    "segmentations": (parts("images", "segmentations"), {"all": "images/ants"}),
    "masks by their names": (parts("images", "truth"), {"all": "images/ants"}),
    "a copy of all": (files(*AB) + parts("all_of_it"), {"all": "ants"}),
    "a copy deeper": (files(*AB) + parts("set/images"), {"all": "ants"}),
    "no endings": ([f"{label}/{n}" for label in AB for n in range(3)], {"all": "ants"}),
    "endings of addresses": (files(*AB, suffix=".jpg?w=640"), {"all": "ants"}),
    "a NAS": (files(*AB, "@eaDir", "ants/@eaDir/0.jpg"), {"all": "ants"}),
    "vehicles": (files("ants", "train", "test"), {"all": "ants"}),
}


@pytest.mark.parametrize("case", UNDERSTOOD)
def test_what_people_have_is_understood(tmp_path, case):
    names, expected = UNDERSTOOD[case]
    found = layout(laid_out(tmp_path, *names))
    assert {part: its["ants"] for part, its in found.folders.items()} == expected
    assert all(set(its) == set(found.images[part]) for part, its in found.folders.items())
    if case != "vehicles":
        assert all(set(its) == set(AB) for its in found.folders.values())
    read, counted = read_by_split(tmp_path, found.folders), found.images
    assert {part: its["ants"] for part, its in read.items()} == {
        part: its["ants"] for part, its in counted.items()
    }


def read_by_split(folder: Path, folders: dict) -> dict[str, dict[str, int]]:
    """What the stage split makes of the settings."""
    where = params.Folders(**folders)
    with archive.opened(folder) as source:
        members, _ = split.files_of_classes(source, where)
    pictures = [scan.Picture(m.part, m.label, m.path, m.path, None) for m in members]
    return audit.tally(pictures, pictures)


def test_groups_are_counted_and_what_is_left_aside_is_named(tmp_path):
    names = [*UNDERSTOOD["patients"][0], *files("thumbs"), "notes.txt", "top.png", "ants/.x/1.jpg"]
    found = layout(laid_out(tmp_path, *names))
    assert (found.groups, found.images) == (4, {"all": {"ants": 12, "bees": 12}})
    assert aside(found) == [
        "files of the system: 1 file (1 .jpg): hidden, or made by a program for itself",
        "the top: 2 files (1 .txt, 1 .png): in no class's folder",
        "thumbs: 3 files (3 .jpg): by its name, no images of a class; --take thumbs takes it for "
        "one",
    ]
    found = layout(laid_out(tmp_path / "x", *UNDERSTOOD["unlabelled test"][0]))
    assert aside(found) == [
        "test: 3 files (3 .jpg): images without a class; `predict` can classify them"
    ]


def test_classes_deep_inside_a_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        for name in ("a/b/cat/1.jpg", "a/b/dog/1.jpg", "__MACOSX/a/b/cat/1.jpg"):
            file.writestr(name, PNG)
    assert layout(tmp_path / "x.zip").folders == {"all": {"cat": "a/b/cat", "dog": "a/b/dog"}}


def test_masks_are_a_class_beside_no_mask(tmp_path):
    found = layout(laid_out(tmp_path, *files("mask", "no_mask", "other")))
    assert list(found.folders["all"]) == ["mask", "no_mask", "other"]


def test_what_can_be_read_in_two_ways_is_asked(tmp_path):
    laid_out(tmp_path, *files("cat/persian", "cat/siamese", "dog/poodle"))
    words = "two levels, cat, dog and in them persian, poodle, siamese; are the classes the outer"
    with pytest.raises(UserError, match=words) as caught:
        layout(tmp_path)
    assert "\n" not in str(caught.value)
    assert layout(tmp_path, "outer").folders == {"all": {"cat": "cat/*", "dog": "dog/*"}}
    found = layout(tmp_path, "inner").folders["all"]
    assert found == {"persian": "cat/persian", "poodle": "dog/poodle", "siamese": "cat/siamese"}


@pytest.mark.parametrize(
    "names,words",
    [
        (["readme.txt"], "there is no image in it"),
        (
            ["1.jpg", "2.jpg"],
            "takes two classes or more, and none was found; give each class a fol",
        ),
        (["cat/1.jpg"], "'cat' was found"),
        (parts("train") + files("test/ants"), "class 'bees' of train is missing in test; add it"),
        (
            files("train/Ants", "train/bees", "test/ants", "test/bees"),
            "'Ants' of train is called 'an",
        ),
        (files("Ants", "ants"), "'Ants' and 'ants' differ by case"),
        (parts("train", "training"), "'train' and 'training' both name the train part"),
        (files("train", "test"), "no folder is a class"),
    ],
)
def test_a_layout_that_says_no_classes_is_refused(tmp_path, names, words):
    with pytest.raises(UserError, match=words) as caught:
        layout(laid_out(tmp_path, *names))
    assert "\n" not in str(caught.value)


def test_no_class_of_images_that_cannot_be_read_vanishes(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "HEIF", False)
    laid_out(tmp_path, *files(*AB), *files("bees", suffix=".HEIC"))
    found = layout(tmp_path)
    assert found.images["all"]["bees"] == 6
    assert found.notes == ["all/bees: 3 of 6 files (HEIC; pip install pillow-heif)"]
    laid_out(tmp_path, *files("wasps", count=12, suffix=".heif"))
    with pytest.raises(UserError, match="wasps: 12 files, none readable .HEIC; pip install pillow"):
        layout(tmp_path)


NOT_READ = {
    "JPEG 2000": (
        ".jp2",
        b"\0\0\0\x0cjP  ",
        "3 files beside the folders of classes, none readable",
    ),
    "GIF": (".gif", GIF, "GIF, which is not read"),
    "no ending": ("", b"DICM", "'c/0': not an image of a kind that is read"),
    "DICOM": (".dcm", b"DICM", "none readable"),
    "films": (".mp4", b"mp4", "none readable"),
    "GIF by another name": (".jpg", GIF, "c: 3 files, none readable (GIF, which is not read"),
    "empty": (".jpg", b"", "c: 3 files, none readable (empty)"),
    "Git LFS": (".png", b"version https://git-lfs.github.com/spec/v1", "run `git lfs pull`"),
}


@pytest.mark.parametrize("kind", NOT_READ)
def test_a_class_of_which_nothing_can_be_read_stops_it(tmp_path, kind):
    suffix, content, words = NOT_READ[kind]
    laid_out(tmp_path, *files(*AB))
    for name in files("c", suffix=suffix):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        layout(tmp_path)
    assert "\n" not in str(caught.value)


def test_every_folder_and_ending_that_is_not_taken_is_listed(tmp_path):
    more = ["ants/a.gif", "ants/b.xml", "notes/x/a.txt", "notes/b.md", "labels.xlsx", "Thumbs.db"]
    found = layout(laid_out(tmp_path, *files(*AB, "@eaDir"), *more))
    assert found.images == {"all": {"ants": 3, "bees": 3}}
    assert aside(found) == [
        "files of the system: 4 files (3 .jpg, 1 .db): hidden, or made by a program for itself",
        "ants: 2 files (1 .gif, 1 .xml): not named as an image that is read",
        "the top: 1 file (1 .xlsx): in no class's folder",
        "notes: 2 files (1 .md, 1 .txt): in no class's folder",
    ]


def test_a_class_called_mask_may_be_taken(tmp_path):
    laid_out(tmp_path, *files(*AB, "mask"))
    assert list(layout(tmp_path).folders["all"]) == list(AB)
    assert list(layout(tmp_path, take=("mask",)).folders["all"]) == [*AB, "mask"]


def test_more_images_of_the_same_classes_are_no_class(tmp_path):
    more = files("more/ants", "more/bees", "more/wasps")  # no copy: a class would be lost
    with pytest.raises(UserError, match="more has folders that are called as those beside it"):
        layout(laid_out(tmp_path / "x", *files(*AB), *more))
    more = [f"more/{label}/x{n}.jpg" for label in AB for n in range(3)]
    with pytest.raises(UserError, match="more has folders that are called as those beside it"):
        layout(laid_out(tmp_path / "y", *files(*AB), *more))


def test_groups_of_folders_may_be_ignored(tmp_path):
    laid_out(tmp_path, *UNDERSTOOD["patients"][0])
    found = layout(tmp_path, no_group=True)
    assert (found.groups, found.folders) == (0, {"all": {"ants": "ants", "bees": "bees"}})


def test_parts_that_one_class_lacks_are_named(tmp_path):
    laid_out(tmp_path, *files("cats/train", "cats/test", "dogs/train"))
    with pytest.raises(UserError, match="class 'dogs' of train is missing in test"):
        layout(tmp_path)


# Archives


def tarred(folder: Path, name: str, *members: tuple[str, bytes], **options) -> Path:
    with tarfile.open(folder / name, **options) as file:
        for path, data in members:
            info = tarfile.TarInfo(path)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return folder / name


TREE = [(name, PNG) for name in files("set/ants", "set/bees")]


@pytest.mark.parametrize("kind", ["", "gz", "bz2", "xz"])
def test_a_tar_is_read_as_a_zip_is(tmp_path, kind):
    mixed = [TREE[3], TREE[0], *TREE[4:], *TREE[1:3], ("set/._x", b"")]
    path = tarred(tmp_path, f"x.tar.{kind}".rstrip("."), *mixed, mode=f"w:{kind}")
    found = layout(path)
    assert found.folders == {"all": {"ants": "set/ants", "bees": "set/bees"}}
    assert read_by_split(path, found.folders) == {"all": {"ants": 3, "bees": 3}}


@pytest.mark.parametrize(
    "name,words",
    [("../x.png", "outside"), ("/x.png", "is an absolute path"), ("a/../../x.png", "outside")],
)
def test_a_tar_that_leaves_its_folder_is_refused(tmp_path, name, words):
    with pytest.raises(UserError, match=words):
        layout(tarred(tmp_path, "x.tar", *TREE, (name, PNG), mode="w"))


def test_a_link_or_damage_in_a_tar_is_named(tmp_path):
    path = tarred(tmp_path, "x.tgz", *TREE, mode="w:gz")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="x.tgz: cut short or damaged"):
        layout(path)
    with tarfile.open(tmp_path / "y.tar", "w") as file:
        info = tarfile.TarInfo("a/x.png")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(info)
    with pytest.raises(UserError, match="'a/x.png' is a link; put the file itself"):
        layout(tmp_path / "y.tar")


def test_a_bomb_in_a_tar_is_refused(tmp_path):
    path = tarred(tmp_path, "x.tar.xz", ("a/x.png", bytes(2**26)), mode="w:xz")
    with pytest.raises(UserError, match="over 16 MiB, a bomb"):
        layout(path)


@pytest.mark.parametrize(
    "start,words",
    [
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive, which is not read; unpack it (`7z x x.bin`)"),
        (b"Rar!\x1a\x07", "a rar archive"),
        (b"\x28\xb5\x2f\xfd", "compressed by zstd"),
        (b"\x89PNG", "not a zip or tar archive"),
    ],
)
def test_another_archive_is_named_with_what_to_do(tmp_path, start, words):
    (tmp_path / "x.bin").write_bytes(start + bytes(100))
    with pytest.raises(UserError, match=re.escape(words)):
        layout(tmp_path / "x.bin")


def test_archives_in_the_source_are_to_be_unpacked(tmp_path):
    with pytest.raises(UserError, match="there are archives, such as 'test.zip'; unpack them"):
        layout(laid_out(tmp_path, "train.zip", "test.zip"))


def test_names_of_a_zip_that_does_not_say_its_encoding(tmp_path):
    """As macOS and Windows write them."""

    def zipped(label: str, encoding: str) -> layouts.Reading:
        raw = label.encode(encoding)
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
            for name in files("b" * len(raw), "other"):
                file.writestr(name, PNG)
        data = (tmp_path / "x.zip").read_bytes().replace(b"b" * len(raw) + b"/", raw + b"/")
        (tmp_path / "x.zip").write_bytes(data)
        return layout(tmp_path / "x.zip")

    assert "Bär" in zipped("Bär", "utf-8").folders["all"]
    assert "Bär" in zipped("Bär", "cp437").folders["all"]
    with archive.opened(tmp_path / "x.zip") as source:
        assert source.note.startswith("its names are read in code page 437, such as 'Bär/0.jpg'")


def test_a_title_has_no_ending_of_an_archive():
    titles = {"a/x.zip": "x", "x.tar.gz": "x", "v1.2.zip": "v1.2", "x.tgz": "x", "x.TAR": "x"}
    assert {name: own.settings.title(Path(name)) for name in titles} == titles


# Links


def test_links_are_followed(tmp_path):
    laid_out(tmp_path, *files("elsewhere/x", "own/bees"), "one.jpg")
    (tmp_path / "own/ants").symlink_to(tmp_path / "elsewhere/x")
    (tmp_path / "own/bees/linked.jpg").symlink_to(tmp_path / "one.jpg")
    assert layout(tmp_path / "own").images == {"all": {"ants": 3, "bees": 4}}
    (tmp_path / "own/ants/again").symlink_to(tmp_path / "own")
    with pytest.raises(UserError, match="'ants/again' is a link to a folder it is in; remove it"):
        layout(tmp_path / "own")
    (tmp_path / "elsewhere/x/again").unlink()
    (tmp_path / "own/bees/gone.jpg").symlink_to(tmp_path / "none")
    with pytest.raises(UserError, match="'bees/gone.jpg' is a link to nothing"):
        layout(tmp_path / "own")


# Tables

LINES = "File Name,Class,Split,Patient\n" + "".join(
    f"{n}.jpg,{AB[n % 2]},{'train' if n < 6 else 'Test'},{n // 2}\n" for n in range(8)
)


def listed(folder: Path, text: str, *more: str) -> Path:
    return laid_out(folder, *files("images", count=8), *more, labels__csv=text)


def test_a_table_gives_labels_parts_and_groups(tmp_path):
    found = layout(listed(tmp_path, LINES))
    assert found.images == {"train": {"ants": 3, "bees": 3}, "test": {"ants": 1, "bees": 1}}
    assert (found.groups, found.aside) == (0, [])
    assert found.notes == [
        "labels.csv: file from 'File Name', label from 'Class', part from 'Split'",
        "lines taken: 8",
        "'Patient' is not taken for groups: it has 4 values, and a fifth of the images can be held "
        "out where there are 5 or more",
    ]
    found = layout(tmp_path, group="Patient")
    assert found.groups == 4
    columns = {"file": "File Name", "label": "Class", "split": "Split", "group": "Patient"}
    assert found.folders == {"table": "labels.csv", **columns, "classes": list(AB)}
    with archive.opened(tmp_path) as source:
        members, beside = split.files_of_classes(source, params.Table(**found.folders))
    assert [(m.part, m.label, m.path, m.group) for m in members[:2]] == [
        ("train", "ants", "images/0.jpg", "0"),
        ("train", "ants", "images/2.jpg", "1"),
    ]
    assert beside == {"no such image": [], "listed twice": [], "elsewhere": []}


@pytest.mark.parametrize("form", ["semicolons", "tabs", "stems", "other names"])
def test_tables_come_in_many_forms(tmp_path, form):
    text, columns = LINES, {}
    if form == "semicolons":
        text = LINES.replace(",", ";")
    elif form == "tabs":
        text = LINES.replace(",", "\t")
    elif form == "stems":
        text = LINES.replace(".jpg", "")
    elif form == "other names":
        text = LINES.replace("Class", "Colour")
        with pytest.raises(UserError, match="which column is the label.*'Colour'.*--label"):
            layout(listed(tmp_path, text))
        columns = {"label": "Colour"}
    found = layout(listed(tmp_path, text), **columns)
    assert found.images == {"train": {"ants": 3, "bees": 3}, "test": {"ants": 1, "bees": 1}}


def test_what_a_table_does_not_fit_is_told(tmp_path):
    text = LINES + "9.jpg,ants,train,9\n0.jpg,ants,train,0\n"
    found = layout(listed(tmp_path, text, "images/extra.png"))
    assert found.notes[1:4] == [
        "lines taken: 8",
        "lines that name no image: 1 (line 10: '9.jpg')",
        "lines that repeat one: 1 (line 11: '0.jpg')",
    ]
    assert aside(found) == ["images: 1 file (1 .png): images without a label"]
    for wrong, words in {
        LINES + "0.jpg,bees,train,0\n": "line 10: 'images/0.jpg' is 'bees' here and 'ants' above",
        LINES.replace("Test", "later"): "labels.csv line 8: 'later' names no part",
        LINES.replace("Class", "Label").replace("ants", "0").replace("bees", "0"): "1 values for 8",
    }.items():
        with pytest.raises(UserError, match=words):
            layout(listed(tmp_path, wrong))
    with pytest.raises(UserError, match="labels.csv has no column 'x'; it has 'File Name'"):
        layout(listed(tmp_path, LINES), label="x")


# The command


def small_settings() -> str:
    """The root's, with networks and images that take little time to measure."""
    text = (ROOT / "params.yaml").read_text()
    for word, other in {"resnet18": "miniresnet10", "resnet50": "miniresnet18"}.items():
        text = text.replace(word, other)
    return text.replace("size: 224", "size: 32")


@pytest.fixture
def study(tmp_path, monkeypatch) -> Path:
    (tmp_path / "params.yaml").write_text(small_settings())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def enter(study: Path, *words: str) -> str:
    status, out, err = in_process(study, own.main, *words)
    assert status == 0, err
    return out


def refused(study: Path, *words: str) -> str:
    before = (study / "params.yaml").read_text()
    status, _, err = in_process(study, own.main, *words)
    assert status == 1 and err.count("\n") == 1, err
    assert (study / "params.yaml").read_text() == before
    assert [path.name for path in study.iterdir() if path.is_file()] == ["params.yaml"]
    return err


def test_a_dry_run_writes_nothing(study):
    before = (study / "params.yaml").read_text()
    laid_out(study / "data/raw/mine", *files(*AB, count=30))
    out = enter(study, "data/raw/mine", "--dry-run")
    assert "ants                  30" in out and out.endswith("nothing was written\n")
    assert (study / "params.yaml").read_text() == before


def test_own_data_sets_join_and_the_reports_step_aside(study):
    for name in ("one", "v1.2", "v1_2", "日本"):
        laid_out(study / "data/raw" / name, *files(*AB, count=30))
    out = enter(study, "data/raw/one")
    assert "no longer in it: ants_bees, cats_dogs, glioma, cars_bikes" in out
    for name in ("v1.2", "v1_2", "日本"):
        assert "no longer" not in enter(study, f"data/raw/{name}")
    found = params.load()
    assert found.grid.dataset == ["one", "v1_2", "v1_2_2", "ri_ben"] == list(found.datasets)
    assert found.datasets["v1_2_2"].title == "v1_2" and found.download == {}
    enter(study, "data/raw/one", "--only")
    assert params.load().grid.dataset == ["one"] and len(params.load().datasets) == 4


def test_long_images_are_squashed_unless_that_changes_another_data_set(study):
    for name in ("x", "y"):
        for n in range(4):
            for label, size in {"ants": (60, 240), "bees": (240, 60)}.items():
                path = study / f"data/raw/{name}/{label}/{n}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", size).save(path)
    text = (study / "params.yaml").read_text()
    (study / "params.yaml").write_text(re.sub(r"resize: \d+", "resize: 36", text))
    out = enter(study, "data/raw/x")
    # What is left is (32 / 36)² of the short side squared, which is a quarter of the area.
    assert "would leave out 80% of the area of the median image, so images are squashed" in out
    assert params.load().pack.fit == "squash"
    text = (study / "params.yaml").read_text().replace("fit: squash", "fit: crop")
    (study / "params.yaml").write_text(text)
    out = enter(study, "data/raw/y")
    assert "pack.fit: squash would keep all, but also changes your other" in out
    assert params.load().pack.fit == "crop" and params.load().split.icc == "convert"
    photographs = [(400, 300), (300, 200), (200, 300)]
    assert costs.fit(params.load(), photographs, True)[0] == "crop"


def test_a_name_is_free_once_the_data_set_that_had_it_leaves(study):
    drawn = params.load().grid.dataset[0]
    laid_out(study / "data/raw" / drawn, *files("ants", "bees", count=5))
    enter(study, f"data/raw/{drawn}")
    assert params.load().grid.dataset == [drawn] and drawn not in params.load().draw


def test_what_it_will_cost_is_told_before_it_starts(study):
    """And photographs of many pixels are reduced, by which the smallest crop loses none."""
    for n in range(4):
        for label, size in {"ants": (300, 400), "bees": (400, 300)}.items():
            path = study / f"data/raw/x/{label}/{n}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", size).save(path)
    out = enter(study, "data/raw/x")
    # 64 runs of the grid are 16 for one data set, and 80 with five seeds.
    assert re.search(r"to try: miniR10, miniR18; .*; 5 seeds, 25 epochs, .* 4: 80 runs\n", out)
    assert re.search(r"time: about \d+ s for the runs on this machine \(cpu\), by a few", out)
    assert "reduced to a short side of 256 px (pack.short_side), of which the smallest" in out
    assert params.load().pack.short_side == 256  # 32 / √0.08 is less than test images need
    assert params.load().grid.seed == [0, 1, 2, 3, 4]
    found = costs.disk(params.load(), {"x": (10**6, 0)}, [(512, 512), (128, 128)])[0]
    # Any image may be in any part, so that all are stored as for training and as for testing.
    pixels = (256**2 + 128**2) / 2 + 32**2
    assert found.startswith(f"disk: about {2 * pixels * 3e6 / 1e9:.1f} GB for pixels")


def test_a_loss_that_weighs_three_classes_is_measured_with_three(study):
    settings = study / "params.yaml"
    weighted = "loss: {CrossEntropyLoss: {weight: [1.0, 2.0, 3.0]}}"
    settings.write_text(settings.read_text().replace("loss: CrossEntropyLoss", weighted))
    laid_out(study / "data/raw/x", *files(*"abc", count=9))
    assert "on this machine" in enter(study, "data/raw/x")


def test_the_sample_is_where_one_tries_without_a_network(study):
    """Its weights are pretrained here, on images that each seed then divides, too."""
    shutil.copy(ROOT / "sample/params.yaml", study / "params.yaml")
    laid_out(study / "data/raw/x", *files(*AB, count=9))
    out = enter(study, "data/raw/x")
    assert "to try: miniR10, miniR18; frozen, finetuned;" in out
    found = params.load()
    assert (list(found.datasets), found.grid.dataset) == (["things", "x"], ["x"])
    assert found.datasets["things"].count.model_dump() == {"train": "all", "test": 0.2}


def test_folders_that_are_linked_are_named(study):
    laid_out(study, *files("elsewhere/ants", "data/raw/x/bees"))
    (study / "data/raw/x/ants").symlink_to(study / "elsewhere/ants")
    out = enter(study, "data/raw/x")
    assert (
        "not look into linked folders (ants); after a change in them: dvc repro -f split@x" in out
    )


def test_too_few_groups_are_refused_with_what_helps(study):
    laid_out(study / "data/raw/x", *files(*(f"{label}/p{n}" for label in AB for n in range(3))))
    assert "3 groups of images, of which each stays whole" in refused(study, "data/raw/x")
    out = enter(study, "data/raw/x", "--no-group", "--dry-run")
    assert "groups" not in out
    laid_out(study / "data/raw/y", *files("s1/ants", "s1/bees", "s2/ants", "s2/bees"))
    assert "give one outer folder as the source" in refused(study, "data/raw/y")
    assert "groups" not in enter(study, "data/raw/y/s1", "--dry-run")


def test_many_balanced_classes_are_no_reason_for_a_note(study):
    laid_out(study / "data/raw/x", *files(*(f"c{n}" for n in range(12)), count=100))
    assert "note:" not in enter(study, "data/raw/x", "--dry-run")


def test_few_images_are_told_at_once_and_too_few_refused(study):
    laid_out(study / "data/raw/x", *files("ants", count=190), *files("bees", count=10))
    out = enter(study, "data/raw/x")
    assert "note: few test images, so that intervals will be wide: bees (2)" in out
    assert "far fewer images than the mean of a class (100): bees (10); a network that" in out
    laid_out(study / "data/raw/y", *files("ants", count=9), *files("bees", count=2))
    said = refused(study, "data/raw/y")
    assert "class 'bees' has 2 images to divide and takes 3 or more" in said


def test_params_are_valid_afterwards_and_keep_their_comments(tmp_path):
    text = small_settings()
    for key in ("download", "draw", "split", "train"):
        text = text.replace(f"\n{key}:", f"\n# Above {key}.\n{key}:", 1)
    text = text.replace("\n  epochs:", "\n  # More of them?\n  epochs:")
    text = text.replace("\n  cats_dogs:", "\n\n  # Pets.\n\n  cats_dogs:")
    (tmp_path / "params.yaml").write_text(text)
    laid_out(tmp_path / "data/raw/My Flowers", *files("daisy", "rose", "tulip"))

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
    assert (found.split.resplit, found.evidence.select_by) == (True, "auto")
    assert (found.download, found.split.validation, found.train.epochs) == ({}, 0.2, 25)
    after = (tmp_path / "params.yaml").read_text()
    comments = [line for line in before.splitlines() if line.strip().startswith("#")]
    kept = [line for line in after.splitlines() if line.strip().startswith("#")]
    assert len(comments) == 9
    assert [line for line in comments if line not in kept] == ["  # Pets.", "  # Pets."]
    same = slice(before.index("\nweights:"), before.index("\nevidence:"))
    assert before[same] in after
