"""Tables that list images and their labels: CSV files (also with tabs or semicolons), lists of
paths and labels without a header, and JSON Lines."""

import csv
import re
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from io import StringIO
from pathlib import PurePosixPath
from urllib.parse import unquote

import pandas

from transfer.cli import UserError, one_line
from transfer.images import reader
from transfer.images.archive import Source, Unreadable, is_hidden, quoted
from transfer.params import Table, check_classes

PARTS = ("train", "validation", "test", "all")
SPELT = {
    "train": "train training trainval traindev",
    "validation": "val valid validation dev development",
    "test": "test testing eval evaluation holdout",
}
NAMES = {
    "label": "label labels class classes class_name class_label label_name category category_name "
    "target species diagnosis dx breed disease y class_id label_id category_id",
    "split": "split part set subset partition",
    "group": "group patient patient_id subject subject_id session session_id case case_id",
}
"""What columns are called, without regard to capitals, spaces and hyphens."""
BESIDE = (
    "thumb thumbs thumbnail thumbnails preview previews mask masks annotation annotations "
    "segmentation segmentations trimap trimaps groundtruth"
)
"""Folders that hold pictures of the images, not images."""
FILE = "file filename file_name filepath file_path path filepaths image image_path image_name img"
YES, NO = ("true", "yes", "1", "1.0"), ("false", "no", "0", "0.0")
MISSING = ("", "nan", "<na>", "null")
"""Labels, in small letters, that say that there is none."""
FEWEST_GROUPS = 5
"""Groups at least, so that a fifth of the images can be held out without dividing one."""
TABLES_READ = 50
SPREADSHEETS = (".xlsx", ".xls", ".ods", ".parquet")


@dataclass(frozen=True)
class Asked:
    """What the owner says of the table: its name, the names of its columns, and which to ignore."""

    table: str | None = None
    file: str | None = None
    label: str | None = None
    split: str | None = None
    group: str | None = None
    no_split: bool = False
    no_group: bool = False

    @property
    def columns(self) -> list[str]:
        return [name for name in (self.file, self.label, self.split, self.group) if name]


@dataclass
class Listing:
    """labels, parts, groups: image → value, for every image with a label; without such a column
    its part is `all`, and its group ''. missing: lines without an image. doubled: lines that repeat
    one. blank: lines without a label. unlabelled: images without a label."""

    labels: dict[str, str] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    blank: list[str] = field(default_factory=list)
    unlabelled: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Lines:
    """A table read. cells: its rows, as text; those without any content are left out. first: the
    number of the line before its first row."""

    name: str
    cells: pandas.DataFrame
    first: int

    def place(self, row: int) -> str:
        return f"{self.name} line {self.first + 1 + row}"

    def column(self, name: str) -> pandas.Series:
        return self.cells[name].str.strip()


class Index:
    """Finds images by what a table calls them: the last parts of a path or URL, at best all, and
    with the file's ending or without."""

    def __init__(self, images: Iterable[str]) -> None:
        self.exact: dict[str, str] = {}
        self.loose: dict[str, str] = {}
        for image in images:
            parts = image.split("/")
            for at in range(len(parts)):
                name = "/".join(parts[at:])
                for names, key in ((self.exact, name), (self.loose, _loose(name))):
                    names[key] = image if key not in names else ""

    def find(self, cell: str) -> str:
        """The image's path; '' where no image is called so, or several are."""
        if not cell:
            return ""
        name = re.sub(r"^[a-z]{2,}://|[?#].*$", "", cell) if "://" in cell else cell
        name = name.replace("\\", "/").removeprefix("./").strip("/")
        for text in dict.fromkeys((name, unquote(name))):
            for names, key in ((self.exact, text), (self.loose, _loose(text))):
                while key not in names and "/" in key:
                    key = key.partition("/")[2]
                if names.get(key):
                    return names[key]
        return ""


