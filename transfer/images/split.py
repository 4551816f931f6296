"""A data set's images, sorted into train, validation and test, and audited."""

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from transfer.cli import UserError
from transfer.files import replacing
from transfer.images import audit, duplicates, folders, scan, table
from transfer.images.archive import Source, opened
from transfer.images.audit import Audit, Listed
from transfer.images.division import DIVISION, Division, draw
from transfer.images.folders import Member
from transfer.images.names import CLASSES, Classes, named
from transfer.images.reader import DECODING, Decoding
from transfer.images.scan import Picture
from transfer.params import Dataset, Folders, Split, Table


@dataclass(frozen=True)
class Sorted:
    """A data set's images by part. found: those of its source, which has these `parts`. kept: those
    left without copies. chosen: those drawn, with their parts, in order. division: how each seed
    divides those of part train, or None if no seed does."""

    found: list[Picture]
    parts: list[str]
    kept: list[Picture]
    chosen: list[Picture]
    division: Division | None


def divide(name: str, dataset: Dataset, rules: Split) -> Audit:
    """Write data/split/<dataset> and metrics/data/<dataset>.json; return what that file holds.
    Raises UserError for a source that does not hold what the settings ask for."""
    with opened(dataset.source) as source:
        members, beside = files_of_classes(source, dataset.folders)
        progress = tqdm(members, desc=name, unit=" images", delay=2, disable=None)
        decoding = Decoding(
            exif=rules.exif == "apply",
            white=rules.transparency == "white",
            srgb=rules.icc == "convert",
            max_pixels=rules.max_pixels,
        )
        found, left_out = scan.scan(source, progress, rules.unreadable, decoding)
        parts = list(dict.fromkeys(member.part for member in members))
        images = into_parts(found, parts, name, dataset, rules)
        decoding = scan.how_to_read(images.chosen, decoding)
        classes = Classes(names=sorted(dataset.folders.classes))
        write(source, images, classes, decoding, Path("data/split", name))
    described = describe(images, decoding, beside | left_out, name, dataset, rules)
    described.write(f"metrics/data/{name}.json")
    return described


def describe(
    images: Sorted,
    decoding: Decoding,
    left_out: dict[str, list[str]],
    name: str,
    dataset: Dataset,
    rules: Split,
) -> Audit:
    """left_out: reason → paths."""
    found, chosen, division = images.found, images.chosen, images.division
    kept = {picture.path for picture in images.kept}
    leaks, near = duplicates.leaks(chosen), duplicates.look_alikes(chosen)
    return Audit(
        dataset=name,
        source=dataset.source,
        rules=rules.model_dump() | {"count": dataset.count.model_dump()},
        decoding=decoding,
        few_levels=scan.few_levels(chosen, decoding),
        redrawn=division and division.model_copy(update={"units": {}}),
        left_out={why: Listed.from_names(paths) for why, paths in left_out.items()},
        no_class=folders.no_class(left_out["elsewhere"]),
        archive=audit.tally(found, found),
        dropped=audit.tally(found, (picture for picture in found if picture.path not in kept)),
        split=audit.drawn(chosen, leaks),
        shared=audit.shared_groups(chosen),
        leaked=audit.names_of(leaks),
        near=audit.names_of(near),
        remedies=remedies(images, name, dataset, rules) if leaks or near else [],
        fixed_camera=duplicates.fixed_camera(chosen, duplicates.components(chosen)),
        shortcuts=audit.shortcuts(chosen),
    )


def files_of_classes(
    source: Source, where: Folders | Table
) -> tuple[list[Member], dict[str, list[str]]]:
    """The files of the classes, by part, class and path, and what is left out: reason → paths.
    Raises UserError as folders.choose and table.read do."""
    if isinstance(where, Folders):
        return folders.choose(source, where.parts)
    listed = table.read(source, where)
    members = [
        Member(listed.parts[path], label, path, path, listed.groups[path])
        for path, label in listed.labels.items()
        if label in where.classes
    ]
    others = [path for path, label in listed.labels.items() if label not in where.classes]
    left_out = {
        "no such image": listed.missing,
        "listed twice": listed.doubled,
        "elsewhere": sorted(listed.unlabelled + others),
    }
    places = {label: place for place, label in enumerate(where.classes)}
    members.sort(key=lambda m: (table.PARTS.index(m.part), places[m.label], m.path))
    return members, left_out


