"""A data set's source, a zip archive or a folder, read member by member.

Nothing is extracted by its name: members are listed, checked, and read into memory within
bounds, so whatever an archive claims, it can write nowhere and fill nothing.
"""

import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from transfer.cli import UserError, one_line

MAX_TOTAL = 100 * 2**30
MAX_MEMBER = 2**30
# Deflate's own limit is 1032; photographs stay under 2, and blank bitmaps are small.
MAX_RATIO = 1000
RATIO_FROM = 16 * 2**20

_TOO_LARGE = f"over {MAX_MEMBER >> 30} GiB, too large for an image"
_BROKEN = (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, struct.error, zlib.error)


class Unreadable(Exception):
    """One member cannot be read. The message is the reason, without the name."""


@dataclass(frozen=True)
class Source:
    """`names`: every file's path, sorted, '/' between its parts. `read`: its bytes by name, at
    most MAX_MEMBER of them; raises Unreadable when it is damaged or larger."""

    path: Path
    names: list[str]
    read: Callable[[str], bytes]


@contextmanager
def opened(path: str | Path) -> Iterator[Source]:
    """Open a zip archive or a folder.

    A folder's links are followed. Raises UserError when the source is missing, empty, cut short or
    no zip; when a link leads nowhere or in a circle; and when any member of a zip is encrypted, a
    link, a bomb, or has a path that leaves the folder.
    """
    path = Path(path)
    if path.is_dir():
        yield Source(path, sorted(_files(path, path, ())), partial(_read_file, path))
    elif path.exists():
        with _open_zip(path) as file:
            members = _members(path, file)
            yield Source(path, sorted(members), partial(_read_member, file, members))
    else:
        raise UserError(f"{path}: not there; run its download stage, or put it there")


def _files(root: Path, folder: Path, above: tuple[Path, ...]) -> Iterator[str]:
    """`above`: the real paths of the folders that this one is in."""
    above = (*above, folder.resolve())
    for entry in folder.iterdir():
        inner = entry.relative_to(root).as_posix()
        _check_path(root, inner)
        if not entry.exists():
            raise UserError(f"{root}: {quoted(inner)} is a link to nothing; remove it")
        if not entry.is_dir():
            _check_kind(root, inner, entry.stat().st_mode)
            yield inner
        elif entry.resolve() in above:
            raise UserError(f"{root}: {quoted(inner)} is a link to a folder it is in; remove it")
        else:
            yield from _files(root, entry, above)


def _read_file(root: Path, name: str) -> bytes:
    path = root / name
    if path.stat().st_size > MAX_MEMBER:
        raise Unreadable(_TOO_LARGE)
    return path.read_bytes()


def _open_zip(path: Path) -> zipfile.ZipFile:
    with open(path, "rb") as file:
        start = file.read(4)
    if not start:
        raise UserError(f"{path}: empty; fetch it again")
    try:
        return zipfile.ZipFile(path)
    except _BROKEN as error:
        if start[:2] == b"PK":
            raise UserError(
                f"{path}: cut short or damaged ({one_line(error)}); fetch it again"
            ) from None
        raise UserError(
            f"{path}: not a zip archive; fetch it again, or unpack it and give the folder as source"
        ) from None


def _members(path: Path, file: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Files by path; of two with one path the later stands, as when a zip is updated."""
    members = {}
    for info in file.infolist():
        # orig_filename: zipfile cuts `filename` at a NUL
        _check_path(path, info.orig_filename)
        mode = info.external_attr >> 16
        _check_kind(path, info.filename, mode)
        _check_extent(path, info)
        if info.flag_bits & 1:
            raise UserError(
                f"{path}: {quoted(info.filename)} is encrypted; zip it without a password"
            )
        if not (info.is_dir() or stat.S_ISDIR(mode)):
            members[_normal(info.filename)] = info
    total = sum(info.file_size for info in members.values())
    if total > MAX_TOTAL:
        raise UserError(f"{path}: claims {total >> 30} GiB of content, over {MAX_TOTAL >> 30} GiB")
    return members


def _check_path(source: Path, name: str) -> None:
    escapes = name.startswith("/") or ".." in name.split("/") or re.match("[A-Za-z]:", name)
    if escapes or "\\" in name or "\0" in name:
        raise UserError(
            f"{source}: member {quoted(name)} could leave its folder (an absolute path, "
            "'..', a drive letter or a backslash); rename it and make the source anew"
        )


def _check_kind(source: Path, name: str, mode: int) -> None:
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        kind = "a link" if stat.S_ISLNK(mode) else "a special file"
        raise UserError(f"{source}: {quoted(name)} is {kind}; put the file itself in its place")


def _check_extent(source: Path, info: zipfile.ZipInfo) -> None:
    if info.header_offset < 0:
        raise UserError(f"{source}: damaged, its first bytes are missing; fetch it again")
    if info.file_size > RATIO_FROM and info.file_size > MAX_RATIO * info.compress_size:
        raise UserError(
            f"{source}: {quoted(info.filename)} claims {info.file_size >> 20} MiB from "
            f"{info.compress_size} bytes, a zip bomb; remove it"
        )


def _normal(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _read_member(file: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], name: str) -> bytes:
    info = members[name]
    if info.file_size > MAX_MEMBER:
        raise Unreadable(_TOO_LARGE)
    # zipfile bounds what it inflates for these two only
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Unreadable(f"zip compression method {info.compress_type}; zip it by deflate")
    try:
        with file.open(info) as member:
            data = member.read(info.file_size + 1)
    except _BROKEN as error:
        raise Unreadable(f"damaged in the archive ({one_line(error)})") from None
    if len(data) != info.file_size:
        raise Unreadable(f"{len(data)} bytes where the archive claims {info.file_size}")
    return data


def quoted(name: str) -> str:
    """A member's name for a message: on one line, and not longer than the line."""
    return repr(name if len(name) <= 120 else name[:117] + "...")
