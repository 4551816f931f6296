"""What a change does to the study, as typed values. The words around them are in comment.md.j2."""

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
    """A value in JSON or YAML before and after the change; None on a side that does not have it."""

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
    """How a pipeline's dvc.lock stands. `stale`: the stages that differ from what it says, None
    where there is no lock. `idle`: those that would run too, and make what they made before."""

    pipeline: str
    stale: list[str] | None
    idle: list[str] = field(default_factory=list)

    @property
    def running(self) -> list[str]:
        """What certainly runs."""
        return sorted([*(self.stale or []), *self.idle])

    @property
    def redo(self) -> str:
        """The command that brings the lock into step."""
        folder = Path(self.pipeline).parent
        return "dvc repro" if folder == Path() else f"cd {folder} && dvc repro"


@dataclass(frozen=True)
class Picture:
    """A figure that differs. `letter`: A for a new one, D for one that is gone, else M or T."""

    path: str
    letter: str


@dataclass(frozen=True)
class Accuracy(Sides):
    """A test accuracy (fraction), and the difference where it changed and both numbers of test
    images are known."""

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
    """What changed in a summary.json, and how many rows and recommendations it has. `device`,
    `packages`: what its runs were trained on and with, changed or not. `mixed`: by what those
    of one side differ, None where they agree. `common`: whether the sides share a data set."""

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
        """Rows with an accuracy that only one side has."""
        return sum(row.accuracy.on_one_side or row.baseline.on_one_side for row in self.rows)

    @property
    def signs(self) -> list[int]:
        """Of each difference: 1 or -1 where its interval excludes 0, else 0."""
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
    """The comment, in markdown. Where it would have more than LIMIT characters, each of its lists
    ends after as many lines as fit, and says how many are left out.

    commits: the two to compare. raw: the URL below which a server shows a commit's files, if any
    does. metrics: the values of each summary.json, changed or not. params: what differs.
    """
    made = templates.environment(Path(__file__).parent)
    made.filters |= {of.__name__: of for of in (code, names, one_line)}
    template = made.get_template("comment.md.j2")
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
    # A line has a character at least, so LIMIT of them are more than enough.
    return render(most=bisect(range(LIMIT), LIMIT, key=lambda most: len(render(most=most))) - 1)


def study(file: str, entries: dict[str, Sides]) -> Study:
    """From what a summary.json holds."""

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
    # The name of a setting has a dot too, in its learning rate.
    names = [re.fullmatch(r"rows\.([^.]+)\.(.+)\.(?:accuracy|baseline)", key) for key in entries]
    rows = [
        Row(dataset, setting, *(accuracy(dataset, setting, of) for of in ("accuracy", "baseline")))
        for dataset, setting in sorted({(name[1], name[2]) for name in names if name})
    ]
    return Study(
        file,
        [found for found in recommended if found.setting.changed or found.accuracy.changed],
        len(recommended),
        [row for row in rows if row.accuracy.changed or row.baseline.changed],
        len(rows),
        get("trained.device"),
        get("trained.packages"),
        get("trained.mixed"),
        any(None not in (found.accuracy.before, found.accuracy.after) for found in recommended),
    )


def code(value: Any) -> str:
    return "–" if value is None else templates.code(one_line(str(value)))


def one_line(text: str) -> str:
    """Of at most WIDEST characters."""
    text = " ".join(text.split()) or '""'
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"


def names(stages: list[str]) -> Markup:
    """Up to three of a kind; of more, how many."""
    words: list[str] = []
    for kind, group in groupby(stages, lambda stage: stage.split("@")[0]):
        found = list(map(code, group))
        words += found if len(found) <= 3 else [Markup(f"{code(kind)} ({len(found)})")]
    return Markup(", ").join(words)
