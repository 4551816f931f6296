"""A data set's images, divided into train, validation and test."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from transfer.cli import UserError
from transfer.files import replacing
from transfer.images import audit, folds, near, table
from transfer.images.archive import Source, opened
from transfer.images.audit import Audit, Member, Picture
from transfer.images.folds import Division
from transfer.images.names import CLASSES, Classes, named
from transfer.images.reader import DECODING, Decoding
from transfer.images.table import PARTS
from transfer.params import Dataset, Folders, Split, Table


def divide(name: str, dataset: Dataset, rules: Split) -> Audit:
    """Write data/split/<dataset> and metrics/data/<dataset>.json; return what that file holds.
    Raises UserError for a source that does not hold what the settings ask for."""
    count = dataset.count.model_dump()
    with opened(dataset.source) as source:
        members, beside = found_in(source, dataset.folders)
        progress = tqdm(members, desc=name, unit=" images", delay=2, disable=None)
        decoding = Decoding(
            exif=rules.exif == "apply",
            white=rules.transparency == "white",
            srgb=rules.icc == "convert",
            max_pixels=rules.max_pixels,
        )
        found, left_out = audit.scan(source, progress, rules.unreadable, decoding)
        kept = audit.drop_duplicates(found) if rules.duplicates != "keep" else found
        if rules.duplicates == "drop_near":
            gone = near.dropped(kept)
            kept = [picture for picture in kept if picture not in gone]
        parts = dict.fromkeys(member.part for member in members)
        redrawn = rules.resplit and "validation" not in parts
        if redrawn and dataset.pooled:
            chosen = sorted((replace(p, part="train") for p in kept), key=audit.place)
        else:
            chosen = select(kept, list(parts), dataset.folders.classes, count, name, rules.seed)
        if not redrawn and "validation" not in parts:
            chosen = hold_out(chosen, rules.validation, name, rules.seed)
        decoding = audit.how_to_read(chosen, decoding)
        division = divided_anew(chosen, dataset, rules) if redrawn else None
        classes = Classes(names=sorted(dataset.folders.classes))
        write(source, chosen, classes, decoding, Path("data/split", name), division)
    report = Audit(
        dataset=name,
        source=dataset.source,
        rules=rules.model_dump() | {"count": count},
        decoding=decoding,
        few_levels=audit.few_levels(chosen, decoding),
        redrawn=None if division is None else division.model_copy(update={"units": {}}),
        left_out={
            why: audit.Listed.from_names(paths) for why, paths in (beside | left_out).items()
        },
        no_class=audit.no_class(beside["elsewhere"]),
        archive=audit.describe(found),
        dropped=audit.tally(found, set(found) - set(kept)),
        split=audit.describe(chosen),
        groups=audit.groups(chosen),
        leaked=audit.leaked(chosen),
        near=audit.alike(chosen),
    )
    report.write(f"metrics/data/{name}.json")
    return report


def found_in(source: Source, where: Folders | Table) -> tuple[list[Member], audit.LeftOut]:
    """The files of the classes, by part, class and path, and what is left out. Raises UserError as
    audit.choose and table.read do."""
    if isinstance(where, Folders):
        return audit.choose(source, where.parts)
    listed = table.read(source, where)
    members = [
        Member(listed.parts[path], label, path, path, listed.groups[path])
        for path, label in listed.labels.items()
        if label in where.classes
    ]
    beside = {"no such image": listed.missing, "listed twice": listed.doubled}
    others = [path for path, label in listed.labels.items() if label not in where.classes]
    beside |= {"elsewhere": sorted(listed.unlabelled + others)}
    order = {label: at for at, label in enumerate(where.classes)}
    return sorted(members, key=lambda m: (PARTS.index(m.part), order[m.label], m.path)), beside


def divided_anew(chosen: list[Picture], dataset: Dataset, rules: Split) -> Division:
    """How each seed divides the training pictures. Raises UserError where the first one cannot."""
    pool = [picture for picture in chosen if picture.part == "train"]
    classes, there = dataset.folders.classes, {picture.label for picture in pool}
    if gone := [label for label in classes if label not in there]:
        raise UserError(f"{dataset.source}: class {gone[0]!r} {_too_few(1, 0, 0)}")
    names = [named(picture.label, picture.name) for picture in pool]
    units = dict(zip(names, near.units(pool), strict=True))
    test = float(dataset.count.test) if dataset.pooled else 0.0
    division = Division(test=test, validation=rules.validation, units=units)
    division.parts(names, np.array([classes.index(picture.label) for picture in pool]), 0)
    return division


def write(
    source: Source,
    pictures: list[Picture],
    classes: Classes,
    decoding: Decoding,
    folder: Path,
    division: Division | None,
) -> None:
    """Copy each picture's bytes, unchanged, to folder/<part>/<place of its class>/<name>, and
    beside them the classes, how images are to be read and, where each seed does that anew,
    divided."""
    places = {label: str(place) for place, label in enumerate(classes.names)}
    with replacing(folder) as fresh:
        classes.write(fresh / CLASSES)
        decoding.write(fresh / DECODING)
        if division:
            division.write(fresh / folds.FILE)
        for picture in pictures:
            path = fresh / picture.part / places[picture.label] / picture.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(source.read(picture.path))


def summary(report: Audit) -> list[str]:
    chosen, name = report.split, report.dataset
    parts = [
        f"{part}: " + ", ".join(f"{count} {label}" for label, count in chosen.images[part].items())
        for part in PARTS
        if part in chosen.images
    ]
    out = [f"{left.count} {why}" for why, left in report.left_out.items() if left.count]
    lines = [f"{name}: {'; '.join(parts)}; left out: {', '.join(out) or 'none'}"]
    if anew := report.redrawn:
        shares = {"test": anew.test, "validation": anew.validation}
        held = " and ".join(f"{share:g} for {part}" for part, share in shares.items() if share)
        lines.append(f"{name}: each seed holds out others of the training images: {held}")
    lines += [f"{name}: {line}" for line in (*elsewhere(report), *uneven(report), *deep(report))]
    if (shared := report.groups.shared).count:
        some = ", ".join(shared.names)
        lines.append(f"{name}: {shared.count} groups are in test and in training too: {some}")
    if report.near:
        lines.append(
            f"{name}: {len(report.near)} further test images look like one in training, re-saved, "
            "scaled or mirrored; split.duplicates: drop_near would take those out of training"
        )
    for label, leaked in chosen.duplicates.across.items():
        if leaked:
            lines.append(
                f"{name}: {leaked} of {chosen.images['test'][label]} test images "
                f"of {label} are in training too; split.duplicates: drop would take those out"
            )
    return lines


def elsewhere(report: Audit) -> list[str]:
    """A line on images that belong to no class, by their folders."""
    if not report.no_class:
        return []
    some = ", ".join(f"{folder} ({count} images)" for folder, count in report.no_class.items())
    return [
        f"no class takes {some}; if one should, add it to datasets.{report.dataset}.folders, or "
        f"run `python -m transfer own {report.source}` again"
    ]


def deep(report: Audit) -> list[str]:
    """Lines on images that are more than one image of 8 bits in sRGB."""
    decoding, lines = report.decoding, []
    if decoding.low is not None and decoding.high is not None:
        lines.append(
            f"images of more than 8 bits: {decoding.low:g} becomes black and {decoding.high:g} "
            "white, the range of those in training without the outermost 0.1 %"
        )
    if report.few_levels is not None:
        lines.append(
            f"warning: half of them have at most {report.few_levels} of 256 grey levels left, as "
            "some values are far lower or higher; mask those, or save the images in 8 bits"
        )
    if profiles := report.split.profiles:
        names = ", ".join(f"{name} ({count} images)" for name, count in profiles.items())
        done = "converted to sRGB" if decoding.srgb else "ignored; split.icc: convert would use it"
        lines.append(f"another ICC profile than sRGB, {names}, is {done}")
    if pages := report.split.pages:
        lines.append(f"{pages} files hold several images, of which the first is taken")
    return lines


def uneven(report: Audit) -> list[str]:
    """Lines on classes of which a part has far more or fewer images than its share."""
    images, before, lines = report.split.images, report.archive.images, []
    shares = {} if "validation" in before else {"validation": report.rules["validation"]}
    if "all" in before and isinstance(report.rules["count"]["test"], float):
        shares["test"] = report.rules["count"]["test"]
    for part, share in shares.items():
        for label, count in images.get(part, {}).items():
            held = images["train"][label] + count
            whole = held if part == "validation" else before["all"][label]
            wanted = max(1, share * whole)
            if abs(count - wanted) >= 1 and not 0.5 <= count / wanted <= 1.5:
                lines.append(
                    f"{part} has {count} of {whole} images of {label}, where a share of {share:g} "
                    "was asked for: groups and copies of an image stay together"
                )
    return lines


def select(
    pictures: list[Picture],
    parts: list[str],
    classes: list[str],
    count: dict[str, Any],
    dataset: str,
    seed: int,
) -> list[Picture]:
    """Draw `count` (part → a number, a fraction of the class, or 'all') of each class; of a
    validation part, all.

    The order of drawing depends on the seed, the data set, the class, the part and the name, so a
    larger count holds the smaller one. Pictures of part 'all' are divided: test is drawn first,
    unless it asks for 'all', which is what the other part leaves. Groups stay whole. Raises
    UserError when a class has too few.
    """
    count, drawn = count | {"validation": "all"}, []
    for part in parts:
        if part != "all":
            for label in classes:
                group = [p for p in pictures if (p.part, p.label) == (part, label)]
                drawn += _draw(group, len(group), part, label, count[part], dataset, seed)
            continue
        first, second = sorted(("test", "train"), key=lambda part: count[part] == "all")
        groups: dict[str, bool] = {}
        for label in classes:
            pool = [p for p in pictures if (p.part, p.label) == (part, label)]
            some = _draw(pool, len(pool), first, label, count[first], dataset, seed, groups)
            names = {p.name for p in some}
            left = [p for p in pool if p.name not in names]
            drawn += some + _draw(left, len(pool), second, label, count[second], dataset, seed)
    return sorted(drawn, key=audit.place)


def hold_out(pictures: list[Picture], share: float, dataset: str, seed: int) -> list[Picture]:
    """Make that share of each class's training images (at least one, but with 0 none) the part
    `validation`. Groups, and copies of an image, stay on one side. Raises UserError when a class
    would lose all its training images."""
    if not share:
        return pictures
    train = [p for p in pictures if p.part == "train"]
    unit, held, groups = _units(train), set[str](), dict[str, bool]()
    classes = {label: [p for p in train if p.label == label] for label in {p.label for p in train}}
    for label, own in sorted(classes.items()):
        number = max(1, round(share * len(own)))
        order = _shuffled(f"{seed}/{dataset}/{label}/validation")
        held |= {unit[p.path] for p in _whole(own, number, lambda p: unit[p.path], order, groups)}
    for label, own in sorted(classes.items()):
        if all(unit[p.path] in held for p in own):
            raise UserError(
                f"params.yaml: split.validation: {share:g} leaves {dataset} no training image of "
                f"class {label!r}, which has {len(own)}; add images to it, or set 0.0"
            )
    return [
        replace(p, part="validation") if p.part == "train" and unit[p.path] in held else p
        for p in pictures
    ]


def _units(pictures: list[Picture]) -> dict[str, str]:
    """path → what names the unit that the picture stays in: the first of its groups, if it has any,
    which copies of an image may join; or else what its copies have in common."""
    first: dict[int, tuple[bool, str]] = {}
    numbers = near.copies(pictures)
    for number, picture in zip(numbers, pictures, strict=True):
        own = not picture.group, picture.group or picture.content.digest
        first[number] = min(first.get(number, own), own)
    return {p.path: first[number][1] for number, p in zip(numbers, pictures, strict=True)}


def _draw(
    group: list[Picture],
    whole: int,
    part: str,
    label: str,
    count: Any,
    dataset: str,
    seed: int,
    groups: dict[str, bool] | None = None,
) -> list[Picture]:
    number = _number(count, whole, len(group))
    if not 0 < number <= len(group):
        where = f"params.yaml: datasets.{dataset}.count.{part}: class {label!r}"
        raise UserError(f"{where} {_too_few(number, len(group), whole)}")
    order = _shuffled(f"{seed}/{dataset}/{label}/{part}")
    taken = {} if groups is None else groups
    some = _whole(group, number, lambda p: p.group or p.name, order, taken)
    if not some:
        raise UserError(
            f"{dataset}: no image of class {label!r} is left for {part}, since its groups also "
            "have images of another class, which are in the other part; try another split.seed"
        )
    return [replace(p, part=part) for p in some]


def _whole(
    pictures: list[Picture],
    number: int,
    unit: Callable[[Picture], str],
    order: Callable[[str], str],
    groups: dict[str, bool],
) -> list[Picture]:
    """That many pictures, in that order of their units, which stay whole. A unit that would lead
    past the number is passed over, but for the smallest if that leaves none. `groups`: which groups
    were taken for classes before, and are now."""
    units: dict[str, list[Picture]] = {}
    for picture in pictures:
        units.setdefault(unit(picture), []).append(picture)
    taken = [unit for name, unit in units.items() if groups.get(name)]
    left = sorted((name for name in units if name not in groups), key=order)
    room = number - sum(map(len, taken))
    chosen: list[str] = []
    for name in left:
        if len(units[name]) <= room:
            chosen.append(name)
            room -= len(units[name])
    if not taken and not chosen and left:
        chosen = [min(left, key=lambda name: len(units[name]))]
    groups |= {name: name in chosen for name in left if any(p.group for p in units[name])}
    return [picture for unit in taken + [units[name] for name in chosen] for picture in unit]


def _shuffled(place: str) -> Callable[[str], str]:
    """A sorting key that shuffles names by hash, each place its own way."""

    def key(name: str) -> str:
        # A group's folder may not be UTF-8.
        return hashlib.sha256(f"{place}/{name}".encode(errors="surrogateescape")).hexdigest()

    return key


def _too_few(asked: int, has: int, whole: int) -> str:
    if not whole:
        return "has no image, without those left out or dropped"
    if not has:
        return "has none left; lower the other count"
    left = " left" if has < whole else ", without those left out or dropped,"
    return f"has {has} images{left} and {asked} are asked for; set {has} or fewer, or all"


def _number(count: Any, whole: int, left: int) -> int:
    """A fraction rounds down, so that two that add up to 1 fit; 0.29 of 100 is 29 all the same."""
    if count == "all":
        return left
    return count if isinstance(count, int) else max(1, int(count * whole + 1e-9))
