"""Whether a dvc.lock is up to date with code, settings and data. No stage is run to find out."""

import hashlib
import json
from collections import ChainMap
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from transfer import code, params, settings
from transfer.commands import dvc, succeeded
from transfer.review import page

FIRST = {"data/code", "data/settings"}
"""Outputs of the stages `code` and `params`. These run after any edit, and what they would write is
computed here."""
ABSENT = {"deleted", "not in cache"}  # how DVC reports data that are missing here


def compare(pipeline: str) -> page.Lock:
    """Compare the dvc.lock beside a dvc.yaml. Missing data are assumed to be as recorded.

    Raises UserError for a dvc.yaml that DVC cannot read and for a wrong params.yaml.
    """
    folder = Path(pipeline).parent
    names = succeeded(dvc("stage", "list", "--name-only", folder=folder)).split()
    if not (folder / "dvc.lock").is_file():
        return page.Lock(pipeline, None)
    status = json.loads(succeeded(dvc("status", "--json", "dvc.yaml", folder=folder)))
    entries = yaml.load((folder / "dvc.lock").read_text(), yaml.CSafeLoader).get("stages", {})
    stages = [
        Stage.from_entry(name, entries.get(name), status.get(name, [])) for name in sorted(names)
    ]
    md5, differing = contents(folder), {stage.name for stage in stages if stage.differs(stages)}
    stale = [s.name for s in stages if s.changed(md5) or not s.first and s.name in differing]
    idle = [s.name for s in stages if s.name in differing and s.name not in stale]
    return page.Lock(pipeline, stale, idle)


@dataclass(frozen=True)
class Stage:
    """A stage in dvc.lock and as DVC sees it now.

    recorded: whether dvc.lock has the stage with its present command. deps, outs: path → md5, from
    dvc.lock. changed_deps: path → how it differs; for values of params.yaml, file → key → how.
    changed_outs: outputs that are here with other content.
    """

    name: str
    recorded: bool
    deps: dict[str, str]
    outs: dict[str, str]
    changed_deps: dict[str, Any]
    changed_outs: set[str]

    @classmethod
    def from_entry(cls, name: str, entry: dict[str, Any] | None, reasons: list[Any]) -> "Stage":
        """entry: the stage's in dvc.lock. reasons: from `dvc status --json`."""
        deps, outs = (
            {item["path"]: item.get("md5", "") for item in (entry or {}).get(kind, ())}
            for kind in ("deps", "outs")
        )
        recorded = entry is not None and "changed command" not in reasons
        changed = ChainMap(*(reason for reason in reasons if isinstance(reason, dict)))
        here = {path for path, how in changed.get("changed outs", {}).items() if how not in ABSENT}
        return cls(name, recorded, deps, outs, changed.get("changed deps", {}), here)

    @property
    def first(self) -> bool:
        return bool(self.outs) and self.outs.keys() <= FIRST

    def changed(self, md5: Callable[[str], str | None]) -> bool:
        """Whether the stage is new, or its code or settings have changed. md5: see contents."""
        first = [path for path in self.deps if of_first(path)]
        return not self.recorded or any(md5(path) not in (None, self.deps[path]) for path in first)

    def differs(self, stages: list["Stage"]) -> bool:
        """Whether any other input or output has changed, apart from inputs that another of the
        `stages` will make again."""

        def counts(path: str, how: Any) -> bool:
            if isinstance(how, dict) or path not in self.deps:
                return True
            if of_first(path):
                return False
            if how in ABSENT:
                return any(s.outs.get(path, self.deps[path]) != self.deps[path] for s in stages)
            return not any(overlap(path, out) for s in stages for out in s.changed_outs)

        return bool(self.changed_outs) or any(counts(*dep) for dep in self.changed_deps.items())


def contents(folder: Path) -> Callable[[str], str | None]:
    """A function from a path in FIRST, such as data/code/train, to the md5 that it would have if it
    were written now; None for costs.json, which is not computed here."""

    @cache
    def texts() -> dict[str, str]:
        return settings.texts(params.load(folder / "params.yaml"))

    @cache
    def md5(path: str) -> str | None:
        file = Path(path)
        if file.parent == Path("data/code"):
            text: str | None = code.recorded(file.name, folder)
        else:
            text = texts().get(str(file.relative_to("data/settings")))
        return None if text is None else hashlib.md5(text.encode()).hexdigest()

    return md5


def of_first(path: str) -> bool:
    return any(Path(path).is_relative_to(folder) for folder in FIRST)


def overlap(path: str, other: str) -> bool:
    """Whether they are the same path, or one contains the other."""
    return Path(path).is_relative_to(other) or Path(other).is_relative_to(path)