def into_parts(
    found: list[Picture], parts: list[str], name: str, dataset: Dataset, rules: Split
) -> Sorted:
    """Drop copies, draw the images and divide them, as the settings say. parts: of the source.
    Raises UserError where the images are too few, or too much alike."""
    kept = without_copies(found, rules.duplicates, dataset)
    own_validation = "validation" in parts
    anew = rules.resplit and not own_validation
    if anew and dataset.pooled:
        chosen = sorted((replace(p, part="train") for p in kept), key=lambda p: p.place)
    else:
        chosen = select(kept, parts, dataset, name, rules.seed)
    if not anew and not own_validation:
        chosen = hold_out(chosen, rules.validation, name, rules.seed)
    division = by_seed(chosen, dataset, rules) if anew else None
    return Sorted(found, parts, kept, chosen, division)


def remedies(images: Sorted, name: str, dataset: Dataset, rules: Split) -> list[str]:
    """The values of split.duplicates with which these images can be divided, too."""
    possible = []
    for value in ("drop", "drop_near"):
        with suppress(UserError):
            changed = rules.model_copy(update={"duplicates": value})
            into_parts(images.found, images.parts, name, dataset, changed)
            possible.append(value)
    return possible


def without_copies(found: list[Picture], rule: str, dataset: Dataset) -> list[Picture]:
    """The images that `rule`, which is split.duplicates, keeps. Raises UserError where it leaves a
    class nothing to train on, or little since all images look alike."""
    kept = found if rule == "keep" else duplicates.drop_equal(found)
    kept = duplicates.drop_near(kept) if rule == "drop_near" else kept
    before, after = (
        Counter(p.label for p in images if p.part != "test") for images in (found, kept)
    )
    few = [label for label, count in before.items() if 2 * after[label] < count]
    look_alike = duplicates.components(found) if few and rule == "drop_near" else np.array([], int)
    camera = duplicates.fixed_camera(found, look_alike)
    for label in few:
        if camera or not after[label]:
            raise UserError(
                f"{dataset.source}: {f'{camera.words}, so ' if camera else ''}split.duplicates: "
                f"{rule} would leave class {label!r} {after[label]} of {before[label]} images to "
                "train on; set it to keep"
            )
    return kept


def by_seed(chosen: list[Picture], dataset: Dataset, rules: Split) -> Division:
    """How each seed divides the images of part train. Raises UserError where the first cannot."""
    pool = [picture for picture in chosen if picture.part == "train"]
    classes, labels = dataset.folders.classes, {picture.label for picture in pool}
    for label in classes:
        if label not in labels:
            raise UserError(f"{dataset.source}: class {label!r} {_too_few(1, 0, 0)}")
    names = [named(picture.label, picture.name) for picture in pool]
    units = dict(zip(names, duplicates.units(pool), strict=True))
    test = float(dataset.count.test) if dataset.pooled else 0.0
    found = Division(test=test, validation=rules.validation, units=units)
    found.parts(names, np.array([classes.index(picture.label) for picture in pool]), 0)
    return found


def select(
    pictures: list[Picture], parts: list[str], dataset: Dataset, name: str, seed: int
) -> list[Picture]:
    """Draw of each class and part what dataset.count asks for; of a validation part, all.

    Images of part 'all' are divided: test is drawn first, unless it asks for 'all', which is what
    the other part leaves. Groups stay whole. Raises UserError when a class has too few.
    """
    count = dataset.count.model_dump() | {"validation": "all"}
    first, second = sorted(("test", "train"), key=lambda part: count[part] == "all")
    chosen: list[Picture] = []
    for part in parts:
        decided: dict[str, bool] = {}
        for label in dataset.folders.classes:
            pool = [p for p in pictures if (p.part, p.label) == (part, label)]
            draws = Draws(name, label, seed, len(pool))
            if part != "all":
                chosen += draws.take(pool, part, count[part], {})
                continue
            taken = draws.take(pool, first, count[first], decided)
            paths = {picture.path for picture in taken}
            left = [picture for picture in pool if picture.path not in paths]
            chosen += taken + draws.take(left, second, count[second], {})
    return sorted(chosen, key=lambda picture: picture.place)