def _loose(name: str) -> str:
    stem, dot, _ = name.rpartition(".")
    return (stem if dot and reader.kind(name) else name).casefold()


def words(name: str) -> str:
    """A folder's name without what does not tell parts apart: 01_Training-Set → training."""
    words = [w.removesuffix("set") for w in re.findall("[a-z]+", name.lower())]
    return "".join(w for w in words if w not in ("data", "folder", "split", "images"))


def part_of(name: str) -> str | None:
    """Of which part a folder, or a word in a table, is the name."""
    return next((part for part, names in SPELT.items() if words(name) in names.split()), None)


def part_said(column: str, word: str) -> str | None:
    """The part that a cell names; in a column such as is_train, which says yes or no, that part or
    the other. A column called valid may as well say whether an image is sound."""
    plain = re.sub("^is[ _-]+", "", column.lower())
    asked = part_of(plain) if plain != column.lower() or part_of(plain) != "validation" else None
    if asked and (answer := word.strip().lower()) in (*YES, *NO):
        return asked if answer in YES else "test" if asked == "train" else "train"
    return part_of(word)


def part_in(name: str) -> tuple[str | None, str]:
    """The part that one of a name's words names, such as that of seg_train, and the other words."""
    if part := part_of(name):
        return part, ""
    named = [word for word in re.findall("[a-z]+", name.lower()) if part_of(word)]
    return (
        (part_of(named[0]), name.lower().replace(named[0], "")) if len(named) == 1 else (None, "")
    )


def as_parts(parts: set[str]) -> dict[str, str]:
    """What the parts of a source are for: dev beside eval is for training, val beside train is for
    testing, as in the paper, and one part alone is to be divided."""
    if len(parts) == 1:
        return dict.fromkeys(parts, "all")
    meant = {part: part for part in parts}
    if "train" not in parts:
        return meant | {"validation": "train"}
    return meant if "test" in parts else meant | {"validation": "test"}


def check(source: Source, labels: Iterable[str]) -> None:
    """Raises UserError for what cannot be the names of classes."""
    try:
        check_classes(labels)
    except ValueError as error:
        raise UserError(f"{source.path}: {error}") from None


# Which table it is, and what its columns are.


def find(source: Source, asked: Asked) -> Table | None:
    """The table, or one for each part, that has classes for most images; None without any.

    Raises UserError where one that names images cannot be understood, and no other can.
    """
    readings: list[tuple[Table, Listing]] = []
    errors: list[UserError] = []
    for name in [asked.table] if asked.table else candidates(source):
        try:
            if table := _understood(source, name, asked):
                readings.append((table, read(source, table)))
        except UserError as error:
            errors.append(error)
    if joined := _joined(readings):
        readings.append((joined, read(source, joined)))
    if not readings:
        if errors:
            raise errors[0]
        return None
    best, _ = max(readings, key=lambda one: _worth(*one))
    check(source, best.classes)
    return best


def _worth(table: Table, listing: Listing) -> tuple[bool, int, bool]:
    """By which the table to take is chosen."""
    return "submission" not in str(table.table), len(listing.labels), len(table.tables) > 1


def why_none(source: Source) -> str:
    """Why the first file that is named as a table was not read, as the end of a sentence."""
    names = candidates(source, texts=False)
    try:
        if names:
            _understood(source, names[0], Asked(table=names[0]))
    except UserError as error:
        return f"; no table was read: {str(error).removeprefix(f'{source.path}: ')}"
    return ""


def candidates(source: Source, texts: bool = True) -> list[str]:
    """Files that may be tables, those nearest to the top first. Text files, if asked for, are only
    looked at where there are few, since annotations come one a file."""
    names = [name for name in source.names if not is_hidden(name)]
    tables = [name for name in names if name.lower().endswith((".csv", ".tsv", ".jsonl"))]
    lists = [name for name in names if texts and name.lower().endswith(".txt")]
    few = tables + (lists if len(lists) <= TABLES_READ else [])
    return sorted(few, key=lambda name: (name.count("/"), name))[:TABLES_READ]


