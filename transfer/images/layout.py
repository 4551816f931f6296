"""What a folder or archive of images holds: its parts, classes and groups, as its owner means them.

Folders are read from their paths; a file is opened where its name does not tell whether it is an
image, and a few of each class to see that they can be read.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal

from transfer.cli import UserError
from transfer.images import reader, table
from transfer.images.archive import Source, ending, is_hidden, quoted
from transfer.images.table import BESIDE, PARTS, Asked, Listing, part_in, part_of, words
from transfer.params import Table

WRAPPER = "image images img imgs photo photos picture pictures data jpg jpeg png raw"
PIECES = r"image|img|photo|picture|part|batch|chunk"
"""In the names of folders that only divide a large number of files."""
DOCUMENTS = (
    *(".txt", ".xml", ".json", ".jsonl", ".csv", ".tsv", ".md", ".rst", ".html", ".pdf", ".doc"),
    *(".docx", ".xls", ".xlsx", ".ods", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".py", ".ipynb"),
    *(".m", ".mat", ".r", ".sh", ".log", ".h5", ".hdf5", ".pkl", ".pth", ".pt", ".onnx", ".db"),
    *(".parquet", ".tfrecord", ".names", ".data", ".bib", ".tex", ".css", ".js", ".url", ".lnk"),
)
"""Endings of files that no one takes for images."""
SHOWN = 20
"""Lines at most of what is left aside."""
HELP = "give each class a folder, or list file and label in a table such as labels.csv"

Level = Literal["outer", "inner"]
"""Which of two levels of folders are the classes."""


@dataclass(frozen=True)
class Aside:
    """Files that are not taken. place: the folder or class, or what they are."""

    place: str
    files: list[str]
    why: str

    def __str__(self) -> str:
        counts = Counter(map(_kind, self.files))
        kinds = ", ".join(f"{count} {kind}" for kind, count in counts.most_common(5))
        more = ", …" * (len(counts) > 5)
        return f"{self.place}: {_number(len(self.files), 'file')} ({kinds}{more}): {self.why}"


@dataclass(frozen=True)
class Reading:
    """One way to understand a source.

    folders: what params.yaml takes, with a part `all` or without a `split` where the source is not
    divided. images: part → class → files named as images. groups: how many groups keep their images
    together; 0 where there are none. aside: every other file. notes: what else to tell.
    """

    folders: dict[str, Any]
    images: dict[str, dict[str, int]]
    groups: int
    aside: list[Aside]
    notes: list[str] = field(default_factory=list)


@dataclass
class Node:
    """A folder: the images directly in it, and the folders in it that hold some."""

    path: tuple[str, ...] = ()
    files: list[str] = field(default_factory=list)
    inside: dict[str, "Node"] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.path[-1] if self.path else ""

    @property
    def place(self) -> str:
        return "/".join(self.path) or "the top"

    def walk(self) -> Iterator["Node"]:
        yield self
        for node in self.inside.values():
            yield from node.walk()

    @property
    def images(self) -> list[str]:
        return [name for node in self.walk() for name in node.files]

    @property
    def stems(self) -> set[str]:
        """Its images by their paths in it, without endings."""
        depth = len(self.path)
        return {"/".join(name.split("/")[depth:]).rpartition(".")[0] for name in self.images}


@dataclass
class Class:
    """A class in a part: its folder, with * for each folder of a group, the folders themselves, and
    its images."""

    folder: str
    images: list[str] = field(default_factory=list)
    groups: set[str] = field(default_factory=set)
    places: list[tuple[str, ...]] = field(default_factory=list)


Named = dict[str, dict[str, Class]]  # part → class → what it has


@dataclass(frozen=True)
class Choice:
    """What the owner decides. level: which of two levels of folders are the classes. take: names of
    folders that are taken for classes though they are called masks or the like."""

    level: Level | None = None
    take: tuple[str, ...] = ()
    asked: Asked = Asked()


def read(source: Source, choice: Choice = Choice()) -> Reading:
    """How the source is laid out: by its folders, or by a table if it has no folders of classes or
    the choice names one.

    Raises UserError, one line, for a source that has no two classes, whose parts have not the same
    ones, that can be read in two ways, or that has a class of which nothing can be read.
    """
    asked = choice.asked
    if not source.images:
        raise UserError(f"{source.path}: there is no image in it{_instead(source)}")
    if asked.table or asked.columns:
        if chosen := table.find(source, asked):
            return _listed(source, chosen, asked)
        raise UserError(f"{source.path}: no table in it lists its images")
    top = _tree(source)
    walk = _Walk(source, choice)
    opened = walk.opened(top)
    flat = not any(node.inside for node in opened.inside.values())
    unclassed = flat and (len(opened.inside) < 2 or all(map(part_of, opened.inside)))
    if unclassed and (chosen := table.find(source, asked)):
        return _listed(source, chosen, asked)
    named: Named | None = None
    problem = None
    try:
        named = walk.classes(opened)
    except UserError as error:
        problem = error
    if choice.level is None and (chosen := _contrary(source, asked, named)):
        return _listed(source, chosen, asked)
    if problem or not named:
        raise UserError(f"{problem}{table.why_none(source)}")
    return _in_folders(source, named, walk.why)


def _kind(name: str) -> str:
    file = name.rpartition("/")[2]
    return ending(name) or (file if file.startswith(".") else "no ending")


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _instead(source: Source) -> str:
    """What there is where images should be."""
    names = [name for name in source.names if not is_hidden(name)]
    archives = [name for name in names if name.lower().endswith((".zip", ".tar", ".gz", ".tgz"))]
    if archives:
        return f", but there are archives, such as {quoted(archives[0])}; unpack them"
    counts = Counter(ending(name) or "no ending" for name in names).most_common(3)
    kinds = ", ".join(f"{count} {kind}" for kind, count in counts)
    return f" of a kind that is read (files: {kinds or 'none'}); convert them to PNG or JPEG"


def _tree(source: Source) -> Node:
    top = Node()
    for name in source.images:
        node = top
        for part in name.split("/")[:-1]:
            if part == "*":
                raise UserError(f"{source.path}: {name!r}: * stands for any folder; rename it")
            node = node.inside.setdefault(part, Node((*node.path, part)))
        node.files.append(name)
    return top


class _Walk:
    """Goes from a source's top to its classes. why: folder → why it is left aside."""

    def __init__(self, source: Source, choice: Choice) -> None:
        self.source, self.choice = source, choice
        self.why: dict[str, str] = {}

    def opened(self, node: Node) -> Node:
        """The first folder inside that holds images, or several folders of them."""
        node = self.without_beside(node)
        while not node.files and len(node.inside) == 1:
            (only,) = node.inside.values()
            if not only.inside:
                break
            node = self.without_beside(only)
        return node

    def without_beside(self, node: Node, least: int = 2) -> Node:
        """Without folders of thumbnails and masks, if `least` others are left or one called images,
        and without copies of the others."""
        kept = dict(node.inside)
        for name, inner in node.inside.items():
            rest = {other: kept[other] for other in kept if other != name}
            if name not in self.choice.take and (why := self._beside(name, inner, rest, least)):
                self.why[kept.pop(name).place] = why
        return Node(node.path, node.files, kept)

    def _beside(self, name: str, node: Node, rest: dict[str, Node], least: int) -> str:
        """Why a folder is no class beside the rest; '' if it may be one."""
        # Where one class is called mask and another no_mask, both are classes.
        same = any(words(name).removesuffix("s") in other.lower() for other in rest)
        originals = [folder for other, folder in rest.items() if other.lower() in WRAPPER.split()]
        beside = words(name) in BESIDE.split() and not same
        if beside and (len(rest) >= least or len(rest) == 1 and originals):
            return f"by its name, no images of a class; --take {name} takes it for one"
        if name.lower() not in WRAPPER.split() and not part_in(name)[0] and not node.files:
            for folder in originals:
                if not folder.files and 2 * len(node.stems & folder.stems) >= len(node.stems):
                    return f"the same file names as {folder.name}, so that it belongs to its images"
        inner = node
        while len(inner.inside) == 1 and not inner.files:
            (inner,) = inner.inside.values()
        if len(rest) > 1 and set(rest) <= set(inner.inside):
            stems = set.union(
                *({f"{other}/{stem}" for stem in rest[other].stems} for other in rest)
            )
            if set(rest) == set(inner.inside) and inner.stems <= stems:
                return "the same folders and file names as those beside it: a copy"
            raise UserError(
                f"{self.source.path}: {node.place} has folders that are called as those beside it "
                f"({_some(rest)}); move its images into these, or take it out"
            )
        return ""

    def classes(self, top: Node) -> Named:
        """part → class → what it has. Raises UserError where this cannot be told."""
        parts = self.parts(top)
        for node in parts.values():
            node.inside = {name: self.class_folder(folder) for name, folder in node.inside.items()}
        named = self.levels(parts)
        _check(self.source, named)
        return named

    def class_folder(self, node: Node) -> Node:
        """A class's folder, or the one called images in it, beside masks."""
        if node.files:
            return node
        inner = self.without_beside(node, least=sys.maxsize)
        if len(inner.inside) == len(node.inside):
            return node
        return next(iter(inner.inside.values()))

    def parts(self, top: Node) -> dict[str, Node]:
        """part → the folder that has its classes; `all` for a source that is not divided."""
        if turned := _parts_in_classes(top):
            return turned
        folders = self.named_parts(top)
        taught = self.opened(folders["train"]) if "train" in folders else Node()
        divided = len(folders) == len(top.inside) > 1 or len(taught.inside) > 1
        if not divided:
            return {"all": top}
        for node in top.inside.values():
            if node not in folders.values():
                self.why[node.place] = "in no part"
        inner = {part: self.opened(node) for part, node in folders.items()}
        for part, node in list(inner.items()):
            flat = not any(folder.inside for folder in node.inside.values())
            lone = flat and len(node.inside) == 1
            unknown = taught.inside and lone and not {*node.inside} & {*taught.inside}
            if not node.inside or unknown:
                self.why[folders[part].place] = (
                    "images without a class; `predict` can classify them"
                )
                del inner[part]
        if not inner:
            raise UserError(f"{self.source.path}: no folder is a class; {HELP}")
        meant = {table.as_parts(set(inner))[part]: node for part, node in inner.items()}
        return {part: meant[part] for part in PARTS if part in meant}

    def named_parts(self, top: Node) -> dict[str, Node]:
        """part → the folder that is named for it, or of whose name a word is, where the others are
        called the same but for that word."""
        folders: dict[str, Node] = {}
        inside = {name: part_in(name) for name in sorted(top.inside)}
        rests = Counter(rest for part, rest in inside.values() if part)
        for name, (part, rest) in inside.items():
            if not part or not part_of(name) and rests[rest] < 2:
                continue
            if part in folders:
                raise UserError(
                    f"{self.source.path}: {folders[part].name!r} and {name!r} both name the {part} "
                    "part; put their images into one folder, or move one of them out"
                )
            folders[part] = top.inside[name]
        return folders

    def levels(self, parts: dict[str, Node]) -> Named:
        """part → class → what it has. Of two levels of folders, the outer or the inner are
        classes."""
        outer = {name for node in parts.values() for name in node.inside}
        inner = Counter(
            name
            for node in parts.values()
            for folder in node.inside.values()
            for name in folder.inside
        )
        two_levels = inner and not any(
            folder.files for node in parts.values() for folder in node.inside.values()
        )
        if not two_levels or len(inner) == 1:
            return {part: _outer(node, grouped=False) for part, node in parts.items()}
        level = self.choice.level or _guess(outer, inner)
        if not level:
            raise UserError(f"{self.source.path}: {_question(outer, inner)}")
        if level == "outer":
            grouped = not self.choice.asked.no_group
            return {part: _outer(node, grouped) for part, node in parts.items()}
        return {part: _inner(node, max(inner.values()) > 1) for part, node in parts.items()}