@dataclass(frozen=True)
class Draws:
    """Draws from the images of a class, of which the source has `whole`."""

    dataset: str
    label: str
    seed: int
    whole: int

    def take(
        self, pool: list[Picture], part: str, count: Any, decided: dict[str, bool]
    ) -> list[Picture]:
        """So many images of the pool (see Counts), for that part. decided: see division.draw; the
        groups of these images are added. Raises UserError when there are too few."""
        number = _number(count, self.whole, len(pool))
        if not 0 < number <= len(pool):
            where = f"params.yaml: datasets.{self.dataset}.count.{part}: class {self.label!r}"
            raise UserError(f"{where} {_too_few(number, len(pool), self.whole)}")
        units = [picture.group or picture.name for picture in pool]
        taken = _drawn(
            units, pool, number, f"{self.seed}/{self.dataset}/{self.label}/{part}", decided
        )
        if not taken:
            raise UserError(
                f"{self.dataset}: no image of class {self.label!r} is left for {part}, since its "
                "groups also have images of another class, which are in the other part; try "
                "another split.seed"
            )
        return [replace(p, part=part) for p, unit in zip(pool, units, strict=True) if unit in taken]


def hold_out(pictures: list[Picture], share: float, dataset: str, seed: int) -> list[Picture]:
    """Make that share of each class's training images (at least one, but with 0 none) the part
    `validation`. Groups, and copies of an image, stay on one side. Raises UserError when a class
    would lose all its training images."""
    if not share:
        return pictures
    train = [picture for picture in pictures if picture.part == "train"]
    unit = dict(zip((p.path for p in train), duplicates.names_of_units(train), strict=True))
    held, decided = set[str](), dict[str, bool]()
    classes = {
        label: [picture for picture in train if picture.label == label]
        for label in sorted({picture.label for picture in train})
    }
    for label, pool in classes.items():
        number, key = max(1, round(share * len(pool))), f"{seed}/{dataset}/{label}/validation"
        held |= _drawn([unit[p.path] for p in pool], pool, number, key, decided)
    for label, pool in classes.items():
        if all(unit[picture.path] in held for picture in pool):
            raise UserError(
                f"params.yaml: split.validation: {share:g} leaves {dataset} no training image of "
                f"class {label!r}, which has {len(pool)}; add images to it, or set 0.0"
            )
    return [
        replace(p, part="validation") if p.part == "train" and unit[p.path] in held else p
        for p in pictures
    ]


def _drawn(
    units: list[str], pool: list[Picture], number: int, key: str, decided: dict[str, bool]
) -> set[str]:
    """See division.draw. Groups are decided with this for classes that follow."""
    taken = draw(Counter(units), number, key, decided)
    grouped = {unit for unit, picture in zip(units, pool, strict=True) if picture.group}
    decided |= {unit: unit in taken for unit in grouped}
    return taken


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


def write(
    source: Source, images: Sorted, classes: Classes, decoding: Decoding, folder: Path
) -> None:
    """Copy each image's bytes, unchanged, to folder/<part>/<place of its class>/<name>, and beside
    them the classes, how images are decoded and, if each seed divides them anew, the division."""
    places = {label: str(place) for place, label in enumerate(classes.names)}
    with replacing(folder) as fresh:
        classes.write(fresh / CLASSES)
        decoding.write(fresh / DECODING)
        if images.division:
            images.division.write(fresh / DIVISION)
        for picture in images.chosen:
            path = fresh / picture.part / places[picture.label] / picture.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(source.read(picture.path))
