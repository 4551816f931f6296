"""The comment's markdown, from what DVC and git say."""

import html
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transfer.evidence.stats import Difference, newcombe

MARK = "<!-- what-this-changes -->"
LIMIT = 65536  # characters of a comment on GitHub
WIDEST = 100  # characters of a cell

METRICS = ("accuracy", "baseline")
TRAINED = {"device": "on", "packages": "with"}
# One line each: a comment on GitHub breaks where its source does.
ACCURACY = (
    "*Accuracy* is that of the best test epoch, *baseline* the same from random weights; changes "
    "with their 95 % interval (Newcombe 1998). It covers the choice of test images, and no other "
    "seed. It takes the two sides as independent; where they share their test images, it is wider "
    "than a paired one. **Bold**: it excludes 0, which chance alone does for up to one in twenty.\n"
)
UNKNOWN = "†: no interval, as one side's summary does not say how many test images there are.\n"

Entries = dict[str, dict[str, Any]]
Diff = dict[str, Entries]
Pair = tuple[float | None, float | None]


@dataclass(frozen=True)
class Lock:
    """How a pipeline's dvc.lock stands: `stale` are the stages that are not as it says, None where
    there is no lock; `following` is how many others build on those."""

    pipeline: str
    stale: list[str] | None
    following: int = 0


@dataclass(frozen=True)
class Row:
    """A setting's accuracies (fractions) by metric, and the number of test images; each before and
    after, None where there is none."""

    dataset: str
    setting: str
    values: dict[str, Pair]
    n_test: tuple[int | None, int | None]

    @property
    def changed(self) -> bool:
        return any(before != after for before, after in self.values.values())

    def change(self, metric: str) -> Difference | float | None:
        """After minus before: with an interval where it changed and both numbers of test images
        are known, and None where there are not two values."""
        before, after = self.values.get(metric, (None, None))
        if before is None or after is None:
            return None
        n_before, n_after = self.n_test
        if before == after or not n_before or not n_after:
            return after - before
        return newcombe(after, n_after, before, n_before)


@dataclass(frozen=True)
class Picture:
    """A figure that differs, and what became of it. A URL is None for a side on which it is not,
    and where none is known."""

    path: str
    what: str
    before: str | None = None
    after: str | None = None


@dataclass(frozen=True)
class Section:
    """Words, and items that are left out where the comment gets too long."""

    words: str
    items: list[str] = field(default_factory=list)
    kind: str = ""


def write(
    base: str, locks: list[Lock], metrics: Diff, params: Diff, pictures: list[Picture]
) -> str:
    """The comment. `base`: a name of what this is compared with. `metrics`, `params`: the JSON of
    `dvc metrics diff --all` and of `dvc params diff`."""
    found = {file: rows(entries) for file, entries in sorted(metrics.items())}
    values = settings(params)
    summary = [
        *map(lock_words, locks),
        *(f"{code(file)}: {tally(of)}{trained(metrics[file])}" for file, of in found.items()),
        f"settings: {len(values) or 'none'} changed",
        f"figures: {len(pictures) or 'none'} changed",
    ]
    tables = [accuracies(file, of) for file, of in found.items()]
    sections = [
        Section(f"{MARK}\n### What this changes, compared with {base}\n"),
        Section("".join(f"- {words}\n" for words in summary)),
        *(recommended(file, entries) for file, entries in sorted(metrics.items())),
        *tables,
        Section(meaning([line for table in tables for line in table.items])),
        Section(
            "#### Settings\n\n" + head("file", "setting", "before", "after"), values, "settings"
        ),
        Section("#### Figures\n", [figure(picture) for picture in pictures], "figures"),
    ]
    return fit(
        [section for section in sections if section.items or section.words and not section.kind]
    )


def lock_words(lock: Lock) -> str:
    start = f"{code(lock.pipeline)}: "
    if lock.stale is None:
        return f"{start}not run yet, there is no dvc.lock"
    if not lock.stale:
        return f"{start}dvc.lock is in step with code and settings"
    what = names(lock.stale)
    if lock.following:
        what += f", then perhaps {lock.following} that build on their outputs"
    again = code(redo(lock.pipeline))
    return f"{start}**dvc.lock is out of step.** {again} would run {what}"


def redo(pipeline: str) -> str:
    """The command that brings a pipeline's lock into step."""
    folder = Path(pipeline).parent
    return "dvc repro" if folder == Path() else f"cd {folder} && dvc repro"


def names(stages: list[str]) -> str:
    """Up to three of a kind; of more, how many."""
    kinds = defaultdict(list)
    for stage in stages:
        kinds[stage.split("@")[0]].append(code(stage))
    return ", ".join(
        ", ".join(found) if len(found) <= 3 else f"{code(kind)} ({len(found)})"
        for kind, found in kinds.items()
    )


def rows(entries: Entries) -> list[Row]:
    """Of one summary file. DVC joins the keys of nested JSON by dots; a learning rate has one
    too."""
    values: dict[tuple[str, str], dict[str, Pair]] = defaultdict(dict)
    for key, entry in entries.items():
        if match := re.fullmatch(r"rows\.([^.]+)\.(.+)\.(accuracy|baseline)", key):
            values[match[1], match[2]][match[3]] = entry["old"], entry["new"]
    n_test = {dataset: pair(entries, f"rows.{dataset}.test_images") for dataset, _ in values}
    return [Row(*key, found, n_test[key[0]]) for key, found in sorted(values.items())]