def _some(names: set[str] | dict[str, Any] | Counter[str]) -> str:
    return ", ".join(sorted(names)[:3]) + ", …" * (len(names) > 3)


def _question(outer: set[str], inner: Counter[str]) -> str:
    shared = max(inner.values()) > 1
    second = "groups, which stay whole" if shared else "left out of account"
    return (
        f"its folders have two levels, {_some(outer)} and in them {_some(inner)}; are the classes "
        f"the outer ones (--classes outer; the inner ones are groups, which stay whole) or the "
        f"inner ones (--classes inner; the outer ones are {second})? Or give one outer folder as "
        "the source"
    )


def _parts_in_classes(top: Node) -> dict[str, Node]:
    """part → its classes, where the folder of each class has folders of parts: cats/train."""
    inner = [folder for node in top.inside.values() for folder in node.inside]
    plain = len(top.inside) > 1 and not any(node.files for node in top.inside.values())
    parts: dict[str, Node] = {}
    if not plain or not all(map(part_of, inner)) or all(map(part_of, top.inside)):
        return {}
    for label, node in sorted(top.inside.items()):
        for name, folder in node.inside.items():
            parts.setdefault(str(part_of(name)), Node()).inside[label] = folder
    if len(parts) < 2:
        return {}
    meant = table.as_parts(set(parts))
    parts = {meant[part]: node for part, node in parts.items()}
    return {part: parts[part] for part in PARTS if part in parts}


