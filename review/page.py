"""The comment's markdown, from what DVC and git say."""

import html
import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from transfer.stats import Difference, newcombe

MARK = "<!-- what-this-changes -->"
LIMIT = 65536  # characters of a comment on GitHub
WIDEST = 100  # characters of a cell

METRICS = ("accuracy", "baseline")
# One line each: a comment on GitHub breaks where its source does.
ACCURACY = (
    "*Accuracy* is that of the best test epoch, *baseline* the same from random weights; changes "
    "with their 95 % interval (Newcombe 1998). It covers the choice of test images, and no other "
    "seed. It takes the two sides as independent; they share their test images, so it is wider "
    "than a paired one. **Bold**: it excludes 0, as chance alone makes one in twenty.\n"
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
    sections = [
        Section(f"{MARK}\n### What this changes, compared with {base}\n"),
        Section("".join(f"- {lock_words(lock)}\n" for lock in locks)),
        *accuracies(metrics),
        settings(params),
        figures(pictures),
    ]
    return fit(sections)


def lock_words(lock: Lock) -> str:
    start = f"{code(lock.pipeline)}: "
    if lock.stale is None:
        return f"{start}not run yet, there is no dvc.lock"
    if not lock.stale:
        return f"{start}dvc.lock is in step with code and settings"
    what = names(lock.stale)
    if lock.following:
        what += f", then perhaps {lock.following} that build on what it makes"
    redo = code(f"dvc repro {lock.pipeline}")
    return f"{start}**dvc.lock is out of step.** {redo} would run {what}"


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
        if match := re.fullmatch(r"([^.]+)\.(.+)\.(accuracy|baseline)", key):
            values[match[1], match[2]][match[3]] = entry["old"], entry["new"]
    n_test = {
        dataset: (entry.get("old"), entry.get("new"))
        for dataset, _ in values
        for entry in [entries.get(f"{dataset}.test_images", {})]
    }
    return [Row(*key, found, n_test[key[0]]) for key, found in sorted(values.items())]


def accuracies(metrics: Diff) -> list[Section]:
    """A section for each summary file, with the rows that changed, and one on what they mean."""
    sections, words = [], ACCURACY
    for file, entries in sorted(metrics.items()):
        found = rows(entries)
        changed = [row for row in found if row.changed]
        title = f"#### Accuracy, {code(file)}\n\n{len(changed)} of {len(found)} rows changed"
        if not changed:
            sections.append(Section(f"{title}.\n"))
            continue
        table = head("data set", "setting", "accuracy", "change", "baseline", "change")
        lines = [accuracy_line(row) for row in changed]
        sections.append(Section(f"{title}{tally(changed)}.\n\n{table}", lines, "rows"))
        words += "\n" + UNKNOWN if "†" in "".join(lines) else ""
    return [*sections, Section(words)] if any(section.items for section in sections) else sections


def tally(changed: list[Row]) -> str:
    """How many of their intervals exclude 0."""
    changes = [row.change(metric) for row in changed for metric in METRICS]
    signs = [change.sign for change in changes if isinstance(change, Difference)]
    ups, downs = signs.count(1), signs.count(-1)
    return f"; of {len(signs)} changes {ups} up and {downs} down by more than noise" * bool(signs)


def accuracy_line(row: Row) -> str:
    cells = [code(row.dataset), code(row.setting)]
    for metric in METRICS:
        pair = row.values.get(metric, (None, None))
        both = " → ".join(shown(value) for value in pair) if metric in row.values else ""
        cells += [both, changed(row, metric)]
    return line(*cells)


def shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def changed(row: Row, metric: str) -> str:
    change = row.change(metric)
    if isinstance(change, Difference):
        return f"**{change}**" if change.sign else str(change)
    if change is None:
        return ""
    return f"{change:+.3f} †" if change else "none"


def settings(params: Diff) -> Section:
    """A line for each setting that differs."""
    lines = [
        line(code(file), code(name), value(entry["old"]), value(entry["new"]))
        for file, entries in sorted(params.items())
        for name, entry in sorted(entries.items())
    ]
    if not lines:
        return Section("#### Settings\n\nNone changed.\n")
    table = head("file", "setting", "before", "after")
    return Section(f"#### Settings\n\n{len(lines)} changed.\n\n{table}", lines, "settings")


def value(setting: Any) -> str:
    return "–" if setting is None else code(str(setting))


def figures(pictures: list[Picture]) -> Section:
    if not pictures:
        return Section("#### Figures\n\nNone changed.\n")
    words = f"#### Figures\n\n{len(pictures)} changed.\n\n"
    return Section(words, [figure(picture) for picture in pictures], "figures")


def figure(picture: Picture) -> str:
    """Folded, so that pictures are loaded when they are asked for."""
    sides = {"before": picture.before, "after": picture.after}
    urls = {side: url for side, url in sides.items() if url}
    if not urls:
        return f"- {code(picture.path)} {picture.what}\n"
    images = line(*(f"[![{side}]({url})]({url})" for side, url in urls.items()))
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
