"""metrics/data/<dataset>.json: what a data set's source holds, and what was made of it."""

from collections import Counter
from collections.abc import Iterable
from typing import Any, Self

from transfer.cli import printable
from transfer.files import Fields, Stored
from transfer.images import duplicates
from transfer.images.division import Division
from transfer.images.duplicates import LookAlikes, Pairs
from transfer.images.folders import NAMES_SHOWN
from transfer.images.names import named
from transfer.images.reader import Decoding
from transfer.images.scan import Picture

PARTS = ("train", "validation", "test")
FEWEST = 10
"""Images of a class from which on a property of all of them is no chance."""
TYPICAL = 0.95
"""The share of a class with a property that tells it from the others, which have it as rarely."""

Tally = dict[str, dict[str, int]]  # part → class → images


class Listed(Fields):
    """How many, and the first few by name."""

    count: int
    names: list[str]

    @classmethod
    def from_names(cls, names: list[str]) -> Self:
        return cls(count=len(names), names=list(map(printable, names[:NAMES_SHOWN])))


class Duplicates(Fields):
    """Images with equal pixels. `across`: class → test images whose pixels occur in train or
    validation too, whatever their class there. `between_classes`: images whose pixels occur in
    another class too."""

    across: dict[str, int]
    between_classes: int


class Drawn(Fields):
    """The images that were drawn. `pages`: files of several images, of which the first is taken.
    `profiles`: the name of an ICC profile whose colours are not sRGB's → images."""

    images: Tally
    profiles: dict[str, int]
    pages: int
    duplicates: Duplicates


class Shortcut(Fields):
    """A property of files that tells a class from the others, so that a network may learn it in
    place of what the images show (Geirhos 2020): `property` has this `value` in that share of the
    class's images, `inside`, and of the others', `outside`."""

    property: str
    value: str
    label: str
    inside: float
    outside: float


class Audit(Stored):
    """metrics/data/<dataset>.json.

    `rules`: split's settings and the data set's counts. `decoding`: how images are read.
    `few_levels`: see scan.few_levels. `redrawn`: how each seed divides the part train anew, without
    the units, None if none does. `left_out`: reason → files. `no_class`: of the first of those
    elsewhere, folder → files that are named as images. `archive`: all readable images of the
    classes. `dropped`: copies removed. `split`: the images drawn. `shared`: groups that are in test
    and in training too, as the source divides them. `leaked`: test images, as <class>/<name>, that
    also occur in training, as <part>/<class>/<name>. `near`: further test images that look like one
    of training. `remedies`: if there are any, the values of split.duplicates with which the images
    can be divided, too. `fixed_camera`: what shows that likeness tells no copies.
    """

    dataset: str
    source: str
    rules: dict[str, Any]
    decoding: Decoding
    few_levels: int | None
    redrawn: Division | None
    left_out: dict[str, Listed]
    no_class: dict[str, int]
    archive: Tally
    dropped: Tally
    split: Drawn
    shared: Listed
    leaked: list[tuple[str, str]]
    near: list[tuple[str, str]]
    remedies: list[str]
    fixed_camera: LookAlikes | None
    shortcuts: list[Shortcut]

    @classmethod
    def load(cls, dataset: str) -> Self:
        return cls.read(f"metrics/data/{dataset}.json")


def tally(pictures: Iterable[Picture], counted: Iterable[Picture]) -> Tally:
    """How many of `counted` there are by part and class, for all that `pictures` has."""
    counts: Tally = {}
    for picture in pictures:
        counts.setdefault(picture.part, {})[picture.label] = 0
    for picture in counted:
        counts[picture.part][picture.label] += 1
    return counts


def drawn(pictures: list[Picture], leaks: Pairs) -> Drawn:
    across = tally(pictures, [test for test, _ in leaks]).get("test", {})
    between = duplicates.conflicts(pictures)
    return Drawn(
        images=tally(pictures, pictures),
        profiles=dict(Counter(printable(p.content.profile) for p in pictures if p.content.profile)),
        pages=sum(picture.content.pages > 1 for picture in pictures),
        duplicates=Duplicates(across=across, between_classes=between),
    )


def names_of(pairs: Pairs) -> list[tuple[str, str]]:
    """<class>/<name> of the first of each pair, with <part>/<class>/<name> of the second."""
    return sorted((named(p.label, p.name), f"{q.part}/{named(q.label, q.name)}") for p, q in pairs)


def shared_groups(pictures: list[Picture]) -> Listed:
    """The groups that are in test and in training too."""
    groups = {
        tested: {p.group for p in pictures if p.group and (p.part == "test") == tested}
        for tested in (True, False)
    }
    return Listed.from_names(sorted(groups[True] & groups[False]))


