"""A data set's source, a folder or a zip or tar archive, read file by file.

Nothing is extracted by its name: members are listed, checked, and read into memory within
bounds, so whatever an archive claims, it can write nowhere and fill nothing.
"""

import bz2
import gzip
import io
import lzma
import re
import stat
import struct
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import accumulate
from pathlib import Path
from typing import IO, Any, TypeVar

from PIL import Image

from transfer.cli import UserError, listed, one_line
from transfer.images import reader

T = TypeVar("T")
MAX_TOTAL = 100 * 2**30
MAX_MEMBER = 2**30
# Deflate's own limit is 1032; photographs stay under 2, and blank bitmaps are small.
MAX_RATIO = 1000
RATIO_FROM = 16 * 2**20
SYSTEM = {
    *("__macosx", "@eadir", "#recycle", "@recycle", "#snapshot", "@tmp", "$recycle.bin"),
    *("system volume information", "lost+found", "lost.dir", "__pycache__", "picasa.ini"),
    *("_ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
}
"""Names, in small letters, of files and folders that a system or a program makes for itself."""
COMPRESSED: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
"""The first bytes of a file → what opens it."""
OTHERS = {
    b"7z\xbc\xaf": ("a 7z archive", "7z x"),
    b"Rar!": ("a rar archive", "unrar x"),
    b"\x28\xb5\x2f\xfd": ("compressed by zstd", "tar --zstd -xf"),
    b"\x04\x22\x4d\x18": ("compressed by lz4", "lz4 -d"),
}
"""The first bytes of archives that are not read → what they are, and the command that unpacks
them."""

_TOO_LARGE = f"over {MAX_MEMBER >> 30} GiB, too large for an image"
_BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    lzma.LZMAError,
    gzip.BadGzipFile,
    NotImplementedError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
)


class Unreadable(Exception):
    """One member cannot be read. The message is the reason, without the name."""


@dataclass(frozen=True)
class Source:
    """names: every file's path, sorted, '/' between its parts, in Unicode's form NFC. read: its
    bytes by name, at most MAX_MEMBER of them; raises Unreadable when it is damaged or larger.
    note: what its owner should know of the names, or ''. kept: what was computed of it."""

    path: Path
    names: list[str]
    read: Callable[[str], bytes]
    note: str = ""
    kept: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def images(self) -> list[str]:
        """Files that are named as images or, where a name tells no kind, hold one."""
        return [
            name
            for name in self.names
            if not is_hidden(name)
            and (reader.kind(name) or not ending(name) and not self.flaw(name))
        ]

    def flaw(self, name: str) -> str:
        """Why the file can be no image, by its first bytes; '' if it may be one."""
        try:
            data = self.read(name)
        except Unreadable as error:
            return str(error)
        if not data:
            return "empty"
        if data.startswith(b"version https://git-lfs"):
            return "a pointer of Git LFS; run `git lfs pull`"
        try:
            with Image.open(io.BytesIO(data)) as image:
                known = image.format in (*reader.READ, "MPO")
                return "" if known else f"{image.format}, which is not read; convert to PNG"
        except Image.DecompressionBombError:
            return ""
        except Exception:  # Pillow raises a dozen kinds on broken input
            return reader.unread(name) or "not an image of a kind that is read"


def ending(name: str) -> str:
    """What a file's name ends in, such as .csv; '' where that tells no kind: 12, 12.jpg?w=640."""
    match = re.search(r"(?<=[^/])\.[a-z][a-z0-9]{0,8}$", name.lower())
    return match[0] if match else ""


def is_hidden(path: str) -> bool:
    """Whether a system or a program made the file for itself, or hides it."""
    parts = path.split("/")
    return any(part.startswith((".", "~$")) or part.lower() in SYSTEM for part in parts)