def _guess(outer: set[str], inner: Counter[str]) -> Level | None:
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
        name: Class(
            "/".join((*folder.path, *star)),
            folder.images,
            set(folder.inside) if grouped else set(),
            [folder.path],
        )
        for name, folder in sorted(node.inside.items())
    }


def _inner(node: Node, shared: bool) -> dict[str, Class]:
    """`shared`: whether an inner folder's name stands in several outer ones, which then are
    groups."""
    classes: dict[str, Class] = {}
    for group, outer in sorted(node.inside.items()):
        for label, folder in sorted(outer.inside.items()):
            place = (*node.path, "*" if shared else group, label)
            entry = classes.setdefault(label, Class("/".join(place)))
            entry.images += folder.images
            entry.groups |= {group} if shared else set()
            entry.places.append(folder.path)
    return dict(sorted(classes.items()))


def _check(source: Source, named: Named) -> None:
    first, *others = named
    here = named[first]
    if len(here) < 2:
        found = ", ".join(map(repr, here)) or "none"
        raise UserError(
            f"{source.path}: it takes two classes or more, and {found} was found; {HELP}"
            + "".join(f"; save {name} as CSV" for name in _spreadsheets(source)[:1])
        )
    table.check(source, here)
    for part in others:
        for one, its, other in ((first, here, part), (part, named[part], first)):
            if missing := sorted(set(its) - set(named[other])):
                close = {name.casefold(): name for name in named[other]}
                meant = close.get(missing[0].casefold())
                place, there = _folder(named[one], one), _folder(named[other], other)
                raise UserError(
                    f"{source.path}: class {missing[0]!r} of {place} "
                    + (f"is called {meant!r} in {there}; rename one" if meant else "")
                    + ("" if meant else f"is missing in {there}; add it there, or remove it")
                )


