"""The images of a source, each decoded once."""

import hashlib
import io
import re
import statistics
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

UNREADABLE_SHOWN = 3
EXTREMES = 0.1, 99.9
"""The percentiles of the training images' values that become black and white."""
LEVELS = 32
"""Grey levels below which an image has lost much of what it showed."""


@dataclass(frozen=True)
class Content:
    """An image decoded: its `format`, `mode`, `pages` and `profile` as reader.Read has them,
    (width, height) in pixels, and the sha256 of that size and the pixels. `thumbnail`: see near.
    `quantiles`: the bytes of reader.quantiles, for an image of more than 8 bits."""

    format: str
    mode: str
    size: tuple[int, int]
    digest: str
    thumbnail: bytes
    pages: int = 1
    profile: str = ""
    quantiles: bytes = b""


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

    Left out are `gif` (ImageFolder ignores them), `other` (no image, nor named like one) and
    `unreadable` ones; with `unreadable` 'fail' these raise UserError, all at once.
    """
    pictures: list[Picture] = []
    left_out: dict[str, list[str]] = {"gif": [], "other": [], "unreadable": []}
    taken: dict[tuple[str, str], set[str]] = defaultdict(set)
    reasons = []
    for member in members:
        try:
            content = _inspect(source, member.path, decoding)
        except _Rejected as rejected:
            why = f": {rejected.why}" if rejected.why else ""
            left_out[rejected.reason].append(member.path + why)
            if rejected.reason == "unreadable":
                reasons.append(f"{quoted(member.path)}{why}")
            continue
        name = _output_name(member.inner, content.format, taken[member.part, member.label])
        place = member.part, member.label, member.path, name
        pictures.append(Picture(*place, content, member.group))
    if reasons and unreadable == "fail":
        raise UserError(f"{source.path}: {_unreadable(reasons)}")
    return pictures, left_out


def _unreadable(reasons: list[str]) -> str:
    if len(reasons) == 1:
        return f"{reasons[0]}; remove it, or set split.unreadable: skip"
    shown = "; ".join(reasons[:UNREADABLE_SHOWN])
    more = len(reasons) - UNREADABLE_SHOWN
    more_words = f"; and {more} more" if more > 0 else ""
    return (
        f"{len(reasons)} images cannot be read: {shown}{more_words}. Remove them, or set "
        "split.unreadable: skip"
    )


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
        raise _Rejected("unreadable", reader.unidentified(path) if data else "empty") from None
    except Exception as error:  # Pillow's decoders raise a dozen kinds on broken input
        raise _Rejected("unreadable", one_line(error)) from None


def decode(data: bytes, decoding: Decoding = reader.PAPER) -> Content:
    """Raises as reader.read does."""
    image = reader.read(io.BytesIO(data), decoding)
    height, width = image.pixels.shape[:2]
    digest = hashlib.sha256(f"{width}x{height}:".encode() + image.pixels.tobytes()).hexdigest()
    quantiles = b""
    if image.deep:
        quantiles = reader.quantiles(image.values).tobytes()
        low, high = image.limits()
        decoding = decoding.model_copy(update={"low": low, "high": high})
    small = near.thumbnail(image.rgb(decoding))
    about = image.pages, image.profile, quantiles
    return Content(image.format, image.mode, (width, height), digest, small, *about)


def how_to_read(pictures: list[Picture], decoding: Decoding) -> Decoding:
    """With the limits of the pictures to train on that have more than 8 bits, if any."""
    values = np.frombuffer(b"".join(_deep(pictures)), np.float32)
    if not len(values):
        return decoding
    low, high = np.percentile(values.astype(np.float64), EXTREMES).tolist()
    return decoding.model_copy(update={"low": low, "high": high})


def few_levels(pictures: list[Picture], decoding: Decoding) -> int | None:
    """The median number of grey levels that training images of more than 8 bits have left, None if
    that is LEVELS or more, or all that they had. decoding: as how_to_read has it."""
    if decoding.low is None or decoding.high is None:
        return None
    kept, before = [], []
    for quantiles in _deep(pictures):
        values = np.frombuffer(quantiles, np.float32).astype(np.float64)
        scaled = (values - decoding.low) / ((decoding.high - decoding.low) or 1.0)
        kept.append(len(np.unique(np.rint(scaled.clip(0, 1) * 255))))
        before.append(len(np.unique(values)))
    levels = statistics.median_low(kept)
    return levels if levels < min(LEVELS, statistics.median_low(before)) else None


def _deep(pictures: list[Picture]) -> list[bytes]:
    """The quantiles of the pictures to train on that have more than 8 bits."""
    return [p.content.quantiles for p in pictures if p.part != "test" and p.content.quantiles]


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
