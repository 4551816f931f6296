"""A table that lists images and their labels: a CSV file, or one with tabs or semicolons."""

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from transfer.cli import UserError
from transfer.images import reader
from transfer.images.archive import Source, quoted
from transfer.images.folders import is_hidden
from transfer.params import Table, check_classes

PARTS = ("train", "validation", "test", "all")
SPELT = {
    "train": "train training trainval traindev",
    "validation": "val valid validation dev development",
    "test": "test testing eval evaluation holdout",
}
UNSAID: dict[str, str | None] = dict.fromkeys(("file", "label", "split", "group"))
"""The columns that a table's owner may name."""
NAMES = {
    "label": "label class category target species diagnosis y",
    "split": "split part set subset partition",
    "group": "group patient patient_id subject subject_id session session_id case case_id",
}
"""What columns are called, without regard to capitals, spaces and hyphens."""

Line = dict[str, str]  # column → value


@dataclass
class Listing:
    """labels, parts, groups: image → value, for every image with a label; without such a column
    its part is `all`, and its group ''. missing: lines without an image. doubled: lines that repeat
    one. unlabelled: images that no line gives a label."""

    labels: dict[str, str] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    unlabelled: list[str] = field(default_factory=list)


def find(source: Source, columns: dict[str, str | None]) -> Table | None:
    """The table nearest to the top of which half of the lines name images; None without any.

    columns: `file`, `label`, `split` and `group` → its name, if its owner has said it. Raises
    UserError where a column is missing, or which one has the labels cannot be told.
    """
    tables = [name for name in source.names if name.lower().endswith((".csv", ".tsv"))]
    images = _images(source)
    for name in sorted(filter(lambda name: not is_hidden(name), tables), key=_depth):
        lines, named = _lines(source, name), _named(images, name)
        hits = {
            column: sum(_key(line[column]) in named for line in lines)
            for column in (lines[0] if lines else ())
        }
        for column in filter(None, columns.values()):
            if column not in hits:
                raise UserError(f"{source.path}: {name} has no column {column!r}; {_has(hits)}")
        file = columns["file"] or max(hits, key=lambda column: hits[column], default="")
        if file and 2 * hits[file] >= len(lines):
            return _settings(source, name, lines, file, columns)
    return None


def words(name: str) -> str:
    """A folder's name without what does not tell parts apart: 01_Training-Set → training."""
    words = [w.removesuffix("set") for w in re.findall("[a-z]+", name.lower())]
    return "".join(w for w in words if w not in ("data", "folder", "split", "images"))


def part_of(name: str) -> str | None:
    """Of which part a folder, or a word in a table, is the name."""
    return next((part for part, names in SPELT.items() if words(name) in names.split()), None)


def _settings(
    source: Source, name: str, lines: list[Line], file: str, columns: dict[str, str | None]
) -> Table:
    others = {_word(column): column for column in lines[0] if column != file}
    found = {
        what: columns[what] or next((others[n] for n in names.split() if n in others), None)
        for what, names in NAMES.items()
    }
    if not found["label"] and len(others) == 1:
        (found["label"],) = others.values()
    if not found["label"]:
        raise UserError(
            f"{source.path}: {name}: which column is the label? {_has(lines[0])}; --label"
        )
    settings = {"table": name, "file": file, **found, "classes": ["?", "??"]}
    labels = Counter(read(source, Table.model_validate(settings)).labels.values())
    if len(labels) < 2 or 2 * len(labels) > sum(labels.values()):
        many = f"{len(labels)} values for {sum(labels.values())} images"
        raise UserError(
            f"{source.path}: {name}: {found['label']!r} has {many}, so it is no column of classes; "
            f"{_has(lines[0])}; --label"
        )
    check(source, labels)
    return Table.model_validate(settings | {"classes": sorted(labels)})


