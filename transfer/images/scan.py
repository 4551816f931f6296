"""The images of a source, each decoded once."""

import hashlib
import io
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from PIL import UnidentifiedImageError

from transfer.cli import UserError, one_line
from transfer.images import near, reader
from transfer.images.archive import Source, Unreadable, quoted
from transfer.images.folders import Member
from transfer.images.reader import Decoding


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

    @property
    def place(self) -> tuple[str, str, str]:
        return self.part, self.label, self.path


class _Rejected(Exception):
    def __init__(self, reason: str, why: str = ""):
        self.reason, self.why = reason, why


def scan(
    source: Source, members: Iterable[Member], unreadable: str, decoding: Decoding = reader.PAPER
) -> tuple[list[Picture], dict[str, list[str]]]:
    """Decode every member once, one at a time.

    Left out are `gif` (ImageFolder ignores them), `other` (no image, nor named like one) and,
    with `unreadable` 'skip', `unreadable` ones; with 'fail' the first of these raises UserError.
    """
    pictures: list[Picture] = []
    left_out: dict[str, list[str]] = {"gif": [], "other": [], "unreadable": []}
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
