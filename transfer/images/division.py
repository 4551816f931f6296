"""A data set's images, divided into train, validation and test."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from transfer.cli import UserError
from transfer.files import replacing
from transfer.images import audit
from transfer.images.archive import Source, opened
from transfer.images.audit import Audit, Folders, Picture
from transfer.params import Dataset, Split


def divide(name: str, dataset: Dataset, rules: Split) -> Audit:
    """Write data/split/<dataset>/<part>/<class> and metrics/data/<dataset>.json; return what that
    file holds. Raises UserError for a source that does not hold what the settings ask for."""
    folders = dataset.folders.model_dump(exclude_none=True)
    count = dataset.count.model_dump()
    with opened(dataset.source) as source:
        members, beside = audit.choose(source, folders)
        progress = tqdm(members, desc=name, unit=" images", delay=2, disable=None)
        found, left_out = audit.scan(source, progress, rules.unreadable)
        kept = audit.drop_duplicates(found) if rules.duplicates == "drop" else found
        chosen = select(kept, folders, count, name, rules.seed)
        chosen = hold_out(chosen, rules.validation, name, rules.seed)
        write(source, chosen, Path("data/split", name))
    report = Audit(
        dataset=name,
        source=dataset.source,
        rules=rules.model_dump() | {"count": count},
        left_out={why: audit.Listed.of(paths) for why, paths in (beside | left_out).items()},
        archive=audit.describe(found),
        dropped=audit.tally(found, set(found) - set(kept)),
        split=audit.describe(chosen),
        leaked=audit.leaked(chosen),
    )
    report.write(f"metrics/data/{name}.json")
    return report


def write(source: Source, pictures: list[Picture], folder: Path) -> None:
    """Copy each picture's bytes, unchanged, to folder/<part>/<class>/<name>."""
    with replacing(folder) as fresh:
        for picture in pictures:
            path = fresh / picture.part / picture.label / picture.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(source.read(picture.path))


def summary(report: Audit) -> list[str]:
    chosen = report.split
    parts = [
        f"{part}: " + ", ".join(f"{count} {label}" for label, count in chosen.images[part].items())
        for part in ("train", "validation", "test")
        if part in chosen.images
    ]
    out = [f"{left.count} {why}" for why, left in report.left_out.items() if left.count]
    lines = [f"{report.dataset}: {'; '.join(parts)}; left out: {', '.join(out) or 'none'}"]
    for label, leaked in chosen.duplicates.across.items():
        if leaked:
            lines.append(
                f"{report.dataset}: {leaked} of {chosen.images['test'][label]} test images "
                f"of {label} are in training too; split.duplicates: drop would take those out"
            )
    return lines


def select(
    pictures: list[Picture], folders: Folders, count: dict[str, Any], dataset: str, seed: int
) -> list[Picture]:
    """Draw `count` (part → a number, a fraction of the class, or 'all') of each class.

    The order of drawing depends on the seed, the data set, the class, the part and the name, so a
    larger count holds the smaller one. Pictures of part 'all' are divided: test is drawn first,
    unless it asks for 'all', which is what the other part leaves. Raises UserError when a class
    has too few.
    """
    drawn = []
    for part, classes in folders.items():
        for label in classes:
            group = [p for p in pictures if (p.part, p.label) == (part, label)]
            if part == "all":
                drawn += _divide(group, label, count, dataset, seed)
            else:
                drawn += _draw(group, len(group), part, label, count[part], dataset, seed)
    return sorted(drawn, key=audit.place)


def hold_out(pictures: list[Picture], share: float, dataset: str, seed: int) -> list[Picture]:
    """Make that share of each class's training images (at least one, but with 0 none) the part
    `validation`. Copies of an image stay on one side. Raises UserError when a class would lose all
    its training images."""
    if not share:
        return pictures
    held = set()
    for label in {p.label for p in pictures}:
        group = [p for p in pictures if (p.part, p.label) == ("train", label)]

        number = max(1, round(share * len(group)))
        place = f"{seed}/{dataset}/{label}/validation"
        held |= set(sorted([p.content.digest for p in group], key=_shuffled(place))[:number])
        if all(p.content.digest in held for p in group):
            raise UserError(
                f"params.yaml: split.validation: {share:g} leaves {dataset} no training image of "
                f"class {label!r}; lower it, or set 0"
            )
    return [
        replace(p, part="validation") if p.part == "train" and p.content.digest in held else p
        for p in pictures
    ]


def _divide(
    pool: list[Picture], label: str, count: dict[str, Any], dataset: str, seed: int
) -> list[Picture]:
    drawn: list[Picture] = []
    for part in sorted(("test", "train"), key=lambda part: count[part] == "all"):
        names = {p.name for p in drawn}
        left = [p for p in pool if p.name not in names]
        drawn += _draw(left, len(pool), part, label, count[part], dataset, seed)
    return drawn


def _draw(
    group: list[Picture], whole: int, part: str, label: str, count: Any, dataset: str, seed: int
) -> list[Picture]:
    number = _number(count, whole, len(group))
    if not 0 < number <= len(group):
        where = f"params.yaml: datasets.{dataset}.count.{part}: class {label!r}"
        raise UserError(f"{where} {_too_few(number, len(group), whole)}")

    order = _shuffled(f"{seed}/{dataset}/{label}/{part}")
    return [replace(p, part=part) for p in sorted(group, key=lambda p: order(p.name))[:number]]


def _shuffled(place: str) -> Callable[[str], str]:
    """A sorting key that shuffles names by hash, each place its own way."""
    return lambda name: hashlib.sha256(f"{place}/{name}".encode()).hexdigest()


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
