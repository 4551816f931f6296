"""Which images a data set's source holds: chosen, decoded once, compared, and drawn by seed.

Everything here is a function of its arguments; the caller reads the source and writes the files.
"""

import hashlib
import io
import re
import statistics
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Self

import numpy as np
from PIL import UnidentifiedImageError

from transfer.cli import UserError, one_line, printable
from transfer.files import Fields, Stored
from transfer.images import near, reader
from transfer.images.archive import Source, Unreadable, is_hidden, quoted
from transfer.images.folds import Division
from transfer.images.names import named
from transfer.images.reader import Decoding

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
    def from_names(cls, names: list[str]) -> Self:
        return cls(count=len(names), names=list(map(printable, names[:NAMES_SHOWN])))


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
    """`formats`, `modes`: Pillow's name → images. `pages`: files of several images, of which the
    first is taken. `short_side`: min, median and max, in pixels. `wrong_extension`: files whose
    extension is not their content's."""

    images: Tally
    formats: dict[str, int]
    modes: dict[str, int]
    pages: int
    short_side: dict[str, int]
    wrong_extension: Listed
    duplicates: Duplicates


class Groups(Fields):
    """`parts`: part → groups with images in it, of the images drawn. `shared`: groups that are in
    test and in training too, as the source itself divides them."""

    parts: dict[str, int]
    shared: Listed


class Audit(Stored):
    """metrics/data/<dataset>.json: what a data set's source holds, and what was made of it.

    `rules`: split's settings and the data set's counts. `decoding`: how images are read. `redrawn`:
    how each seed divides the part train anew, without the units, None if none does. `left_out`:
    reason → files. `no_class`: of the first of those elsewhere, folder → files that are named as
    images. `archive`: all readable images of the classes. `dropped`: copies removed. `split`: the
    images drawn. `leaked`: test images, as <class>/<name>, that also occur in training, as
    <part>/<class>/<name>. `near`: further test images that look like one of training.
    """

    dataset: str
    source: str
    rules: dict[str, Any]
    decoding: Decoding
    redrawn: Division | None
    left_out: dict[str, Listed]
    no_class: dict[str, int]
    archive: Described
    dropped: Tally
    split: Described
    groups: Groups
    leaked: list[tuple[str, str]]
    near: list[tuple[str, str]]

    @classmethod
    def load(cls, dataset: str) -> Self:
        return cls.read(f"metrics/data/{dataset}.json")


@dataclass(frozen=True)
class Member:
    """A file of a class. `inner` is its path from the class's folder, `group` its group, or ''."""

    part: str
    label: str
    path: str
    inner: str
    group: str = ""


@dataclass(frozen=True)
class Content:
    """An image decoded: Pillow's `format` and `mode`, (width, height) in pixels, and the sha256
    of that size and the pixels. `thumbnail`: see near. `pages`: images in the file. `range`: the
    least and the largest value, for a mode of more than 8 bits."""

    format: str
    mode: str
    size: tuple[int, int]
    digest: str
    thumbnail: bytes
    pages: int = 1
    range: tuple[float, float] | None = None


@dataclass(frozen=True)
class Picture:
    """An image of one class and one part (train, validation, test, or all before it is divided).
    `path` is in the source, `name` the file name to write it under, unique in its class and
    part, and `group` its group, or ''."""

    part: str
    label: str
    path: str
    name: str
    content: Content
    group: str = ""


class _Rejected(Exception):
    def __init__(self, reason: str, why: str = ""):
        self.reason, self.why = reason, why


def choose(source: Source, folders: Folders) -> tuple[list[Member], LeftOut]:
    """The files under each class's folder, by part, class and path.

    Left out are `hidden` ones (a system's own, anywhere) and those `elsewhere`, in no class's
    folder. Raises UserError when a folder matches none, or several though it has no *, or lies in
    another's.
    """
    hidden = [name for name in source.names if is_hidden(name)]
    names = sorted(set(source.names) - set(hidden))
    members = [
        Member(part, label, name, "/".join([group, name[len(folder) + 1 :]]).lstrip("/"), group)
        for part, label, folder, group in _class_folders(source, names, folders)
        for name in names
        if name.startswith(folder + "/")
    ]
    elsewhere = sorted(set(names) - {member.path for member in members})
    return members, {"hidden": hidden, "elsewhere": elsewhere}


def no_class(elsewhere: list[str]) -> dict[str, int]:
    """folder → images, of the first folders."""
    images = [path for path in elsewhere if reader.kind(path)]
    counted = Counter(printable(str(PurePosixPath(path).parent)) for path in images)
    return dict(sorted(counted.items())[:NAMES_SHOWN])


def _class_folders(
    source: Source, names: list[str], folders: Folders
) -> list[tuple[str, str, str, str]]:
    """(part, class, folder, group) of every folder that is one's, in order."""
    there = sorted({str(parent) for name in names for parent in PurePosixPath(name).parents})
    found = [
        (part, label, folder, group)
        for part, classes in folders.items()
        for label, pattern in classes.items()
        for folder, group in _match(source, there, pattern)
    ]
    in_order = sorted(folder + "/" for _, _, folder, _ in found)
    for outer, inner in zip(in_order, in_order[1:], strict=False):
        if inner.startswith(outer):
            raise UserError(
                f"{source.path}: folders of two classes or parts overlap: {outer!r} and {inner!r}"
            )
    return found