def _folder(classes: dict[str, Class], part: str) -> str:
    """The folder that has a part's classes, or the part where there is none."""
    label, one = next(iter(classes.items()))
    above = {place[:-1] for place in one.places if place[-1] == label}
    return "/".join(above.pop()) if len(above) == 1 else part


def _spreadsheets(source: Source) -> list[str]:
    return [name for name in source.names if name.lower().endswith(table.SPREADSHEETS)]


def _contrary(source: Source, asked: Asked, named: Named | None) -> Table | None:
    """A table to take in place of the folders: they are no classes, or only hold a piece of the
    images each. Raises UserError where both may be the classes."""
    try:
        chosen = table.find(source, asked)
        listing = table.read(source, chosen) if chosen else Listing()
    except UserError:
        return None
    if not chosen or not named:
        return chosen
    folders = {
        image: label
        for classes in named.values()
        for label, entry in classes.items()
        for image in entry.images
    }
    pairs = {(folders[image], label) for image, label in listing.labels.items() if image in folders}
    names = set(folders.values())
    known = sum(image in folders for image in listing.labels)
    if 2 * known < len(folders) or len(pairs) == len({label for _, label in pairs}) <= len(names):
        return None
    if all(re.search(PIECES, name.lower()) for name in names):
        return chosen
    name = next(iter(chosen.tables.values()))
    raise UserError(
        f"{source.path}: the classes may be its folders ({_some(names)}: --classes outer) or those "
        f"of {name} ({_some(set(chosen.classes))}: --table {name})"
    )