def shortcuts(pictures: list[Picture]) -> list[Shortcut]:
    """The first of each property: format, colour mode and size."""
    properties = {
        "format": [p.content.format for p in pictures],
        "colour mode": [p.content.mode for p in pictures],
        "size": ["{} × {} px".format(*p.content.size) for p in pictures],
    }
    labels = Counter(picture.label for picture in pictures)
    found: dict[str, Shortcut] = {}
    for name, values in properties.items():
        total = Counter(values)
        pairs = Counter(zip((p.label for p in pictures), values, strict=True))
        for (label, value), count in pairs.items():
            inside = count / labels[label]
            outside = (total[value] - count) / max(1, len(pictures) - labels[label])
            if labels[label] >= FEWEST and inside >= TYPICAL and outside <= 1 - TYPICAL:
                shortcut = Shortcut(
                    property=name, value=value, label=label, inside=inside, outside=outside
                )
                found.setdefault(name, shortcut)
    return list(found.values())


def summary(audit: Audit) -> list[str]:
    """What a person should know of it, as lines for a terminal."""
    images, name = audit.split.images, audit.dataset
    parts = [
        f"{part}: " + ", ".join(f"{count} {label}" for label, count in images[part].items())
        for part in PARTS
        if part in images
    ]
    out = [f"{left.count} {why}" for why, left in audit.left_out.items() if left.count]
    if dropped := sum(sum(counts.values()) for counts in audit.dropped.values()):
        out.append(f"{dropped} copies")
    lines = [f"{'; '.join(parts)}; left out: {', '.join(out) or 'none'}"]
    if division := audit.redrawn:
        shares = {"test": division.test, "validation": division.validation}
        held = " and ".join(f"{share:g} for {part}" for part, share in shares.items() if share)
        lines.append(f"each seed holds out others of the training images: {held}")
    for describe in (_elsewhere, _uneven, _deep, _shared, _near, _leaked, _shortcuts):
        lines += describe(audit)
    return [f"{name}: {line}" for line in lines]


def _elsewhere(audit: Audit) -> list[str]:
    """On images that belong to no class, by their folders."""
    if not audit.no_class:
        return []
    folders = ", ".join(f"{folder} ({count} images)" for folder, count in audit.no_class.items())
    return [
        f"no class takes {folders}; if one should, add it to datasets.{audit.dataset}.folders, or "
        f"run `python -m transfer own {audit.source}` again"
    ]


def _uneven(audit: Audit) -> list[str]:
    """On classes of which a part has far more or fewer images than its share."""
    images, before, lines = audit.split.images, audit.archive, []
    shares = {} if "validation" in before else {"validation": audit.rules["validation"]}
    if "all" in before and isinstance(audit.rules["count"]["test"], float):
        shares["test"] = audit.rules["count"]["test"]
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


def _deep(audit: Audit) -> list[str]:
    """On images that are more than one image of 8 bits in sRGB."""
    decoding, lines = audit.decoding, []
    if decoding.low is not None and decoding.high is not None:
        lines.append(
            f"images of more than 8 bits: {decoding.low:g} becomes black and {decoding.high:g} "
            "white, the range of those in training without the outermost 0.1 %"
        )
    if audit.few_levels is not None:
        lines.append(
            f"warning: half of them have at most {audit.few_levels} of 256 grey levels left, as "
            "some values are far lower or higher; mask those, or save the images in 8 bits"
        )
    if profiles := audit.split.profiles:
        names = ", ".join(f"{name} ({count} images)" for name, count in profiles.items())
        done = "converted to sRGB" if decoding.srgb else "ignored; split.icc: convert would use it"
        lines.append(f"another ICC profile than sRGB, {names}, is {done}")
    if pages := audit.split.pages:
        lines.append(f"{pages} files hold several images, of which the first is taken")
    return lines


def _shared(audit: Audit) -> list[str]:
    if not audit.shared.count:
        return []
    groups = ", ".join(audit.shared.names)
    return [f"{audit.shared.count} groups are in test and in training too: {groups}"]


def _near(audit: Audit) -> list[str]:
    if audit.fixed_camera:
        line = f"{audit.fixed_camera.words}, so likeness does not tell copies here"
        advice = "; if they are frames of recordings, a test image may show what a training image "
        advice += "shows, which inflates accuracy: give each recording a folder of its own in its "
        advice += f"class and run `python -m transfer own {audit.source}` again"
        return [line + ("" if audit.fixed_camera.grouped else advice)]
    if not audit.near:
        return []
    line = f"{len(audit.near)} further test images look like one in training, re-saved, scaled or "
    return [line + "mirrored" + _remedy(audit, "drop_near")]


def _leaked(audit: Audit) -> list[str]:
    return [
        f"{leaked} of {audit.split.images['test'][label]} test images of {label} are in training "
        "too" + _remedy(audit, "drop")
        for label, leaked in audit.split.duplicates.across.items()
        if leaked
    ]


def _remedy(audit: Audit, value: str) -> str:
    works = value in audit.remedies
    return f"; split.duplicates: {value} would take those out of training" if works else ""


def _shortcuts(audit: Audit) -> list[str]:
    return [
        f"{shortcut.property} alone tells {shortcut.label} from other classes: "
        f"{shortcut.inside:.0%} of its images are {shortcut.value}, and {shortcut.outside:.0%} of "
        "the others; a network may learn that in place of what the images show, so save all "
        "classes alike"
        for shortcut in audit.shortcuts
    ]