@contextmanager
def opened(path: str | Path) -> Iterator[Source]:
    """Open a folder, or a zip or tar archive.

    A folder's links are followed. Raises UserError when the source is missing, empty, cut short or
    of another kind; when a link leads nowhere or in a circle; and when any member of an archive is
    encrypted, a link, a bomb, or has a path that leaves the folder.
    """
    path = Path(path)
    if path.is_dir():
        folders: list[str] = []
        members = _by_name(path, ((name, name) for name in _files(path, path, (), folders)))
        note = _empty(folders, members)
        yield Source(path, sorted(members), partial(_read_file, path, members), note)
    elif not path.exists():
        raise UserError(f"{path}: not there; run its download stage, or put it there")
    elif (start := _start(path)).startswith(tuple(COMPRESSED)) or tarfile.is_tarfile(path):
        with _open_tar(path, start) as tar:
            entries = _entries(path, tar)
            note = _empty((entry.name for entry in tar if entry.isdir()), entries)
            yield Source(path, sorted(entries), partial(_read_entry, tar, entries), note)
    else:
        with _open_zip(path, start) as file:
            meant, note = _decode_names(file)
            infos = _members(path, file, meant)
            named = (info.orig_filename for info in file.infolist() if info.is_dir())
            empty = _empty((meant.get(name, name) for name in named), infos)
            note = "; ".join(filter(None, (note, empty)))
            yield Source(path, sorted(infos), partial(_read_member, file, infos), note)


def _by_name(path: Path, raw: Iterable[tuple[str, T]]) -> dict[str, T]:
    """Members by their names as Source has them; of two with one name the later stands, as when a
    zip is updated. Where two names differ by Unicode's form alone, both stay as they are."""
    members: dict[str, T] = {}
    for name, member in raw:
        _check_path(path, name)
        members[_divided(name)] = member
    composed = {name: unicodedata.normalize("NFC", name) for name in members}
    times = Counter(composed.values())
    return {
        composed[name] if times[composed[name]] == 1 else name: member
        for name, member in members.items()
    }


def _divided(name: str) -> str:
    """The name with '/' between its parts; some programs on Windows write backslashes in a zip."""
    return "/".join(part for part in re.split(r"[/\\]", name) if part not in ("", "."))


def _files(root: Path, folder: Path, above: tuple[Path, ...], folders: list[str]) -> Iterator[str]:
    """`above`: the real paths of the folders that this one is in. The folders in it are added to
    `folders`."""
    above = (*above, folder.resolve())
    for entry in folder.iterdir():
        inner = entry.relative_to(root).as_posix()
        if not entry.exists():
            raise UserError(f"{root}: {quoted(inner)} is a link to nothing; remove it")
        if not entry.is_dir():
            _check_kind(root, inner, entry.stat().st_mode)
            yield inner
        elif entry.resolve() in above:
            raise UserError(f"{root}: {quoted(inner)} is a link to a folder it is in; remove it")
        else:
            folders.append(inner)
            yield from _files(root, entry, above, folders)


def _empty(folders: Iterable[str], names: Iterable[str]) -> str:
    """A note on the folders that hold no file; '' without any."""
    held = {folder for name in names for folder in accumulate(name.split("/")[:-1], "{}/{}".format)}
    named = {unicodedata.normalize("NFC", _divided(folder)) for folder in folders}
    empty = sorted(quoted(name) for name in named - held if name and not is_hidden(name))
    return f"empty folders, of which no class is made: {listed(empty)}" if empty else ""


def _read_file(root: Path, members: dict[str, str], name: str) -> bytes:
    path = root / members[name]
    if path.stat().st_size > MAX_MEMBER:
        raise Unreadable(_TOO_LARGE)
    return path.read_bytes()


def _start(path: Path) -> bytes:
    """A file's first bytes. Raises UserError where they say that it is not read."""
    with open(path, "rb") as file:
        start = file.read(8)
    if not start:
        raise UserError(f"{path}: empty; fetch it again")
    for magic, (kind, command) in OTHERS.items():
        if start.startswith(magic):
            raise UserError(
                f"{path}: {kind}, which is not read; unpack it (`{command} {path.name}`) and give "
                "the folder as source"
            )
    return start


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: cut short or damaged ({one_line(error)}); fetch it again")


@contextmanager
def _open_tar(path: Path, start: bytes) -> Iterator[tarfile.TarFile]:
    """A compressed one is unpacked to a nameless file first, since its members are read in the
    order of their names."""
    opener = next((open_ for magic, open_ in COMPRESSED.items() if start.startswith(magic)), open)
    with opener(path, "rb") as packed, tempfile.TemporaryFile() as plain:
        try:
            if opener is not open:
                _copy(path, packed, plain)
            tar = tarfile.TarFile(fileobj=packed if opener is open else plain)
        except (*_BROKEN, OSError) as error:
            if isinstance(error, OSError) and error.errno:  # such as a full disk
                raise
            if isinstance(error, tarfile.ReadError) and opener is not open:
                raise UserError(
                    f"{path}: one compressed file, and no archive of files; unpack it and give the "
                    "folder as source"
                ) from None
            raise _damaged(path, error) from None
        with tar:
            yield tar