def _understood(source: Source, name: str, asked: Asked) -> Table | None:
    """A table's columns; None where it names no images and its owner has not named it.

    Raises UserError where a column is missing, or cannot be told.
    """
    if name not in source.names:
        near = ", ".join(map(repr, candidates(source)[:8])) or "none"
        raise UserError(f"{source.path}: it has no table {name!r}; it has {near}")
    lines = load(source, name)
    for column in asked.columns:
        if column not in lines.cells:
            raise UserError(f"{source.path}: {name} has no column {column!r}; {_has(lines)}")
    if lines.cells.empty:
        return None
    file = asked.file or _file_column(source, lines, bool(asked.table))
    if not file:
        return None
    rows = lines.cells[_matched(source, lines, file) != ""]
    if not len(rows):
        raise UserError(f"{source.path}: {_no_match(source, lines, file)}")
    split = None if asked.no_split else asked.split or _split_column(rows, file)
    if split and len({part_said(split, word) for word in rows[split]}) == 1:
        split = None  # all of one part, which is to be divided
    group = None if asked.no_group else asked.group or _group_column(rows, file)
    label = asked.label or _label_column(source, lines, rows, {file, split, group})
    settings = {"table": name, "file": file, "label": label, "split": split, "group": group}
    table = Table.model_validate(settings | {"classes": ["?", "??"]})
    return _with_classes(source, lines, table, rows)


