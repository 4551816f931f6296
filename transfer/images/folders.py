"""The files of each class, by the folders that they lie in."""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import PurePosixPath

from transfer.cli import UserError, printable
from transfer.images import reader
from transfer.images.archive import Source, is_hidden, quoted

NAMES_SHOWN = 20
"""Names that a message or a list shows before it only counts the rest."""


@dataclass(frozen=True)
class Member:
    """A file of a class. `inner` is its path from the class's folder, `group` its group, or ''."""

    part: str
    label: str
    path: str
    inner: str
    group: str = ""


def choose(
    source: Source, folders: dict[str, dict[str, str]]
) -> tuple[list[Member], dict[str, list[str]]]:
    """The files under each class's folder, by part, class and path, and those left out: `hidden`
    ones (see is_hidden), and those `elsewhere`, in no class's folder. folders: part → class →
    folder, as params.Folders describes them. Raises UserError when a folder matches none, or
    several though it has no *, or lies in another's.
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
    """folder → its files that are named as images, of the first folders."""
    images = [path for path in elsewhere if reader.kind(path)]
    counts = Counter(printable(str(PurePosixPath(path).parent)) for path in images)
    return dict(sorted(counts.items())[:NAMES_SHOWN])


def _class_folders(
    source: Source, names: list[str], folders: dict[str, dict[str, str]]
) -> list[tuple[str, str, str, str]]:
    """(part, class, folder, group) of each class's folders, in order."""
    existing = sorted({str(parent) for name in names for parent in PurePosixPath(name).parents})
    rows = [
        (part, label, folder, group)
        for part, classes in folders.items()
        for label, pattern in classes.items()
        for folder, group in _match(source, existing, pattern)
    ]
    in_order = sorted(folder + "/" for _, _, folder, _ in rows)
    for outer, inner in zip(in_order, in_order[1:], strict=False):
        if inner.startswith(outer):
            raise UserError(
                f"{source.path}: folders of two classes or parts overlap: {outer!r} and {inner!r}"
            )
    return rows


def _match(source: Source, existing: list[str], folder: str) -> list[tuple[str, str]]:
    """(folder, group) of the existing folders that are called `folder`, or else of those whose
    paths end with it: one, unless it has a *."""
    words = [part for part in unicodedata.normalize("NFC", folder).split("/") if part]
    pattern = "/".join("([^/]+)" if word == "*" else re.escape(word) for word in words)
    for before in ("", "(?:.*/)?"):
        matches = [match for name in existing if (match := re.fullmatch(before + pattern, name))]
        if matches and ("*" in words or len(matches) == 1):
            return [(match[0], match[1] if "*" in words else "") for match in matches]
    if matches and words:
        raise UserError(
            f"{source.path}: several folders end in {folder!r}: "
            f"{_listed([match[0] for match in matches])}; give more of the path"
        )
    listed = _listed([name for name in existing if name != "."])
    raise UserError(f"{source.path}: no folder with files ends in {folder!r}; it has {listed}")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return (", ".join(map(quoted, names[:NAMES_SHOWN])) or "none") + more
