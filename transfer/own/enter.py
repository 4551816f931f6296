"""Enter a folder or zip of your own images in params.yaml; `dvc repro` then does the rest.

Each folder that contains images is a class, and the folders inside it are groups, such as patients,
that stay on one side of every division. Folders called train, val and test, in any common spelling,
divide the images; otherwise a fifth of each class is drawn for testing. Images without folders take
their labels from a table, such as labels.csv. What was found is printed before anything is written.
"""

import argparse
import math
import shlex
from pathlib import Path

from tabulate import tabulate

from transfer import files, params
from transfer.cli import UserError, printable, say, span
from transfer.images import archive, layout
from transfer.images.layout import Reading
from transfer.own import settings
from transfer.own.settings import SHARE

FEW = 20  # test images, below which an accuracy says little
RARE = 0.1  # share of a class, below which always naming the others looks good


def main() -> None:
    given = parse()
    from transfer.own import costs  # and with it PyTorch, which takes seconds

    str(given.source).encode()  # raises for what params.yaml cannot hold
    columns = {name: getattr(given, name) for name in ("file", "label", "split", "group")}
    with archive.opened(given.source) as source:
        found = layout.read(source, given.classes, columns)
        sides = costs.sizes(source)
    say(*described(given.source, found))
    check(given.source, found)
    study = params.load()
    name, short_side = settings.key(given.source, study), costs.enough(study, sides)
    before = Path("params.yaml").read_text(encoding="utf-8")
    seeds = costs.seeds(study, found)
    text = settings.put(before, study, name, given.source, found, short_side, seeds, given.only)
    fresh = not settings.own(study) & set(study.grid.dataset)
    if not fresh:
        say("to try: what params.yaml lists, since it has a data set of your own already")
    limit = 3600 * given.hours if fresh and given.grid == "fitting" else math.inf
    text, lines = proposed(text, name, costs.images(found), sides, limit)
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
    text: str, name: str, images: tuple[int, int], sides: list[tuple[int, int]], limit: float
) -> tuple[str, list[str]]:
    """params.yaml, which is `text`, with a grid that takes no more than the limit, in seconds
    (infinite: with its own), and what it takes, as lines. images and sides: as costs has them."""
    from transfer.own import costs, grid
    from transfer.training import engine, models, preflight, run

    study, lines = params.load(text=text), []
    models.check_backbones(study.grid.backbone)
    classes = len(study.datasets[name].folders.classes)
    speeds = {one: preflight.Speed.measure(one, study, classes) for one in study.grid.backbone}
    if limit < math.inf:
        plan = grid.fitting(study, name, *images, speeds, limit)
        lines = grid.described(plan, name, limit)
        text, study = settings.planned(text, plan.study, lines), plan.study
    took = span(preflight.seconds(study, {name: images}, speeds))
    device = run.device_name(engine.pick_device(study.train.device))
    lines.append(f"time: about {took} on this machine ({device}), by a few steps measured now")
    return text, lines + costs.disk(study, {name: images}, sides)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m transfer own", description=__doc__)
    help = "the folder or zip of images, such as data/raw/flowers"
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
    for what in ("file", "label", "split", "group"):
        parser.add_argument(f"--{what}", metavar="COLUMN", help=f"the table's column of the {what}")
    return parser.parse_args()


def positive(text: str) -> float:
    if not (value := float(text)) > 0:
        raise ValueError
    return value


def described(source: Path, found: Reading) -> list[str]:
    """What was found, as lines for a terminal."""
    counts = list(found.images.values())
    rows = [[printable(label), *(one[label] for one in counts)] for label in counts[0]]
    headings = ["class", *(TITLES[part] for part in found.images)]
    table = tabulate(rows, headings, disable_numparse=[0]).splitlines()
    groups = [f"{found.groups} groups, which stay whole"] if found.groups else []
    aside = [f"left aside: {line}" for line in found.aside]
    return [f"{source}: files named as images", *table, *groups, *aside]


TITLES = {"train": "train", "validation": "validation", "test": "test", "all": "to be divided"}


def check(source: Path, found: Reading) -> None:
    """Say which classes are too few to learn much from. Raises UserError for one that is too few to
    be divided."""
    divided, train = "all" not in found.images, found.images.get("train") or found.images["all"]
    least = 1 + (not divided) + ("validation" not in found.images)
    for label, count in train.items():
        if count < least:
            raise UserError(
                f"{source}: class {label!r} has {count} images to divide and takes {least} or "
                "more, one for each part; add images, or take its folder out"
            )
    tests = found.images.get("test") or {k: max(1, int(SHARE * n)) for k, n in train.items()}
    if few := [f"{label} ({count})" for label, count in tests.items() if count < FEW]:
        say(f"note: few test images, so that intervals will be wide: {listed(few)}")
    total = sum(train.values())
    for label, count in train.items():
        if count < RARE * total:
            always = f"a network that never says {label} is right on {1 - count / total:.0%}"
            say(f"note: {label}: {count} of {total} images; {always}; add images of it")


def listed(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