def _match(source: Source, there: list[str], folder: str) -> list[tuple[str, str]]:
    """(folder, group) of those whose whole paths are so, or else of those whose paths end so: one,
    if there is no * in it."""
    wanted = [part for part in unicodedata.normalize("NFC", folder).split("/") if part]
    pattern = "/".join("([^/]+)" if part == "*" else re.escape(part) for part in wanted)
    for before in ("", "(?:.*/)?"):
        found = [match for name in there if (match := re.fullmatch(before + pattern, name))]
        if found and ("*" in wanted or len(found) == 1):
            return [(match[0], match[1] if "*" in wanted else "") for match in found]
    matches = [match[0] for match in found if wanted]
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
    source: Source, members: Iterable[Member], unreadable: str, decoding: Decoding = reader.PAPER
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
            content = _inspect(source, member.path, decoding)
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
        place = member.part, member.label, member.path, name
        pictures.append(Picture(*place, content, member.group))
    return pictures, left_out


def _inspect(source: Source, path: str, decoding: Decoding) -> Content:
    try:
        data = source.read(path)
    except Unreadable as error:
        raise _Rejected("unreadable", str(error)) from None
    if data[:6] in (b"GIF87a", b"GIF89a"):
        raise _Rejected("gif")
    try:
        return decode(data, decoding)
    except UnidentifiedImageError:
        if not reader.kind(path):
            raise _Rejected("other") from None
        why = reader.unread(path) or "not an image of a kind that is read" if data else "empty"
        raise _Rejected("unreadable", why) from None
    except Exception as error:  # Pillow's decoders raise a dozen kinds on broken input
        raise _Rejected("unreadable", one_line(error)) from None


def decode(data: bytes, decoding: Decoding = reader.PAPER) -> Content:
    """Raises as reader.read does."""
    found = reader.read(io.BytesIO(data), decoding)
    height, width = found.pixels.shape[:2]
    digest = hashlib.sha256(f"{width}x{height}:".encode() + found.pixels.tobytes()).hexdigest()
    values = np.nan_to_num(found.pixels) if found.pixels.ndim == 2 else None
    span = None if values is None else (float(values.min()), float(values.max()))
    small, size = near.thumbnail(found.rgb(decoding)), (width, height)
    return Content(found.format, found.mode, size, digest, small, found.pages, span)


def how_to_read(pictures: list[Picture], decoding: Decoding) -> Decoding:
    """With the range of those pictures to train on that have one."""
    spans = [p.content.range for p in pictures if p.part != "test" and p.content.range]
    if not spans:
        return decoding
    span = {"low": min(low for low, _ in spans), "high": max(high for _, high in spans)}
    return decoding.model_copy(update=span)


def _output_name(inner: str, kind: str, taken: set[str]) -> str:
    """The member's name, flattened, with an extension for its content, and not in `taken`."""
    path = PurePosixPath(inner)
    # ImageFolder does not read a .jfif.
    known = path.suffix.lower() in reader.FORMATS[kind] and path.suffix.lower() != ".jfif"
    suffix = path.suffix if known else reader.FORMATS[kind][0]
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
            kind: [(printable(a.path), printable(b.path)) for a, b in found[:PAIRS_SHOWN]]
            for kind, found in pairs.items()
        },
    )


def groups(pictures: list[Picture]) -> Groups:
    found: dict[str, set[str]] = {}
    for picture in pictures:
        if picture.group:
            found.setdefault(picture.part, set()).add(picture.group)
    trained = found.get("train", set()) | found.get("validation", set())
    shared = sorted(trained & found.get("test", set()))
    return Groups(
        parts={part: len(its) for part, its in found.items()}, shared=Listed.from_names(shared)
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
    """<class>/<name> of every test image that stands in train or validation too, with its
    <part>/<class>/<name>."""
    return _named([pair for group in _by_pixels(pictures) for pair in _leaks(group)])


def alike(pictures: list[Picture]) -> list[tuple[str, str]]:
    """The same of test images that look like one of training, but are equal to none."""
    return _named(near.pairs(pictures))


def _named(pairs: list[tuple[Picture, Picture]]) -> list[tuple[str, str]]:
    return sorted((named(p.label, p.name), f"{q.part}/{named(q.label, q.name)}") for p, q in pairs)


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
        f"{p.path}: {p.content.format}" for p in pictures if reader.kind(p.path) != p.content.format
    ]
    short = [min(p.content.size) for p in pictures]
    sides = {"min": min(short), "median": statistics.median_low(short), "max": max(short)}
    return Described(
        images=tally(pictures, pictures),
        formats=dict(Counter(p.content.format for p in pictures)),
        modes=dict(Counter(p.content.mode for p in pictures)),
        pages=sum(p.content.pages > 1 for p in pictures),
        short_side=sides,
        wrong_extension=Listed.from_names(wrong),
        duplicates=duplicates(pictures),
    )
