"""How a change affects the study, as typed values. The words are in comment.md.j2."""

import re
from bisect import bisect
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from markupsafe import Markup

from transfer import templates
from transfer.evidence.stats import Difference, newcombe

LIMIT = 65536  # characters of a comment on GitHub
WIDEST = 100  # characters of a name or a value


@dataclass(frozen=True)
class Sides:
    """A value in JSON or YAML before and after the change; None where it is missing."""

    before: Any = None
    after: Any = None

    @property
    def changed(self) -> bool:
        return self.before != self.after

    @property
    def on_one_side(self) -> bool:
        return self.changed and None in (self.before, self.after)


Diff = dict[str, dict[str, Sides]]  # file → key, nested keys joined by dots → values


@dataclass(frozen=True)
class Lock:
    """Whether a pipeline's dvc.lock is up to date. stale: the stages that it does not match, None
    without a dvc.lock. idle: other stages that would run, with the results they had before."""

    pipeline: str
    stale: list[str] | None
    idle: list[str] = field(default_factory=list)

    @property
    def running(self) -> list[str]:
        """The stages that certainly run."""
        return sorted([*(self.stale or []), *self.idle])

    @property
    def redo(self) -> str:
        """The command that brings dvc.lock up to date."""
        folder = Path(self.pipeline).parent
        return "dvc repro" if folder == Path() else f"cd {folder} && dvc repro"


@dataclass(frozen=True)
class Picture:
    """A changed figure. letter: git's, A if it is new and D if it is gone, else M or T."""

    path: str
    letter: str


@dataclass(frozen=True)
class Accuracy(Sides):
    """A test accuracy (fraction). difference: after minus before, if it changed and both numbers of
    test images are known."""

    difference: Difference | None = None


@dataclass(frozen=True)
class Row:
    """A setting's accuracy on a data set, and that of its baseline."""

    dataset: str
    setting: str
    accuracy: Accuracy
    baseline: Accuracy


@dataclass(frozen=True)
class Recommended:
    """The setting recommended for a data set, and its test accuracy (fraction)."""

    dataset: str
    setting: Sides
    accuracy: Sides


@dataclass(frozen=True)
class Study:
    """What changed in a summary.json, with the total number of rows and recommendations. device,
    packages: what its runs were trained on and with, changed or not. mixed: how the runs of one
    side differ, None if they do not. common: whether the sides share a data set."""

    file: str
    recommended: list[Recommended]
    n_recommended: int
    rows: list[Row]
    n_rows: int
    device: Sides
    packages: Sides
    mixed: Sides
    common: bool

    @property
    def on_one_side(self) -> int:
        """The number of rows with an accuracy that only one side has."""
        return sum(row.accuracy.on_one_side or row.baseline.on_one_side for row in self.rows)

    @property
    def signs(self) -> list[int]:
        """For each difference: 1 or -1 if its interval excludes 0, else 0."""
        accuracies = [value for row in self.rows for value in (row.accuracy, row.baseline)]
        return [value.difference.sign for value in accuracies if value.difference]


def write(
    commits: Sides,
    raw: str | None,
    locks: list[Lock],
    metrics: Diff,
    params: Diff,
    pictures: list[Picture],
) -> str:
    """The comment, in markdown. Lists are cut, with a note, where it would exceed LIMIT.

    commits: the two to compare. raw: the URL below which a server shows a commit's files, or None.
    metrics: the values of each summary.json, changed or not. params: what differs.
    """
    environment = templates.environment(Path(__file__).parent)
    environment.filters |= {"code": code, "names": names, "one_line": one_line}
    template = environment.get_template("comment.md.j2")
    render = partial(
        template.render,
        commits=commits,
        raw=raw,
        locks=locks,
        studies=[study(file, entries) for file, entries in sorted(metrics.items())],
        settings=[
            (file, name, value)
            for file, entries in sorted(params.items())
            for name, value in sorted(entries.items())
        ],
        pictures=pictures,
    )
    # The largest number of lines that fits; each has at least one character.
    return render(most=bisect(range(LIMIT), LIMIT, key=lambda most: len(render(most=most))) - 1)


def study(file: str, entries: dict[str, Sides]) -> Study:
    """From the entries of a summary.json."""

    def get(key: str) -> Sides:
        return entries.get(key, Sides())

    def accuracy(dataset: str, setting: str, metric: str) -> Accuracy:
        value, n = get(f"rows.{dataset}.{setting}.{metric}"), get(f"rows.{dataset}.test_images")
        numbers = value.after, n.after, value.before, n.before
        known = value.changed and None not in numbers
        return Accuracy(value.before, value.after, newcombe(*numbers) if known else None)

    recommended = [
        Recommended(dataset, get(f"setting.{dataset}"), get(f"chosen.{dataset}"))
        for dataset in sorted(key[7:] for key in entries if key.startswith("chosen."))
    ]
    # A setting's name contains a dot, too, in its learning rate.
    names = [re.fullmatch(r"rows\.([^.]+)\.(.+)\.(?:accuracy|baseline)", key) for key in entries]
    rows = [
        Row(
            dataset,
            setting,
            accuracy(dataset, setting, "accuracy"),
            accuracy(dataset, setting, "baseline"),
        )
        for dataset, setting in sorted({(name[1], name[2]) for name in names if name})
    ]
    return Study(
        file,
        [entry for entry in recommended if entry.setting.changed or entry.accuracy.changed],
        len(recommended),
        [row for row in rows if row.accuracy.changed or row.baseline.changed],
        len(rows),
        get("trained.device"),
        get("trained.packages"),
        get("trained.mixed"),
        any(None not in (entry.accuracy.before, entry.accuracy.after) for entry in recommended),
    )


def code(value: Any) -> str:
    return "–" if value is None else templates.code(one_line(str(value)))


def one_line(text: str) -> str:
    """Cut to WIDEST characters."""
    text = " ".join(text.split()) or '""'
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"


def names(stages: list[str]) -> Markup:
    """The stages' names; more than three of a kind are counted."""
    words: list[str] = []
    for kind, group in groupby(stages, lambda stage: stage.split("@")[0]):
        members = list(map(code, group))
        words += members if len(members) <= 3 else [Markup(f"{code(kind)} ({len(members)})")]
    return Markup(", ").join(words)
