"""Which images a data set's source holds: chosen, decoded once, compared, and drawn by seed.

Everything here is a function of its arguments; the caller reads the source and writes the files.
"""

import hashlib
import io
import re
import statistics
import unicodedata
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Self

from PIL import Image, UnidentifiedImageError

from transfer.cli import UserError, one_line
from transfer.files import Fields, Stored
from transfer.images.archive import Source, Unreadable, quoted

# What torchvision's ImageFolder reads, as Pillow names the content and ImageFolder the file.
FORMATS = {
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "PPM": (".ppm", ".pgm"),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
}
EXTENSIONS = sum(FORMATS.values(), ())
NAMES_SHOWN = 20
PAIRS_SHOWN = 5

Folders = dict[str, dict[str, str]]  # part → class → folder
LeftOut = dict[str, list[str]]  # reason → paths
Tally = dict[str, dict[str, int]]  # part → class → images


class Listed(Fields):
    """How many, and the first few by name."""

    count: int
    names: list[str]

    @classmethod
    def of(cls, names: list[str]) -> Self:
        return cls(count=len(names), names=names[:NAMES_SHOWN])


class Duplicates(Fields):
    """Images with equal pixels.

    `within`: part → class → copies beyond the first. `across`: class → test images whose pixels
    occur in train or validation too, whatever their class there; empty for a source not yet
    divided. `between_classes`: images whose pixels occur in another class too. `examples`: a few
    pairs of paths each, the counted image first.
    """

    within: Tally
    across: dict[str, int]
    between_classes: int
    examples: dict[str, list[tuple[str, str]]]


class Described(Fields):
    """`formats`, `modes`: Pillow's name → images. `short_side`: min, median and max, in pixels.
    `wrong_extension`: files whose extension is not their content's."""

    images: Tally
    formats: dict[str, int]
    modes: dict[str, int]
    short_side: dict[str, int]
    wrong_extension: Listed
    duplicates: Duplicates


class Audit(Stored):
    """metrics/data/<dataset>.json: what a data set's source holds, and what was made of it.

    `rules`: split's settings and the data set's counts. `left_out`: reason → files. `archive`: all
    readable images of the classes. `dropped`: copies removed. `split`: the images drawn. `leaked`:
    test images, as <class>/<name>, that also occur in training, as <part>/<class>/<name>.
    """

    dataset: str
    source: str
    rules: dict[str, Any]
    left_out: dict[str, Listed]
    archive: Described
    dropped: Tally
    split: Described
    leaked: list[tuple[str, str]]


@dataclass(frozen=True)
class Member:
    """A file in a class's folder. `inner` is its path from there."""

    part: str
    label: str
    path: str
    inner: str


@dataclass(frozen=True)
class Content:
    """An image decoded: Pillow's `format` and `mode`, (width, height) in pixels, and the sha256
    of that size and the RGB pixels."""

    format: str
    mode: str
    size: tuple[int, int]
    digest: str


@dataclass(frozen=True)
class Picture:
    """An image of one class and one part (train, validation, test, or all before it is divided).
    `path` is in the source, `name` the file name to write it under, unique in its class and
    part."""

    part: str
    label: str
    path: str
    name: str
    content: Content


class _Rejected(Exception):
    def __init__(self, reason: str, why: str = ""):
        self.reason, self.why = reason, why


def choose(source: Source, folders: Folders) -> tuple[list[Member], LeftOut]:
    """The files under each class's folder, by part, class and path.

    Left out are `hidden` ones (a system's own, anywhere) and those `elsewhere`, in no class's
    folder. Raises UserError when a folder matches none, or several, or lies in another's.
    """
    hidden = [name for name in source.names if is_hidden(name)]
    names = sorted(set(source.names) - set(hidden))
    found = _class_folders(source, names, folders)
    members = [
        Member(part, label, name, name[len(folder) + 1 :])
        for (part, label), folder in found.items()
        for name in names
        if name.startswith(folder + "/")
    ]
    elsewhere = sorted(set(names) - {member.path for member in members})
    return members, {"hidden": hidden, "elsewhere": elsewhere}


def is_hidden(path: str) -> bool:
    """Whether an operating system left the file there, or hides it."""
    parts = path.split("/")
    return (
        "__MACOSX" in parts
        or any(part.startswith(".") for part in parts)
        or parts[-1].lower() in ("_ds_store", "thumbs.db", "desktop.ini")
    )


