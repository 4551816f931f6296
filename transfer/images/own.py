"""Enter a folder or zip of your own images in params.yaml; `dvc repro` then does the rest.

Each folder that contains images is a class, and the folders inside it are groups, such as patients,
that stay on one side of every division. Folders called train, val and test, in any common spelling,
divide the images; otherwise a fifth of each class is drawn for testing. Images without folders take
their labels from a table, such as labels.csv. What was found is printed before anything is written.
"""

import argparse
import io
import shlex
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml import YAML
from slugify import slugify
from tabulate import tabulate

from transfer import files, params
from transfer.cli import UserError
from transfer.images import archive, layout
from transfer.images.layout import Reading

SHARE = 0.2
"""Of each class, to test on where the source is not divided, and of training to choose by."""
FEW = 20  # test images, below which an accuracy says little
RARE = 0.1  # share of a class, below which always naming the others looks good


def main() -> None:
    given = parse()
    columns = {name: getattr(given, name) for name in ("file", "label", "split", "group")}
    with archive.opened(given.source) as source:
        found = layout.read(source, given.classes, columns)
    print(described(given.source, found))
    check(given.source, found)
    study = params.load()
    name = key(given.source, study)
    text = put(Path("params.yaml").read_text(encoding="utf-8"), study, name, given, found)
    after = params.load(text=text)
    if given.dry_run:
        print("nothing was written")
        return
    files.write_text("params.yaml", text)
    print(f"params.yaml: the study has {', '.join(after.grid.dataset)}")
    if left := [other for other in study.grid.dataset if other not in after.grid.dataset]:
        print(f"no longer in it: {', '.join(left)} (`git checkout params.yaml` brings them back)")
    add = f"dvc add {shlex.quote(str(given.source))}"
    print(f"next: dvc repro (and `{add}`, to share it or queue experiments)")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m transfer own", description=__doc__)
    help = "the folder or zip of images, such as data/raw/flowers"
    parser.add_argument("source", type=Path, help=help)
    parser.add_argument("--dry-run", action="store_true", help="only print what was found")
    help = "study this data set alone, without other ones of your own"
    parser.add_argument("--only", action="store_true", help=help)
    help = "of two levels of folders, the one that is the classes"
    parser.add_argument("--classes", choices=["outer", "inner"], help=help)
    for what in ("file", "label", "split", "group"):
        parser.add_argument(f"--{what}", metavar="COLUMN", help=f"the table's column of the {what}")
    return parser.parse_args()


def described(source: Path, found: Reading) -> str:
    """What was found, as text for a terminal."""
    counts = list(found.images.values())
    rows = [[label, *(one[label] for one in counts)] for label in counts[0]]
    table = tabulate(rows, ["class", *(TITLES[part] for part in found.images)])
    groups = [f"{found.groups} groups, which stay whole"] if found.groups else []
    aside = [f"left aside: {line}" for line in found.aside]
    return "\n".join([f"{source}: files named as images", table, *groups, *aside])


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
        print(f"note: few test images, so that intervals will be wide: {listed(few)}")
    total = sum(train.values())
    for label, count in train.items():
        if count < RARE * total:
            always = f"a network that never says {label} is right on {1 - count / total:.0%}"
            print(f"note: {label}: {count} of {total} images; {always}; add images of it")


def listed(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def key(source: Path, study: params.Params) -> str:
    """A name for it in params.yaml; with a number, where another source has that name."""
    name = source.name if source.is_dir() else source.stem
    plain = slugify(name, separator="_") or "images"
    taken = {name: entry.source for name, entry in study.datasets.items()}
    number, found = 2, plain
    while taken.get(found, str(source)) != str(source):
        found, number = f"{plain}_{number}", number + 1
    return found


def put(
    text: str, study: params.Params, name: str, given: argparse.Namespace, found: Reading
) -> str:
    """params.yaml with this data set, and a fifth of training images held out to choose by. Data
    sets that are downloaded or drawn leave, but for sources of pretraining; with `only` so do other
    own ones. All other settings and their comments stay."""
    pooled = "all" in found.images
    entry = {
        "title": given.source.name if given.source.is_dir() else given.source.stem,
        "table": 0,
        "quadrant": "none",
        "source": str(given.source),
        "folders": found.folders,
        "count": {"train": "all", "test": SHARE if pooled else "all"},
    }
    needed = {one.source for one in study.pretrain.values()}
    own = {key for key in study.datasets if key not in {*study.download, *study.draw}} - {name}
    for section, keep in {"download": needed, "draw": needed, "datasets": needed | own}.items():
        text = with_section(text, section, keep, {name: entry} if section == "datasets" else {})
    settings = YAML().load(text)
    grid = [key for key in study.grid.dataset if key in own and not given.only]
    settings["grid"]["dataset"] = [*grid, name]
    settings["split"] |= {"validation": SHARE, "exif": "apply", "transparency": "white"}
    return dumped(settings)


def with_section(text: str, key: str, keep: set[str], more: dict[str, Any]) -> str:
    """With only those entries of a top-level key, and more. What stands above the next key stays,
    which it would not if ruamel.yaml replaced the section."""
    lines = text.splitlines(keepends=True)
    whole: Any = yaml.compose(text, yaml.CSafeLoader)
    starts = [name.start_mark.line for name, _ in whole.value] + [len(lines)]
    at = [name.value for name, _ in whole.value].index(key)
    start, end = starts[at], starts[at + 1]
    while not lines[end - 1].strip() or lines[end - 1].startswith("#"):
        end -= 1
    before = YAML().load("".join(lines[start:end]))[key]
    after = {name: entry for name, entry in before.items() if name in keep} | more
    section = dumped({key: after}).rstrip() + "\n"
    return text if after == before else "".join([*lines[:start], section, *lines[end:]])


def dumped(value: Any) -> str:
    yaml, out = YAML(), io.StringIO()
    yaml.width = 4096  # breaks no line
    yaml.dump(value, out)
    return out.getvalue()
