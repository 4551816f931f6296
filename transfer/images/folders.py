"""The files of each class, by the folders that they lie in."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import PurePosixPath

from transfer.cli import UserError, printable
from transfer.images import reader
from transfer.images.archive import Source, quoted

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


def is_hidden(path: str) -> bool:
    """Whether an operating system left the file there, or hides it."""
    parts = path.split("/")
    return (
        "__MACOSX" in parts
        or any(part.startswith(".") for part in parts)
        or parts[-1].lower() in ("_ds_store", "thumbs.db", "desktop.ini")
    )


def _class_folders(
    source: Source, names: list[str], folders: dict[str, dict[str, str]]
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
    wanted = [part for part in folder.split("/") if part]
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