def _class_folders(
    source: Source, names: list[str], folders: Folders
) -> dict[tuple[str, str], str]:
    there = sorted({str(parent) for name in names for parent in PurePosixPath(name).parents})
    found = {
        (part, label): _match(source, there, folder)
        for part, classes in folders.items()
        for label, folder in classes.items()
    }
    in_order = sorted(folder + "/" for folder in found.values())
    for outer, inner in zip(in_order, in_order[1:], strict=False):
        if inner.startswith(outer):
            raise UserError(
                f"{source.path}: folders of two classes or parts overlap: {outer!r} and {inner!r}"
            )
    return found


def _match(source: Source, there: list[str], folder: str) -> str:
    wanted = [part for part in folder.split("/") if part]
    matches = [name for name in there if wanted and name.split("/")[-len(wanted) :] == wanted]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UserError(
            f"{source.path}: several folders end in {folder!r}: {_some(matches)}; "
            "give more of the path"
        )
    holding = [name for name in there if name != "."]
    raise UserError(
        f"{source.path}: no folder with files ends in {folder!r}; it has {_some(holding)}"
    )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return (", ".join(map(quoted, names[:NAMES_SHOWN])) or "none") + more


def scan(
    source: Source, members: Iterable[Member], unreadable: str
) -> tuple[list[Picture], LeftOut]:
    """Decode every member once, one at a time.

    Left out are `gif` (ImageFolder ignores them), `other` (no image, nor named like one) and,
    with `unreadable` 'skip', `unreadable` ones; with 'fail' the first of these raises UserError.
    """
    pictures: list[Picture] = []
    left_out: LeftOut = {"gif": [], "other": [], "unreadable": []}
    taken: dict[tuple[str, str], set[str]] = defaultdict(set)
    for member in members:
        try:
            content = _inspect(source, member.path)
        except _Rejected as rejected:
            if rejected.reason == "unreadable" and unreadable == "fail":
                raise UserError(
                    f"{source.path}: {quoted(member.path)}: {rejected.why}; "
                    "remove it, or set split.unreadable: skip"
                ) from None
            why = f": {rejected.why}" if rejected.why else ""
            left_out[rejected.reason].append(member.path + why)
            continue
        name = _output_name(member.inner, content.format, taken[member.part, member.label])
        pictures.append(Picture(member.part, member.label, member.path, name, content))
    return pictures, left_out


def _inspect(source: Source, path: str) -> Content:
    try:
        data = source.read(path)
    except Unreadable as error:
        raise _Rejected("unreadable", str(error)) from None
    if data[:6] in (b"GIF87a", b"GIF89a"):
        raise _Rejected("gif")
    try:
        return decode(data)
    except UnidentifiedImageError:
        if PurePosixPath(path).suffix.lower() not in EXTENSIONS:
            raise _Rejected("other") from None
        why = "not an image that ImageFolder reads" if data else "empty"
        raise _Rejected("unreadable", why) from None
    except Exception as error:  # Pillow's decoders raise a dozen kinds on broken input
        raise _Rejected("unreadable", one_line(error)) from None


def decode(data: bytes) -> Content:
    """Decode a whole image, as a reader's convert('RGB') sees it: no alpha, 16 bits clipped.

    Raises PIL.UnidentifiedImageError for what is none of FORMATS, and whatever Pillow does for
    one that is truncated, broken, or has more pixels than Pillow's limit.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(data), formats=tuple(FORMATS)) as image:
            width, height = image.size
            rgb = image.convert("RGB").tobytes()
            # MPO: a camera's JPEG with more pictures behind the first
            kind = "JPEG" if image.format == "MPO" else str(image.format)
            digest = hashlib.sha256(f"{width}x{height}:".encode() + rgb).hexdigest()
            return Content(kind, image.mode, (width, height), digest)


def _output_name(inner: str, kind: str, taken: set[str]) -> str:
    """The member's name, flattened, with an extension for its content, and not in `taken`."""
    path = PurePosixPath(inner)
    suffix = path.suffix if path.suffix.lower() in FORMATS[kind] else FORMATS[kind][0]
    stem = "-".join([*path.parts[:-1], path.stem])
    # what some file system refuses, and its limit of 255 bytes with room to spare
    stem = re.sub(r'[\x00-\x1f\x7f<>:"|?*\ud800-\udfff]', "_", stem)
    stem = stem.encode()[:200].decode(errors="ignore")
    name, number = stem + suffix, 2
    while (key := unicodedata.normalize("NFC", name).casefold()) in taken:
        name, number = f"{stem}-{number}{suffix}", number + 1
    taken.add(key)
    return name