def _in_folders(source: Source, named: Named, why: dict[str, str]) -> Reading:
    folders = {
        part: {label: entry.folder for label, entry in classes.items()}
        for part, classes in named.items()
    }
    images = {
        part: {label: len(entry.images) for label, entry in classes.items()}
        for part, classes in named.items()
    }
    groups = {
        group for classes in named.values() for entry in classes.values() for group in entry.groups
    }
    aside = _left(source, named, why)
    _check_beside(source, named, aside)
    notes = _unread(source, named)
    if tables := table.candidates(source, texts=False):
        notes.append(f"{tables[0]} was not read, since the folders are classes; --table reads it")
    return Reading(folders, images, len(groups), aside, notes)


def _left(source: Source, named: Named, why: dict[str, str]) -> list[Aside]:
    """Every file that is in no class, by what it is or by the topmost folder that has no class."""
    taken = {
        image for classes in named.values() for entry in classes.values() for image in entry.images
    }
    places = {
        "/".join(place): f"{part}/{label}" if part != "all" else label
        for part, classes in named.items()
        for label, entry in classes.items()
        for place in entry.places
    }
    holding = {str(folder) for place in places for folder in (*PurePosixPath(place).parents, place)}
    files_at: dict[tuple[str, str], list[str]] = {}
    for name in source.names:
        if name not in taken:
            files_at.setdefault(_place(name, places, holding, why), []).append(name)
    return [Aside(place, files, reason) for (place, reason), files in files_at.items()]


def _place(
    name: str, places: dict[str, str], holding: set[str], why: dict[str, str]
) -> tuple[str, str]:
    """Where a file that is not taken lies, and why it is not."""
    if is_hidden(name):
        return "files of the system", "hidden, or made by a program for itself"
    above = [str(folder) for folder in PurePosixPath(name).parents][::-1][1:]
    for folder in above:
        if folder in why:
            return folder, why[folder]
    for folder in above:
        if folder in places:
            return places[folder], "not named as an image that is read"
    for folder in above:
        if folder not in holding:
            return folder, "in no class's folder"
    return (above[-1] if above else "the top"), "in no class's folder"


def _check_beside(source: Source, named: Named, aside: list[Aside]) -> None:
    """Raises UserError for a folder beside those of the classes that seems to be one, of which
    nothing can be read."""
    beside = {
        place[:-1]
        for classes in named.values()
        for group in classes.values()
        for place in group.places
    }
    images = set(source.images)
    for group in aside:
        path = tuple(group.place.split("/"))
        if group.why != "in no class's folder" or path[:-1] not in beside:
            continue
        if not images.isdisjoint(group.files):
            continue
        others = [name for name in group.files if not _document(name)]
        if others and words(path[-1]) not in BESIDE.split():
            raise UserError(
                f"{source.path}: {group.place}: {_number(len(group.files), 'file')} beside the "
                f"folders of classes, none readable ({quoted(others[0])}: "
                f"{source.flaw(others[0])}); convert them to PNG or JPEG, or move the folder out"
            )


