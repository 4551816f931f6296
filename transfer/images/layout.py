"""What a folder or zip of images holds: its parts, classes and groups, as its owner means them.

Everything is read from the paths alone; no image is opened.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from transfer.cli import UserError
from transfer.images import reader, table
from transfer.images.archive import Source
from transfer.images.folders import is_hidden
from transfer.images.table import PARTS, part_of, words
from transfer.params import Table

BESIDE = "thumb thumbs thumbnail thumbnails preview previews mask masks annotation annotations"
"""Folders that hold pictures of the images, not images."""
WRAPPER = "image images img imgs photo photos picture pictures data jpg jpeg png raw"

Classes = Literal["outer", "inner"]
"""Which of two levels of folders are the classes."""


@dataclass(frozen=True)
class Reading:
    """One way to understand a source.

    folders: what params.yaml takes, with a part `all` or without a `split` where the source is not
    divided. images: part → class → files named as images. groups: how many groups keep their images
    together; 0 where there are none. aside: what is left out, in words.
    """

    folders: dict[str, Any]
    images: dict[str, dict[str, int]]
    groups: int
    aside: list[str]


@dataclass
class Node:
    """A folder: the images directly in it, and the folders in it that hold some."""

    path: tuple[str, ...] = ()
    files: list[str] = field(default_factory=list)
    inside: dict[str, "Node"] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.path[-1] if self.path else ""

    def walk(self) -> Iterator["Node"]:
        yield self
        for node in self.inside.values():
            yield from node.walk()

    @property
    def images(self) -> list[str]:
        return [name for node in self.walk() for name in node.files]

    def __str__(self) -> str:
        return f"{'/'.join(self.path) or 'the top'} ({len(self.images)})"


def read(
    source: Source,
    classes: Classes | None = None,
    columns: dict[str, str | None] = table.UNSAID,
) -> Reading:
    """How the source is laid out: by its folders, or by a table if it has no folders of classes or
    one of the table's columns is named. `classes` decides where its folders can be read in two
    ways.

    Raises UserError, one line, for a source that has no two classes, whose parts have not the same
    ones, or that can be read in two ways.
    """
    aside: list[str] = []
    top = _opened(_tree(source), aside)
    said = any(columns.values())
    flat = not any(node.inside for node in top.inside.values())
    if said or flat and (len(top.inside) < 2 or all(map(part_of, top.inside))):
        if found := table.find(source, columns):
            return _listed(source, found)
        if said:
            raise UserError(f"{source.path}: no table in it lists its images")
    parts = _parts(source, top, aside)
    for node in parts.values():
        node.inside = {name: _class_folder(one, aside) for name, one in node.inside.items()}
    named = _classes(source, parts, classes)
    _check(source, named)
    folders: dict[str, dict[str, str]] = {}
    images: dict[str, dict[str, int]] = {}
    for part, its in named.items():
        folders[part] = {label: one.folder for label, one in its.items()}
        images[part] = {label: len(one.images) for label, one in its.items()}
    groups = {group for its in named.values() for one in its.values() for group in one.groups}
    return Reading(folders, images, len(groups), aside + _unread(source, named))


def _listed(source: Source, found: Table) -> Reading:
    listing = table.read(source, found)
    named: dict[str, dict[str, Class]] = {}
    for path, label in sorted(listing.labels.items()):
        one = named.setdefault(listing.parts[path], {}).setdefault(label, Class(""))
        one.images.append(path)
        one.groups |= {group for group in (listing.groups[path],) if group}
    _check(source, named)
    images = {
        part: {label: len(its[label].images) for label in found.classes}
        for part, its in sorted(named.items(), key=lambda pair: PARTS.index(pair[0]))
    }
    groups = {group for its in named.values() for one in its.values() for group in one.groups}
    told = {
        "lines name no image": listing.missing,
        "lines repeat one": listing.doubled,
        "images have no label": listing.unlabelled,
    }
    aside = [
        f"{len(names)} {what}: {', '.join(names[:3])}{', …' * (len(names) > 3)}"
        for what, names in told.items()
        if names
    ]
    settings = found.model_dump(exclude_none=True)
    return Reading(settings, images, len(groups), aside + _unread(source, named))


def _tree(source: Source) -> Node:
    top = Node()
    for name in source.names:
        if reader.kind(name) and not is_hidden(name):
            node = top
            for part in name.split("/")[:-1]:
                if part == "*":
                    raise UserError(f"{source.path}: {name!r}: * stands for any folder; rename it")
                node = node.inside.setdefault(part, Node((*node.path, part)))
            node.files.append(name)
    if not top.images:
        raise UserError(f"{source.path}: there is no image in it")
    return top


def _without_beside(node: Node, aside: list[str], least: int = 2) -> Node:
    """Without folders of thumbnails and masks, if `least` others are left, or one called images."""
    kept = dict(node.inside)
    for name in node.inside:
        rest = [other for other in kept if other != name]
        # Where one class is called mask and another no_mask, both are classes.
        same = any(words(name).removesuffix("s") in other.lower() for other in rest)
        only_images = len(rest) == 1 and rest[0].lower() in WRAPPER.split()
        if words(name) in BESIDE.split() and not same and (len(rest) >= least or only_images):
            aside.append(f"{kept.pop(name)}: not taken for a class")
    return Node(node.path, node.files, kept)


def _opened(node: Node, aside: list[str]) -> Node:
    """The first folder inside that holds images, or several folders of them."""
    node = _without_beside(node, aside)
    while not node.files and len(node.inside) == 1:
        (only,) = node.inside.values()
        if not only.inside:
            break
        node = _without_beside(only, aside)
    return node


def _class_folder(node: Node, aside: list[str]) -> Node:
    """A class's folder, or the one called images in it, beside masks."""
    if node.files:
        return node
    inner = _without_beside(node, aside, least=sys.maxsize)
    return node if len(inner.inside) == len(node.inside) else next(iter(inner.inside.values()))


