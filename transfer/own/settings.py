"""A data set of one's own in params.yaml, whose other settings and comments stay."""

import io
import re
from pathlib import Path
from textwrap import fill
from typing import Any

import yaml
from ruamel.yaml import YAML, RoundTripRepresenter, ScalarNode
from slugify import slugify

from transfer.images.layout import Reading
from transfer.params import LONGEST, Params

WIDTH = 98
ROOM = 4
"""Characters of a key for the number behind it."""
SHARE = 0.2
"""Of each class, to test on where the source is not divided, and of training to choose by."""


def key(source: Path, study: Params) -> str:
    """A name for it in params.yaml; with a number, where a source that stays has that name."""
    plain = slugify(title(source), separator="_", max_length=LONGEST - ROOM) or "images"
    taken = {name: study.datasets[name].source for name in own(study) | needed(study)}
    number, found = 2, plain
    while taken.get(found, str(source)) != str(source):
        found, number = f"{plain}_{number}", number + 1
    return found


def own(study: Params) -> set[str]:
    """Data sets that are neither downloaded nor drawn."""
    return set(study.datasets) - {*study.download, *study.draw}


def needed(study: Params) -> set[str]:
    """Those that something is pretrained on."""
    return {one.source for one in study.pretrain.values()}


def title(source: Path) -> str:
    """Its name without the ending of an archive."""
    if source.is_dir():
        return source.name
    return re.sub(r"(?i)(?<=.)(\.tar)?\.[^.]*$", "", source.name)


def put(
    text: str,
    study: Params,
    name: str,
    source: Path,
    found: Reading,
    short_side: int,
    fit: str,
    seeds: int,
    only: bool,
) -> str:
    """params.yaml, which is `text` and says `study`, with this data set, and with a fifth of the
    training images held out to choose by, others by each seed.

    Data sets that are downloaded or drawn leave it, but for sources of pretraining, of which a
    fifth is for testing, too. With `only`, the other own ones leave its grid. short_side, fit: for
    pack. seeds: how many there are at least. All else and comments stay.
    """
    pooled = "all" in found.images
    entry = {
        "title": title(source),
        "table": 0,
        "quadrant": "none",
        "source": str(source),
        "folders": found.folders,
        "count": {"train": "all", "test": SHARE if pooled else "all"},
    }
    others, sources = own(study) - {name}, needed(study)
    sections = {"download": sources, "draw": sources, "datasets": sources | others}
    for section, keep in sections.items():
        text = with_section(text, section, keep, {name: entry} if section == "datasets" else {})
    settings = YAML().load(text)
    grid = [key for key in study.grid.dataset if key in others and not only]
    settings["grid"]["dataset"] = [*grid, name]
    settings["pack"] |= {"short_side": short_side, "fit": fit}
    settings["split"] |= {"resplit": True, "validation": SHARE}
    for other in sources:  # which each seed divides, too
        if study.datasets[other].pooled:
            settings["datasets"][other]["count"] = {"train": "all", "test": SHARE}
    settings["split"] |= {"exif": "apply", "transparency": "white", "icc": "convert"}
    settings["evidence"]["select_by"] = "auto"
    if len(study.grid.seed) < seeds:
        settings["grid"]["seed"] = list(range(seeds))
    return dumped(settings)


def planned(text: str, study: Params, why: list[str]) -> str:
    """params.yaml, which is `text`, with the grid and the training of the study, and why above the
    grid."""
    settings, train = YAML().load(text), study.train
    settings["grid"] |= study.grid.model_dump()
    settings["train"] |= {"epochs": train.epochs, "batch_size": train.batch_size}
    settings["train"]["schedule"] = train.schedule.plain
    settings.yaml_set_comment_before_after_key(
        "grid", before=fill("\n".join(why), WIDTH, replace_whitespace=False)
    )
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
    section = YAML().load("".join(lines[start:end]))
    gone = set(section[key]) - keep
    for name in gone:
        del section[key][name]
    section[key].update(more)
    if not gone and not more:
        return text
    return "".join([*lines[:start], dumped(section).rstrip() + "\n", *lines[end:]])


class Representer(RoundTripRepresenter):
    """As ruamel.yaml writes, but for text that a YAML reader would take for another: it has escapes
    in quotes."""


def _text(representer: Representer, text: str) -> ScalarNode:
    style = None if text.isprintable() else '"'
    return representer.represent_scalar("tag:yaml.org,2002:str", text, style)


Representer.add_representer(str, _text)


def dumped(value: Any) -> str:
    yaml, out = YAML(), io.StringIO()
    yaml.width, yaml.Representer = 4096, Representer  # breaks no line
    yaml.dump(value, out)
    return out.getvalue()
