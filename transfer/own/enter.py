"""Enter a folder or archive of your own images in params.yaml; `dvc repro` then does the rest.

Each folder that contains images is a class, and the folders inside it are groups, such as patients,
that stay on one side of every division. Folders called train, val and test, in any common spelling,
divide the images; otherwise a fifth of each class is drawn for testing. Images without folders take
their labels from a table, such as labels.csv. What was found is printed before anything is written.
"""

import argparse
import math
import shlex
from dataclasses import fields
from pathlib import Path

from tabulate import tabulate

from transfer import files, params
from transfer.cli import UserError, listed, printable, say, span
from transfer.images import archive, layout
from transfer.images.layout import Choice, Reading
from transfer.images.table import FEWEST_GROUPS, Asked
from transfer.own import settings
from transfer.own.settings import SHARE

FEW = 20  # test images, below which an accuracy says little
RARE = 0.2  # of the mean of a class, below which never naming it costs little accuracy


def main() -> None:
    given = parse()
    from transfer.own import costs  # and with it PyTorch, which takes seconds

    str(given.source).encode()  # raises for what params.yaml cannot hold
    asked = Asked(**{one.name: getattr(given, one.name) for one in fields(Asked)})
    with archive.opened(given.source) as source:
        reading = layout.read(source, Choice(given.classes, tuple(given.take), asked))
        sides, decode = costs.sizes(source), costs.decoding(source)
        notes = [f"note: {source.note}"] if source.note else []
    say(*described(given.source, reading), *notes)
    check(given.source, reading)
    study = params.load()
    name, short_side = settings.key(given.source, study), costs.enough(study, sides)
    fresh = not settings.own(study) & set(study.grid.dataset)
    fit, lines = costs.fit(study, sides, fresh or given.only)
    say(*lines)
    before = Path("params.yaml").read_text(encoding="utf-8")
    seeds = costs.seeds(study, reading)
    text = settings.put(
        before, study, name, given.source, reading, short_side, fit, seeds, given.only
    )
    if not fresh:
        say("to try: what params.yaml lists, since it has a data set of your own already")
    limit = 3600 * given.hours if fresh and given.grid == "fitting" else math.inf
    text, lines = proposed(text, name, costs.images(reading), sides, decode, limit)
    say(*lines)
    if linked := [one.name for one in given.source.rglob("*") if one.is_symlink() and one.is_dir()]:
        again = f"after a change in them: dvc repro -f split@{name}"
        say(f"note: DVC does not look into linked folders ({listed(linked)}); {again}")
    if given.dry_run:
        say("nothing was written")
        return
    files.write_text("params.yaml", text)
    after = params.load(text=text)
    say(f"params.yaml: the study has {', '.join(after.grid.dataset)}")
    if left := [other for other in study.datasets if other not in after.datasets]:
        say(f"no longer in it: {', '.join(left)} (`git checkout params.yaml` brings them back)")
    add = f"dvc add {shlex.quote(str(given.source))}"
    say(f"next: dvc repro (and `{add}`, to share it or queue experiments)")