def pair(entries: Entries, key: str) -> tuple[Any, Any]:
    """Before and after; None where there is none."""
    entry = entries.get(key, {})
    return entry.get("old"), entry.get("new")


def tally(found: list[Row]) -> str:
    """How many rows changed, and how many of their intervals exclude 0."""
    changed = [row for row in found if row.changed]
    changes = [row.change(metric) for row in changed for metric in METRICS]
    signs = [change.sign for change in changes if isinstance(change, Difference)]
    words = f"{len(changed)} of {len(found)} rows changed"
    if signs:
        words += f"; beyond noise {signs.count(1)} accuracies rose and {signs.count(-1)} fell"
    return words


def trained(entries: Entries) -> str:
    """On what, and with which packages, the runs of each side were trained."""
    pairs = {key: pair(entries, f"trained.{key}") for key in TRAINED}
    if not any(value for sides in pairs.values() for value in sides):
        return ""
    moved = [
        f"{words} {' → '.join(map(value, pairs[key]))}"
        for key, words in TRAINED.items()
        if pairs[key][0] != pairs[key][1]
    ]
    same = [f"{words} {value(pairs[key][1])}" for key, words in TRAINED.items()]
    return f"; **trained {', '.join(moved)}**" if moved else f"; both trained {', '.join(same)}"


def recommended(file: str, entries: Entries) -> Section:
    """A line for each data set whose recommended setting, or its accuracy, changed."""
    words = f"#### Recommended setting, {code(file)}\n\n{head('data set', 'before', 'after')}"
    datasets = sorted(key.removeprefix("chosen.") for key in entries if key.startswith("chosen."))
    lines = []
    for dataset in datasets:
        chosen, setting = (pair(entries, f"{kind}.{dataset}") for kind in ("chosen", "setting"))
        if chosen[0] != chosen[1] or setting[0] != setting[1]:
            sides = [
                f"{value(name)} {shown(accuracy)}"
                for name, accuracy in zip(setting, chosen, strict=True)
            ]
            lines.append(line(code(dataset), *sides))
    return Section(words, lines, "settings recommended")


def accuracies(file: str, found: list[Row]) -> Section:
    """A line for each row that changed."""
    words = f"#### Accuracy, {code(file)}\n\n{head('data set', 'setting', *METRICS)}"
    lines = [
        line(code(row.dataset), code(row.setting), *(accuracy(row, metric) for metric in METRICS))
        for row in found
        if row.changed
    ]
    return Section(words, lines, "rows")


def accuracy(row: Row, metric: str) -> str:
    if metric not in row.values:
        return ""
    before, after = row.values[metric]
    if before == after:
        return shown(after)
    change = row.change(metric)
    words = f"{shown(before)} → {shown(after)}"
    if isinstance(change, Difference):
        number, interval = str(change).split(" ", 1)
        return f"{words}<br>{f'**{number}**' if change.sign else number} {interval}"
    return words if change is None else f"{words}<br>{change:+.3f} †"


def shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def meaning(lines: list[str]) -> str:
    """Of the accuracies' lines."""
    unknown = "\n" + UNKNOWN if "†" in "".join(lines) else ""
    return ACCURACY + unknown if lines else ""


def settings(params: Diff) -> list[str]:
    """A line for each setting that differs."""
    return [
        line(code(file), code(name), value(entry["old"]), value(entry["new"]))
        for file, entries in sorted(params.items())
        for name, entry in sorted(entries.items())
    ]


def value(setting: Any) -> str:
    return "–" if setting is None else code(str(setting))


def figure(picture: Picture) -> str:
    """Folded, so that pictures are loaded when they are asked for."""
    sides = {"before": picture.before, "after": picture.after}
    urls = {side: url for side, url in sides.items() if url}
    if not urls:
        return f"- {code(picture.path)} {picture.what}\n"
    images = line(*(f"![{side}]({url})" for side, url in urls.items()))
    summary = f"<code>{html.escape(picture.path)}</code> {picture.what}"
    return f"<details><summary>{summary}</summary>\n\n{head(*urls)}{images}\n</details>\n"


def fit(sections: list[Section], limit: int = LIMIT) -> str:
    """The sections, without the last of their items where they are more than `limit` characters."""
    notes = [left_out(section, len(section.items)) for section in sections]
    room = limit - sum(len(part) + 1 for part in [*notes, *(section.words for section in sections)])
    text = []
    for section in sections:
        kept = 0
        while kept < len(section.items) and len(section.items[kept]) <= room:
            room -= len(section.items[kept])
            kept += 1
        note = left_out(section, len(section.items) - kept)
        text.append(section.words + "".join(section.items[:kept]) + note)
    return "\n".join(text)


def left_out(section: Section, count: int) -> str:
    return f"\n{count} more {section.kind} left out; a comment has no room.\n" if count else ""


def head(*cells: str) -> str:
    return line(*cells) + line(*("---" for _ in cells))


def line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


def code(text: str) -> str:
    """As code, in one line that a table's cell takes; nothing in it is a link, a name or HTML."""
    text = " ".join(text.split()) or '""'
    text = text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"
    return "`" + text.replace("`", "'").replace("|", "\\|") + "`"