def duplicates(pictures: list[Picture]) -> Duplicates:
    groups = _by_pixels(pictures)
    copies = [pair for group in groups for pair in _copies(group)]
    leaks = [pair for group in groups for pair in _leaks(group)]
    conflicts = [pair for group in groups for pair in _conflicts(group)]
    pairs = {"within": copies, "across": leaks, "between_classes": conflicts}
    return Duplicates(
        within=tally(pictures, [copy for copy, _ in copies]),
        across=tally(pictures, [test for test, _ in leaks]).get("test", {}),
        between_classes=len(conflicts),
        examples={
            kind: [(a.path, b.path) for a, b in found[:PAIRS_SHOWN]]
            for kind, found in pairs.items()
        },
    )


def _by_pixels(pictures: list[Picture]) -> list[list[Picture]]:
    groups = defaultdict(list)
    for picture in sorted(pictures, key=place):
        groups[picture.content.digest].append(picture)
    return [group for group in groups.values() if len(group) > 1]


def place(picture: Picture) -> tuple[str, str, str]:
    return picture.part, picture.label, picture.path


def _copies(group: list[Picture]) -> list[tuple[Picture, Picture]]:
    first: dict[tuple[str, str], Picture] = {}
    pairs = [(p, first.setdefault((p.part, p.label), p)) for p in group]
    return [(p, kept) for p, kept in pairs if p is not kept]


def _leaks(group: list[Picture]) -> list[tuple[Picture, Picture]]:
    seen = [p for p in group if p.part in ("train", "validation")]
    return [(p, seen[0]) for p in group if p.part == "test" and seen]


def leaked(pictures: list[Picture]) -> list[tuple[str, str]]:
    """<class>/<name> of every test image that stands in train or validation too, with its twin's
    <part>/<class>/<name>."""
    pairs = [pair for group in _by_pixels(pictures) for pair in _leaks(group)]
    return sorted((f"{p.label}/{p.name}", f"{q.part}/{q.label}/{q.name}") for p, q in pairs)


def _conflicts(group: list[Picture]) -> list[tuple[Picture, Picture]]:
    first = {p.label: p for p in reversed(group)}
    if len(first) == 1:
        return []
    return [(p, next(q for label, q in first.items() if label != p.label)) for p in group]


def tally(pictures: list[Picture], counted: Iterable[Picture]) -> Tally:
    """How many of `counted` there are by part and class, for all that `pictures` has."""
    counts: Tally = {}
    for picture in pictures:
        counts.setdefault(picture.part, {})[picture.label] = 0
    for picture in counted:
        counts[picture.part][picture.label] += 1
    return counts


def drop_duplicates(pictures: list[Picture]) -> list[Picture]:
    """Without copies: none of an image found in two classes, the first by path within a part,
    and none in train of an image in test."""
    dropped = set()
    for group in _by_pixels(pictures):
        if len({p.label for p in group}) > 1:
            dropped.update(group)
            continue
        dropped.update(copy for copy, _ in _copies(group))
        if any(p.part == "test" for p in group):
            dropped.update(p for p in group if p.part == "train")
    return [p for p in pictures if p not in dropped]


def describe(pictures: list[Picture]) -> Described:
    wrong = [
        f"{p.path}: {p.content.format}"
        for p in pictures
        if PurePosixPath(p.path).suffix.lower() not in FORMATS[p.content.format]
    ]
    short = [min(p.content.size) for p in pictures]
    sides = {"min": min(short), "median": statistics.median_low(short), "max": max(short)}
    return Described(
        images=tally(pictures, pictures),
        formats=dict(Counter(p.content.format for p in pictures)),
        modes=dict(Counter(p.content.mode for p in pictures)),
        short_side=sides,
        wrong_extension=Listed.of(wrong),
        duplicates=duplicates(pictures),
    )