def _copy(path: Path, packed: IO[bytes], plain: IO[bytes]) -> None:
    limit = max(RATIO_FROM, min(MAX_TOTAL, MAX_RATIO * path.stat().st_size))
    while data := packed.read(2**20):
        plain.write(data)
        if plain.tell() > limit:
            raise UserError(
                f"{path}: holds over {limit >> 20} MiB, a bomb; remove it, or unpack it and give "
                "the folder as source"
            )
    plain.seek(0)


def _entries(path: Path, tar: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    try:
        members = tar.getmembers()
    except (*_BROKEN, OSError) as error:
        raise _damaged(path, error) from None
    for entry in members:
        if entry.issym():
            _check_kind(path, entry.name, stat.S_IFLNK)
        try:
            tarfile.data_filter(entry, "/folder")
        except tarfile.FilterError as error:
            raise UserError(
                f"{path}: {quoted(entry.name)}: {one_line(error)}; make the archive anew"
            ) from None
    _check_total(path, sum(entry.size for entry in members))
    return _by_name(path, ((entry.name, entry) for entry in members if not entry.isdir()))


def _read_entry(tar: tarfile.TarFile, entries: dict[str, tarfile.TarInfo], name: str) -> bytes:
    if entries[name].size > MAX_MEMBER:
        raise Unreadable(_TOO_LARGE)
    try:
        file = tar.extractfile(entries[name])  # of a hard link, the file that it is one to
        return file.read(MAX_MEMBER) if file else b""
    except (*_BROKEN, KeyError) as error:
        raise Unreadable(f"damaged in the archive ({one_line(error)})") from None


def _open_zip(path: Path, start: bytes) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except _BROKEN as error:
        if start[:2] == b"PK":
            raise _damaged(path, error) from None
        raise UserError(
            f"{path}: not a zip or tar archive; fetch it again, or unpack it and give the folder "
            "as source"
        ) from None


def _decode_names(file: zipfile.ZipFile) -> tuple[dict[str, str], str]:
    """Names as zipfile reads them → as they were meant, and a note where that is not certain. A zip
    that does not say how its names are encoded may have them in UTF-8 (macOS) or in the code page
    of its maker's Windows, such as 437."""
    unsaid = [info.orig_filename for info in file.infolist() if not info.flag_bits & 0x800]
    named = {name: name.encode("cp437") for name in unsaid if not name.isascii()}
    try:
        return {name: data.decode() for name, data in named.items()}, ""
    except UnicodeDecodeError:
        example = quoted(next(iter(named)))
        return {}, (
            f"its names are read in code page 437, such as {example}; if that is wrong, unpack it "
            "and give the folder"
        )


def _members(
    path: Path, file: zipfile.ZipFile, meant: dict[str, str]
) -> dict[str, zipfile.ZipInfo]:
    files = []
    for info in file.infolist():
        # orig_filename: zipfile cuts `filename` at a NUL
        name = meant.get(info.orig_filename, info.orig_filename)
        _check_path(path, name)
        mode = info.external_attr >> 16
        _check_kind(path, name, mode)
        _check_extent(path, info)
        if info.flag_bits & 1:
            raise UserError(f"{path}: {quoted(name)} is encrypted; zip it without a password")
        if not (name.endswith(("/", "\\")) or stat.S_ISDIR(mode)):
            files.append((name, info))
    _check_total(path, sum(info.file_size for _, info in files))
    return _by_name(path, files)


def _check_total(path: Path, total: int) -> None:
    if total > MAX_TOTAL:
        raise UserError(f"{path}: claims {total >> 30} GiB of content, over {MAX_TOTAL >> 30} GiB")


def _check_path(source: Path, name: str) -> None:
    plain = name.replace("\\", "/")
    wrong = {
        "is an absolute path": plain.startswith("/"),
        "has '..' in it": ".." in plain.split("/"),
        "has a drive letter": re.match("[A-Za-z]:/", plain),
        "has a NUL in it": "\0" in name,
    }
    for reason, true in wrong.items():
        if true:
            raise UserError(
                f"{source}: member {quoted(name)} {reason} and could leave its folder; rename it "
                "and make the source anew"
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