def _document(name: str) -> bool:
    return ending(name) in DOCUMENTS or PurePosixPath(name).name.lower() in (
        "readme",
        "license",
        "licence",
        "makefile",
        "copying",
    )


def _unread(source: Source, named: Named) -> list[str]:
    """What of each class cannot be read here. Raises UserError where that is all of one."""
    lines = []
    for part, classes in named.items():
        for label, entry in classes.items():
            reasons = Counter(filter(None, map(reader.unread, entry.images)))
            for reason, count in reasons.items():
                lines.append(f"{part}/{label}: {count} of {len(entry.images)} files ({reason})")
            known = [name for name in entry.images if not reader.unread(name)]
            flaws = [reader.unread(entry.images[0])] if not known else []
            for name in known:
                if not (flaw := source.flaw(name)):
                    break
                flaws.append(flaw)
            else:
                where = f"{source.path}: {'' if part == 'all' else part + '/'}{label}"
                raise UserError(
                    f"{where}: {_number(len(entry.images), 'file')}, none readable ({flaws[0]})"
                )
    return lines


def _listed(source: Source, chosen: Table, asked: Asked) -> Reading:
    """As a table says."""
    listing = table.read(source, chosen)
    named: Named = {}
    for path, label in sorted(listing.labels.items()):
        entry = named.setdefault(listing.parts[path], {}).setdefault(label, Class(""))
        entry.images.append(path)
        entry.groups |= {group for group in (listing.groups[path],) if group}
    _check(source, named)
    images = {
        part: {label: len(its[label].images) for label in chosen.classes}
        for part, its in sorted(named.items(), key=lambda pair: PARTS.index(pair[0]))
    }
    groups = {group for its in named.values() for entry in its.values() for group in entry.groups}
    settings = chosen.model_dump(exclude_none=True)
    notes = _columns(chosen, listing) + table.not_taken(source, chosen, asked)
    if unread := {*table.candidates(source, texts=False)} - {*chosen.tables.values()}:
        notes.append(f"not read: {_some(unread)}; --table reads one in its place")
    notes += _unread(source, named)
    unlabelled, tables = set(listing.unlabelled), set(chosen.tables.values())
    aside: dict[tuple[str, str], list[str]] = {}
    for name in source.names:
        if name in listing.labels or name in tables:
            continue
        place = "files of the system" if is_hidden(name) else "other files"
        why = "hidden, or made by a program for itself" if is_hidden(name) else "no images"
        if name in unlabelled:
            place, why = str(PurePosixPath(name).parent), "images without a label"
        aside.setdefault((place if place != "." else "the top", why), []).append(name)
    leftover = [Aside(place, files, why) for (place, why), files in aside.items()]
    return Reading(settings, images, len(groups), leftover, notes)


def _columns(chosen: Table, listing: Listing) -> list[str]:
    """What is read of the table, and what becomes of its lines."""
    columns = {"file": [chosen.file], "label": chosen.labels}
    columns |= {"part": [chosen.split] if chosen.split else []}
    columns |= {"group": [chosen.group] if chosen.group else []}
    read = [
        f"{what} from {', '.join(map(repr, names[:5]))}{', …' * (len(names) > 5)}"
        for what, names in columns.items()
        if names
    ]
    lines = [f"{' and '.join(chosen.tables.values())}: {', '.join(read)}"]
    left = {
        "that name no image": listing.missing,
        "without a label": listing.blank,
        "that repeat one": listing.doubled,
    }
    lines.append(f"lines taken: {len(listing.labels)}")
    return lines + [
        f"lines {what}: {len(names)} ({', '.join(names[:3])}{', …' * (len(names) > 3)})"
        for what, names in left.items()
        if names
    ]