def _parts(source: Source, top: Node, aside: list[str]) -> dict[str, Node]:
    """part → the folder that has its classes; `all` for a source that is not divided."""
    found: dict[str, Node] = {}
    for name, node in sorted(top.inside.items()):
        part = part_of(name)
        if part in found:
            raise UserError(
                f"{source.path}: {found[part].name!r} and {name!r} both name the {part} part; "
                "move one of them out"
            )
        if part:
            found[part] = node
    divided = len(found) == len(top.inside) > 1 or len(found.get("train", Node()).inside) > 1
    if not divided:
        _note_loose(top, aside)
        return {"all": top}
    for name, node in sorted(top.inside.items()):
        if not part_of(name):
            aside.append(f"{node}: in no part")
    _note_loose(top, aside)
    inner = {part: _opened(node, aside) for part, node in found.items()}
    for part in [part for part, node in inner.items() if not node.inside]:
        aside.append(f"{inner.pop(part)}: images without a class; `predict` can classify them")
    for node in inner.values():
        _note_loose(node, aside)
    if not inner:
        raise UserError(f"{source.path}: no folder is a class; {HELP}")
    meant = {table.as_parts(set(inner))[part]: node for part, node in inner.items()}
    return {part: meant[part] for part in PARTS if part in meant}


HELP = "give each class a folder, or list file and label in a table such as labels.csv"


def _note_loose(node: Node, aside: list[str]) -> None:
    if node.files and node.inside:
        where = "/".join(node.path) or "the top"
        aside.append(f"{len(node.files)} images at {where}: in no class's folder")


@dataclass
class Class:
    """A class in a part: its folder, with * for each folder of a group, and its images."""

    folder: str
    images: list[str] = field(default_factory=list)
    groups: set[str] = field(default_factory=set)


def _classes(
    source: Source, parts: dict[str, Node], classes: Classes | None
) -> dict[str, dict[str, Class]]:
    """part → class → what it has. Of two levels of folders, the outer or the inner are classes."""
    outer = {name for node in parts.values() for name in node.inside}
    inner = Counter(
        name for node in parts.values() for one in node.inside.values() for name in one.inside
    )
    two_levels = inner and not any(
        one.files for node in parts.values() for one in node.inside.values()
    )
    if not two_levels or len(inner) == 1:
        return {part: _outer(node, grouped=False) for part, node in parts.items()}
    taken = classes or _guess(outer, inner)
    if not taken:
        some, others = (", ".join(sorted(names)[:3]) for names in (outer, inner))
        raise UserError(
            f"{source.path}: the classes may be {some} (then {others} are groups in them: "
            f"--classes outer) or {others} (--classes inner)"
        )
    if taken == "outer":
        return {part: _outer(node, grouped=True) for part, node in parts.items()}
    return {part: _inner(node, max(inner.values()) > 1) for part, node in parts.items()}


def _guess(outer: set[str], inner: Counter[str]) -> Classes | None:
    """Which level is the classes. Groups, such as patients, are numbered, and classes are not."""
    numbered = [all(re.search(r"\d", name) for name in names) for names in (outer, inner)]
    if numbered == [False, True]:
        return "outer"
    if numbered == [True, False] and max(inner.values()) > 1:
        return "inner"
    return None


def _outer(node: Node, grouped: bool) -> dict[str, Class]:
    star = ("*",) if grouped else ()
    return {
        name: Class("/".join((*one.path, *star)), one.images, set(one.inside) if grouped else set())
        for name, one in sorted(node.inside.items())
    }


def _inner(node: Node, shared: bool) -> dict[str, Class]:
    """`shared`: whether an inner folder's name stands in several outer ones, which then are
    groups."""
    found: dict[str, Class] = {}
    for group, one in sorted(node.inside.items()):
        for label, folder in sorted(one.inside.items()):
            place = (*node.path, "*" if shared else group, label)
            known = found.setdefault(label, Class("/".join(place)))
            known.images += folder.images
            known.groups |= {group} if shared else set()
    return dict(sorted(found.items()))


def _check(source: Source, named: dict[str, dict[str, Class]]) -> None:
    first, *others = named
    here = named[first]
    if len(here) < 2:
        found = ", ".join(map(repr, here)) or "none"
        raise UserError(
            f"{source.path}: it takes two classes or more, and {found} was found; {HELP}"
        )
    table.check(source, here)
    for part in others:
        for one, its, other in ((first, here, part), (part, named[part], first)):
            if missing := sorted(set(its) - set(named[other])):
                close = {name.casefold(): name for name in named[other]}
                meant = close.get(missing[0].casefold())
                raise UserError(
                    f"{source.path}: class {missing[0]!r} of {one} "
                    + (f"is called {meant!r} in {other}; rename one" if meant else "")
                    + ("" if meant else f"is missing in {other}; add it there, or remove it")
                )


def _unread(source: Source, named: dict[str, dict[str, Class]]) -> list[str]:
    """What of each class cannot be read here. Raises UserError where that is all of one."""
    lines = []
    for part, found in named.items():
        for label, one in found.items():
            why = Counter(filter(None, map(reader.unread, one.images)))
            for reason, count in why.items():
                if count == len(one.images):
                    raise UserError(
                        f"{source.path}: {label}: {count} files, none readable ({reason})"
                    )
                lines.append(f"{part}/{label}: {count} of {len(one.images)} files ({reason})")
    return lines