def _file_column(source: Source, lines: Lines, named: bool) -> str:
    """The column that names images: of several the one with paths or endings, then the one that is
    called file or the like. '' where none does. Raises UserError where two name different ones."""
    known = {name for names in NAMES.values() for name in names.split()}
    columns = [name for name in lines.cells if _word(name) not in known]
    scores: dict[str, tuple[bool, bool]] = {}
    images: dict[str, list[str]] = {}
    for column in columns:
        cells = lines.column(column)
        like_paths = 2 * cells.map(lambda cell: bool(reader.kind(cell))).sum() >= len(cells) > 0
        sample = cells[:: max(1, len(cells) // 2000)]
        matched = _matched(source, lines, column, sample)
        hits = (matched != "").sum()
        enough = 2 * hits >= (sample != "").sum() or (
            2 * hits * len(cells) >= len(sample) * len(source.images)
        )
        if hits and enough and (like_paths or 5 * sample.nunique() >= len(sample)):
            scores[column] = like_paths, _word(column) in FILE.split()
            images[column] = list(matched)
        elif like_paths and named:
            raise UserError(f"{source.path}: {_no_match(source, lines, column)}")
    best = [column for column in scores if scores[column] == max(scores.values())]
    if any(images[column] != images[best[0]] for column in best):
        raise UserError(
            f"{source.path}: {lines.name}: {' and '.join(map(repr, best))} both name images, and "
            "different ones; --file COLUMN takes one"
        )
    if not best and named:
        raise UserError(f"{source.path}: {_no_match(source, lines, [*columns, *lines.cells][0])}")
    return best[0] if best else ""


def _no_match(source: Source, lines: Lines, column: str) -> str:
    example = next(filter(None, lines.column(column)), "")
    image = source.images[0] if source.images else "none"
    return (
        f"{lines.name}: its column {column!r} has {quoted(example)}, which names no image; an "
        f"image here is {quoted(image)}; --file takes another column"
    )


def _split_column(rows: pandas.DataFrame, file: str) -> str | None:
    """The column called split or the like, if most of its values name parts; or one called
    otherwise, if all do."""
    for column in _called("split", rows, file):
        if 2 * rows[column].map(lambda word: bool(part_of(word))).sum() > len(rows):
            return column
    others = [name for name in rows if name not in (file, *_called("label", rows))]
    for column in others:
        parts = {part_said(column, word) for word in rows[column].unique()}
        if None not in parts and len(parts) > 1:
            return column
    return None


def _group_column(rows: pandas.DataFrame, file: str) -> str | None:
    """The column called group or the like, if it has enough groups."""
    columns = _called("group", rows, file)
    return next((name for name in columns if rows[name].nunique() >= FEWEST_GROUPS), None)


def _label_column(
    source: Source, lines: Lines, rows: pandas.DataFrame, used: set[str | None]
) -> str | list[str]:
    """The column of classes, or the columns of which each says 1 for the images of its class."""
    others = [name for name in rows if name not in used]
    if named := [name for name in _called("label", rows) if name in others]:
        texts = [name for name in named if not rows[name].str.fullmatch(r"[\d.\s]*").all()]
        # Of a class's number and its name, the name.
        same = [
            name
            for name in texts
            if len(rows.drop_duplicates([name, named[0]])) == rows[named[0]].nunique()
            and rows[name].nunique() == rows[named[0]].nunique()
        ]
        return (same or named)[0]
    ones = [name for name in others if set(rows[name].map(_bit)) == {True, False}]
    if len(ones) > 1:
        counts = sum(rows[name].map(_bit).astype(int) for name in ones)
        if 3 * (counts == 1).sum() >= 2 * len(rows):
            never = [name for name in others if set(rows[name].map(_bit)) == {False}]
            return [name for name in others if name in {*ones, *never}]
        if all(set(rows[name].map(_bit)) <= {True, False} for name in others):
            raise UserError(
                f"{source.path}: {lines.name}: {', '.join(map(repr, ones[:5]))} say 0 or 1, and "
                "many images have several 1 or none; an image can have one label here: --label "
                "COLUMN takes one column"
            )
    if len(others) == 1:
        return others[0]
    raise UserError(
        f"{source.path}: {lines.name}: which column is the label? {_has(lines)}; --label COLUMN"
    )


def _bit(cell: str) -> bool | None:
    bits = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}
    return bits.get(cell.strip().lower())


def _called(what: str, rows: pandas.DataFrame, *but: str) -> list[str]:
    """The columns that are called so, in the order of NAMES."""
    by_word = {_word(name): name for name in rows if name not in but}
    return [by_word[name] for name in NAMES[what].split() if name in by_word]


def _with_classes(source: Source, lines: Lines, table: Table, rows: pandas.DataFrame) -> Table:
    """The table's settings with its classes. Raises UserError where its column of labels can be
    none."""
    labels = _labels(source, lines, table.label)[rows.index]
    counts = Counter(label for label in labels if label)
    what = f"{lines.name}: {', '.join(map(repr, table.labels[:3]))}"
    if len(counts) < 2 or 2 * len(counts) > sum(counts.values()):
        raise UserError(
            f"{source.path}: {what} has {len(counts)} values for {sum(counts.values())} images, so "
            f"it is no column of classes; {_has(lines)}; --label COLUMN"
        )
    double = {label for label in counts if _several(label, counts)}
    if several := list(labels.index[labels.isin(double)]):
        _refuse_several(source, lines, several, labels[several[0]])
    return table.model_copy(update={"classes": sorted(counts)})


def _several(label: str, counts: Counter[str]) -> bool:
    """Whether a cell has several labels: all its words are labels, or between commas, | or ;, all
    are labels or also stand in other cells."""
    plain = label.strip("[](){}")
    divided = [word.strip(" '\"") for word in re.split(r"[,;|]", plain)]
    if len(divided) > 1 and all(divided):
        return all(word in counts or _stands(word, label, counts) for word in divided)
    spaced = re.split(r"[\s&+]+", plain)
    return len(spaced) > 1 and all(word in counts for word in spaced)


def _stands(word: str, label: str, counts: Counter[str]) -> bool:
    return any(other != label and word in re.split(r"[,;|\[\]'\"\s]+", other) for other in counts)


def _refuse_several(source: Source, lines: Lines, rows: list[int], example: str) -> None:
    numbers = ", ".join(str(lines.first + 1 + row) for row in rows[:5])
    more = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
    raise UserError(
        f"{source.path}: {lines.name}: several labels in line {numbers}{more} ({quoted(example)}); "
        "an image can have one label here: keep one, or join the words of one label by _"
    )


def _joined(readings: list[tuple[Table, Listing]]) -> Table | None:
    """One of several tables with the same columns that are named for parts, or lie in folders that
    are, and that list different images."""
    parts: dict[str, tuple[Table, Listing]] = {}
    for table, listing in readings:
        part = _named_for(str(table.table))
        if part and "submission" not in str(table.table):
            first = next(iter(parts.values()), (table, listing))[0]
            if (table.file, table.label) == (first.file, first.label):
                parts.setdefault(part, (table, listing))
    images = [image for _, listing in parts.values() for image in listing.labels]
    if len(parts) < 2 or len(images) > len(set(images)):
        return None
    tables = [table for table, _ in parts.values()]
    group = tables[0].group if len({table.group for table in tables}) == 1 else None
    settings = {
        "table": {part: parts[part][0].table for part in PARTS if part in parts},
        "classes": sorted({label for table in tables for label in table.classes}),
    }
    return tables[0].model_copy(update=settings | {"split": None, "group": group})


def _named_for(table: str) -> str | None:
    path = PurePosixPath(table)
    for name in (path.stem, *reversed(path.parent.parts)):
        if part := part_in(name)[0]:
            return part
    return None


def not_taken(source: Source, table: Table, asked: Asked) -> list[str]:
    """Why columns that are called as those of parts or groups are not taken for them."""
    lines, notes = load(source, next(iter(table.tables.values()))), []
    if not table.divided and not asked.no_split:
        for name in _called("split", lines.cells, table.file, *table.labels):
            notes.append(f"{name!r} is not taken for the part: most of its values name none")
    if not table.group and not asked.no_group:
        for name in _called("group", lines.cells, table.file, *table.labels):
            number = lines.cells[name].nunique()
            notes.append(
                f"{name!r} is not taken for groups: it has {number} values, and a fifth of the "
                f"images can be held out where there are {FEWEST_GROUPS} or more"
            )
    return notes


# What a table says.


def read(source: Source, table: Table) -> Listing:
    """Raises UserError where the table or a column is missing, an image has two labels or parts, or
    a word names no part."""
    listing, lines_of = Listing(), dict[str, str]()
    for part, name in table.tables.items():
        if name not in source.names:
            raise UserError(f"{source.path}: it has no table {name!r}")
        lines = load(source, name)
        columns = [table.file, *table.labels, table.split, table.group]
        for column in filter(None, columns):
            if column not in lines.cells:
                raise UserError(f"{source.path}: {name}: no column {column!r}; {_has(lines)}")
        _take(source, lines, table, part, listing, lines_of)
    listing.unlabelled = [name for name in source.images if name not in listing.labels]
    meant = as_parts(set(listing.parts.values()))
    listing.parts = {path: meant[part] for path, part in listing.parts.items()}
    return listing


def _take(
    source: Source,
    lines: Lines,
    table: Table,
    part: str,
    listing: Listing,
    lines_of: dict[str, str],
) -> None:
    """Add what a table's lines say. lines_of: image → the line that named it, and how."""
    labels = _labels(source, lines, table.label)
    paths, cells = _matched(source, lines, table.file), lines.column(table.file)
    blank = pandas.Series("", lines.cells.index)
    words = lines.column(table.split) if table.split else blank
    groups = lines.column(table.group) if table.group else blank
    for row, path in paths.items():
        label, where = labels[row], lines.place(row)
        line = f"line {lines.first + 1 + row}: {quoted(cells[row])}"
        if len(table.tables) > 1:
            line = f"{lines.name} {line}"
        if not path:
            listing.missing.append(line)
        elif not label:
            listing.blank.append(line)
        elif path not in listing.labels:
            if table.split and not (part := part_said(table.split, words[row]) or ""):
                raise UserError(
                    f"{source.path}: {where}: {words[row]!r} names no part; write train, val or "
                    "test, or run own with --no-split"
                )
            listing.labels[path], listing.parts[path], listing.groups[path] = (
                label,
                part,
                groups[row],
            )
            lines_of[path] = f"{where}: {cells[row]}"
        else:
            other, _, called = lines_of[path].partition(": ")
            if listing.labels[path] != label or (not table.split and listing.parts[path] != part):
                raise UserError(
                    f"{source.path}: {where}: {quoted(path)} is {label!r} here and "
                    f"{listing.labels[path]!r} above, in {other}; keep one line"
                )
            if called != cells[row]:
                raise UserError(
                    f"{source.path}: {where}: {quoted(cells[row])} and {quoted(called)} above both "
                    f"would be {quoted(path)}; give their paths from the top of the source"
                )
            listing.doubled.append(line)


def _labels(source: Source, lines: Lines, label: str | list[str]) -> pandas.Series:
    """Row → its label, or '' for none. Raises UserError for rows with several."""
    if isinstance(label, list):
        ones = pandas.DataFrame({name: lines.cells[name].map(_bit) == True for name in label})  # noqa: E712
        if several := list(ones.index[ones.sum(axis=1) > 1]):
            both = " and ".join(ones.columns[ones.loc[several[0]]])
            _refuse_several(source, lines, several, both)
        return ones.idxmax(axis=1).where(ones.any(axis=1), "").str.strip()
    cells = lines.column(label)
    cells = cells.where(~cells.str.lower().isin(MISSING), "")
    values = set(cells)
    # A program that writes whole numbers with a point may have written some of them.
    whole = {name: name.partition(".")[0] for name in values if re.fullmatch(r"-?\d+\.0+", name)}
    return cells.replace({name: other for name, other in whole.items() if other in values})


def _matched(
    source: Source, lines: Lines, column: str, cells: pandas.Series | None = None
) -> pandas.Series:
    """Row → the image that its cell names, or ''. Names are looked up among the images in the
    table's folder, or in folders of the part that it is named for, if most are there."""
    cells = lines.column(column) if cells is None else cells
    matched = cells.map(_index(source, None).find)
    scope = _scope(source, lines.name)
    if scope:
        near = cells.map(_index(source, scope).find)
        if 2 * (near != "").sum() >= max((matched != "").sum(), 1):
            return near
    return matched


def _images(source: Source) -> list[str]:
    """Without masks and the like, which are often called as the images are."""
    if "images" not in source.kept:
        beside = set(BESIDE.split())
        real = [
            name
            for name in source.images
            if not any(words(folder) in beside for folder in name.split("/")[:-1])
        ]
        source.kept["images"] = real or source.images
    return source.kept["images"]


def _scope(source: Source, table: str) -> str | None:
    folder = str(PurePosixPath(table).parent)
    if folder != "." and any(image.startswith(folder + "/") for image in _images(source)):
        return folder
    part = _named_for(table)
    tops = {image.split("/")[0] for image in _images(source) if "/" in image}
    return next((top for top in sorted(tops) if part and part_in(top)[0] == part), None)


def _index(source: Source, folder: str | None) -> Index:
    """Kept with the source, since every column of every table is looked up."""
    kept = source.kept
    if ("index", folder) not in kept:
        start = f"{folder}/" if folder else ""
        kept["index", folder] = Index(name for name in _images(source) if name.startswith(start))
    return kept["index", folder]


# How a table is read.


def load(source: Source, name: str) -> Lines:
    """Raises UserError for a file that is no table in UTF-8."""
    if ("table", name) not in source.kept:
        text = _text(source, name)
        source.kept["table", name] = _json if name.lower().endswith(".jsonl") else _csv
        source.kept["table", name] = source.kept["table", name](source, name, text)
    return source.kept["table", name]


def _text(source: Source, name: str) -> str:
    try:
        data = source.read(name)
    except Unreadable as error:
        raise UserError(f"{source.path}: {name}: {error}") from None
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        shown = data.splitlines()[line - 1].decode("cp1252", errors="replace").strip()
        raise UserError(
            f"{source.path}: {name} line {line} is not in UTF-8 (in Windows' cp1252 it is "
            f"{quoted(shown)}); save the table as 'CSV UTF-8', or run iconv -f cp1252 -t utf-8"
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _json(source: Source, name: str, text: str) -> Lines:
    try:
        cells = pandas.read_json(StringIO(text), lines=True, dtype=False)
    except ValueError as error:
        raise UserError(f"{source.path}: {name}: not JSON Lines ({one_line(error)})") from None
    return Lines(name, cells.astype(str), 0)


def _csv(source: Source, name: str, text: str) -> Lines:
    lines = text.split("\n")
    skipped = 0
    while skipped < len(lines) and (lines[skipped].startswith("#") or not lines[skipped].strip()):
        skipped += 1
    mark = re.fullmatch(r'"?sep=(.)"?', lines[skipped].strip()) if skipped < len(lines) else None
    skipped += bool(mark)
    start = [*lines[skipped : skipped + 2], "", ""]
    separator = mark[1] if mark else _separator(name, start)
    first, second = (next(csv.reader([line], delimiter=separator), []) for line in start[:2])
    header = not any(map(_index(source, None).find, first))
    more = [cell for cell in second[len(first) :] if cell.strip()]
    named_rows = 1 < len(first) == len(second) - 1 and bool(more)  # as R writes them
    if more and not named_rows:
        raise UserError(
            f"{source.path}: {name} line {skipped + 2} has {len(second)} cells, and the one above "
            f"{len(first)}; remove what stands above the header, or make them equal"
        )
    try:
        # A comma at each line's end gives a cell more than the header has, which is empty.
        warnings.simplefilter("ignore", pandas.errors.ParserWarning)
        cells = pandas.read_csv(
            StringIO("\n".join(lines[skipped:])),
            sep=separator,
            dtype=str,
            header=0 if header else None,
            index_col=0 if header and named_rows else False,
            keep_default_na=False,
            skip_blank_lines=False,
            skipinitialspace=True,
        ).fillna("")
    except (pandas.errors.ParserError, pandas.errors.EmptyDataError, ValueError) as error:
        why = one_line(error).removeprefix("Error tokenizing data. C error: ")
        raise UserError(
            f"{source.path}: {name}: not a table ({why}); a cell that has {separator!r} in it must "
            "be in quotes"
        ) from None
    cells = cells.reset_index(drop=True)
    cells.columns = [str(one).strip() if header else str(one + 1) for one in cells.columns]
    blank = (cells.apply(lambda column: column.str.strip()) == "").all(axis=1)
    return Lines(name, cells[~blank], skipped + header)


def _separator(name: str, start: list[str]) -> str:
    """What divides the cells of a table's first two lines."""
    counts = {one: min(start[0].count(one), start[1].count(one)) for one in ",;\t|"}
    best = max(counts, key=lambda one: counts[one])
    return " " if not counts[best] and name.lower().endswith(".txt") else best


def _word(column: str) -> str:
    return column.strip().lower().replace(" ", "_").replace("-", "_")


def _has(lines: Lines) -> str:
    shown = [quoted(name) for name in list(lines.cells)[:20]]
    more = f" and {lines.cells.shape[1] - 20} more" if lines.cells.shape[1] > 20 else ""
    return f"it has {', '.join(shown) or 'none'}{more}"