def proposed(
    text: str,
    name: str,
    images: tuple[int, int],
    sides: list[tuple[int, int]],
    decode: float,
    limit: float,
) -> tuple[str, list[str]]:
    """params.yaml, which is `text`, with a grid that takes no more than the limit, in seconds
    (infinite: with its own), and what it takes, as lines. images, sides, decode: of costs."""
    from transfer.own import costs, grid
    from transfer.runs import runs
    from transfer.training import engine, models, preflight, run

    study, lines = params.load(text=text), []
    models.check_backbones(study.grid.backbone)
    classes = len(study.datasets[name].folders.classes)
    speeds = {one: preflight.Speed.measure(one, study, classes) for one in study.grid.backbone}
    if limit < math.inf:
        plan = grid.fitting(study, name, *images, speeds, limit)
        lines = grid.described(plan, name, limit)
        text, study = settings.planned(text, plan.study, lines), plan.study
    took = preflight.seconds(study, {name: images}, speeds)
    other = costs.others(study, len(runs(study.grid, name)), images, decode, speeds)
    device = run.device_name(engine.pick_device(study.train.device))
    lines.append(
        f"time: about {span(took)} for the runs on this machine ({device}), by a few steps "
        f"measured now, and about {span(took + other)} with everything else"
    )
    return text, lines + costs.disk(study, {name: images}, sides)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m transfer own", description=__doc__)
    help = "the folder, or zip or tar archive, of images, such as data/raw/flowers"
    parser.add_argument("source", type=Path, help=help)
    parser.add_argument("--dry-run", action="store_true", help="only print what was found")
    help = "study this data set alone, without other ones of your own"
    parser.add_argument("--only", action="store_true", help=help)
    help = "the most hours that the runs may take on this machine (default %(default)g)"
    parser.add_argument("--hours", type=positive, default=1.0, help=help)
    help = "try what fits these images and the time (default), or all that params.yaml lists"
    parser.add_argument("--grid", choices=["fitting", "paper"], default="fitting", help=help)
    help = "of two levels of folders, the one that is the classes"
    parser.add_argument("--classes", choices=["outer", "inner"], help=help)
    help = "take this folder for a class, though it is called masks or the like; may be repeated"
    parser.add_argument("--take", metavar="FOLDER", action="append", default=[], help=help)
    help = "the table to read, such as labels.csv: its path in the source"
    parser.add_argument("--table", metavar="PATH", help=help)
    for what in ("file", "label", "split", "group"):
        parser.add_argument(f"--{what}", metavar="COLUMN", help=f"the table's column of the {what}")
    help = "take no column for the part of an image: each seed divides the images"
    parser.add_argument("--no-split", action="store_true", help=help)
    help = "take no column and no folders for groups"
    parser.add_argument("--no-group", action="store_true", help=help)
    return parser.parse_args()


def positive(text: str) -> float:
    if not (value := float(text)) > 0:
        raise ValueError
    return value


def described(source: Path, reading: Reading) -> list[str]:
    """What was found, as lines for a terminal."""
    counts = list(reading.images.values())
    rows = [[printable(label), *(part[label] for part in counts)] for label in counts[0]]
    headings = ["class", *(TITLES[part] for part in reading.images)]
    table = tabulate(rows, headings, disable_numparse=[0]).splitlines()
    groups = [f"{reading.groups} groups, which stay whole"] if reading.groups else []
    aside = [f"left aside: {one}" for one in reading.aside[: layout.SHOWN]]
    if more := reading.aside[layout.SHOWN :]:
        files = sum(len(one.files) for one in more)
        aside.append(f"left aside: {len(more)} more folders with {files} files")
    return [f"{source}: files named as images", *table, *groups, *reading.notes, *aside]


TITLES = {"train": "train", "validation": "validation", "test": "test", "all": "to be divided"}


def check(source: Path, reading: Reading) -> None:
    """Say which classes are too few to learn much from. Raises UserError for one that is too few to
    be divided, and for too few groups."""
    divided = "all" not in reading.images
    train = reading.images.get("train") or reading.images["all"]
    least = 1 + (not divided) + ("validation" not in reading.images)
    for label, count in train.items():
        if count < least:
            raise UserError(
                f"{source}: class {label!r} has {count} images to divide and takes {least} or "
                "more, one for each part; add images, or take its folder out"
            )
    if 0 < reading.groups < FEWEST_GROUPS and "validation" not in reading.images:
        places = [place for place in reading.folders.values() if isinstance(place, dict)]
        inner = any("*/" in folder for place in places for folder in place.values())
        raise UserError(
            f"{source}: {reading.groups} groups of images, of which each stays whole, cannot be "
            f"divided: it takes {FEWEST_GROUPS} or more; "
            + ("give one outer folder as the source" if inner else "--no-group ignores them")
        )
    tests = reading.images.get("test") or {k: max(1, int(SHARE * n)) for k, n in train.items()}
    if few := [f"{label} ({count})" for label, count in tests.items() if count < FEW]:
        say(f"note: few test images, so that intervals will be wide: {listed(few)}")
    equal = sum(train.values()) / len(train)
    if rare := [f"{label} ({n})" for label, n in train.items() if n < RARE * equal]:
        say(
            f"note: far fewer images than the mean of a class ({equal:.0f}): {listed(rare)}; a "
            "network that never names these may still be right on most images, so add some"
        )