def check(source: Source, labels: Iterable[str]) -> None:
    """Raises UserError for what cannot be the names of classes."""
    try:
        check_classes(labels)
    except ValueError as error:
        raise UserError(f"{source.path}: {error}") from None


def read(source: Source, table: Table) -> Listing:
    """Raises UserError where the table or a column is missing, an image has two labels, or a word
    names no part."""
    if table.table not in source.names:
        raise UserError(f"{source.path}: it has no table {table.table!r}")
    images, found = _images(source), Listing()
    named = _named(images, table.table)
    for number, line in enumerate(_lines(source, table.table), 2):
        for column in filter(None, (table.file, table.label, table.split, table.group)):
            if column not in line:
                raise UserError(f"{source.path}: {table.table}: no column {column!r}; {_has(line)}")
        path, label = named.get(_key(line[table.file])), line[table.label].strip()
        if not path:
            found.missing.append(f"line {number}: {quoted(line[table.file])}")
        elif found.labels.get(path, label) != label:
            raise UserError(
                f"{source.path}: {table.table} line {number}: {quoted(path)} is {label!r} here and "
                f"{found.labels[path]!r} above; keep one line"
            )
        elif path in found.labels:
            found.doubled.append(f"line {number}: {quoted(line[table.file])}")
        elif label:
            found.labels[path] = label
            word = line[table.split] if table.split else ""
            if table.split and not part_of(word):
                where = f"{source.path}: {table.table} line {number}"
                raise UserError(f"{where}: {word!r} names no part")
            found.parts[path] = part_of(word) or "all"
            found.groups[path] = line[table.group] if table.group else ""
    found.unlabelled = [name for name in images if name not in found.labels]
    meant = as_parts(set(found.parts.values()))
    found.parts = {path: meant[part] for path, part in found.parts.items()}
    return found


def as_parts(there: set[str]) -> dict[str, str]:
    """What the parts of a source are for: dev beside eval is for training, val beside train is for
    testing, as in the paper, and one part alone is to be divided."""
    if len(there) == 1:
        return dict.fromkeys(there, "all")
    found = {part: part for part in there}
    if "train" not in there:
        return found | {"validation": "train"}
    return found if "test" in there else found | {"validation": "test"}


def _images(source: Source) -> list[str]:
    return [name for name in source.names if reader.kind(name) and not is_hidden(name)]


def _named(images: list[str], table: str) -> dict[str, str]:
    """What a table may call an image → its path: by its path from the top or from the table, or by
    its name, with its extension or without. A name of two images is none."""
    folder = PurePosixPath(table).parent
    found: dict[str, str] = {}
    calls: list[Callable[[PurePosixPath], str]] = [
        lambda path: path.as_posix(),
        lambda path: path.relative_to(folder).as_posix() if folder in path.parents else "",
        lambda path: path.name,
        lambda path: path.stem,
    ]
    for call in calls:
        called = [(_key(call(PurePosixPath(image))), image) for image in images]
        once = Counter(name for name, _ in called)
        found = {name: image for name, image in called if once[name] == 1} | found
    return found


def _lines(source: Source, name: str) -> list[Line]:
    text = source.read(name).decode("utf-8-sig", errors="replace")
    try:
        dialect = csv.Sniffer().sniff(text.partition("\n")[0], ",;\t")
    except csv.Error:  # one column
        return []
    lines = csv.DictReader(io.StringIO(text), dialect=dialect, restval="")
    return [{column: line[column] or "" for column in lines.fieldnames or ()} for line in lines]


def _key(name: str) -> str:
    return name.strip().replace("\\", "/").removeprefix("./").removeprefix("/")


def _word(column: str) -> str:
    return column.strip().lower().replace(" ", "_").replace("-", "_")


def _depth(name: str) -> tuple[int, str]:
    return name.count("/"), name


def _has(columns: Line | dict[str, int]) -> str:
    return f"it has {', '.join(map(repr, columns)) or 'none'}"
