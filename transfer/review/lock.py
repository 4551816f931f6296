"""Whether a dvc.lock is in step with code, settings and data; nothing is made to find out."""

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
"""What the stages `code` and `params` make. They run after any edit, and what they would write is
known without that."""
ABSENT = {"deleted", "not in cache"}  # so DVC calls data that are not here


def compare(pipeline: str) -> page.Lock:
    """How the dvc.lock beside a dvc.yaml stands. Data that are not here are taken to be as it says.
    Raises UserError for a dvc.yaml that DVC cannot read, or a params.yaml with a mistake."""
    folder = Path(pipeline).parent
    names = succeeded(dvc("stage", "list", "--name-only", folder=folder)).split()
    if not (folder / "dvc.lock").is_file():
        return page.Lock(pipeline, None)
    said = json.loads(succeeded(dvc("status", "--json", "dvc.yaml", folder=folder)))
    entries = yaml.load((folder / "dvc.lock").read_text(), yaml.CSafeLoader).get("stages", {})
    stages = [
        Stage.from_entry(name, entries.get(name), said.get(name, [])) for name in sorted(names)
    ]
    now, differing = contents(folder), {stage.name for stage in stages if stage.differs(stages)}
    stale = [s.name for s in stages if s.means_other(now) or not s.first and s.name in differing]
    idle = [s.name for s in stages if s.name in differing and s.name not in stale]
    return page.Lock(pipeline, stale, idle)


@dataclass(frozen=True)
class Stage:
    """known: whether dvc.lock has it, with its command. deps, outs: path → md5, by dvc.lock.
    other_deps: path → how it differs by DVC; of params.yaml's values, key → how. other_outs: those
    whose content is here and is another."""

    name: str
    known: bool
    deps: dict[str, str]
    outs: dict[str, str]
    other_deps: dict[str, Any]
    other_outs: set[str]

    @classmethod
    def from_entry(cls, name: str, entry: dict[str, Any] | None, reasons: list[Any]) -> "Stage":
        """entry: dvc.lock's. reasons: what `dvc status --json` says."""
        deps, outs = (
            {one["path"]: one.get("md5", "") for one in (entry or {}).get(kind, ())}
            for kind in ("deps", "outs")
        )
        known = entry is not None and "changed command" not in reasons
        found = ChainMap(*(reason for reason in reasons if isinstance(reason, dict)))
        other = {path for path, how in found.get("changed outs", {}).items() if how not in ABSENT}
        return cls(name, known, deps, outs, found.get("changed deps", {}), other)

    @property
    def first(self) -> bool:
        return bool(self.outs) and self.outs.keys() <= FIRST

    def means_other(self, now: Callable[[str], str | None]) -> bool:
        """Whether it is new, or its code or settings have another meaning; `now`: see contents."""
        made = [path for path in self.deps if of_first(path)]
        return not self.known or any(now(path) not in (None, self.deps[path]) for path in made)

    def differs(self, stages: list["Stage"]) -> bool:
        """Whether anything else is other than dvc.lock has it, and no other of `stages` is to make
        it anew."""

        def own(path: str, how: Any) -> bool:
            if isinstance(how, dict) or path not in self.deps:
                return True
            if of_first(path):
                return False
            if how in ABSENT:
                return any(one.outs.get(path, self.deps[path]) != self.deps[path] for one in stages)
            return not any(overlap(path, other) for one in stages for other in one.other_outs)

        return bool(self.other_outs) or any(own(*one) for one in self.other_deps.items())


def contents(folder: Path) -> Callable[[str], str | None]:
    """Gives the md5 of a file of the first stages, such as data/code/train, as they would write it
    now; None for costs.json."""

    @cache
    def texts() -> dict[str, str]:
        return settings.texts(params.load(folder / "params.yaml"))

    @cache
    def now(path: str) -> str | None:
        file = Path(path)
        of_code = file.parent == Path("data/code")
        text = (
            code.recorded(file.name, folder)
            if of_code
            else texts().get(str(file.relative_to("data/settings")))
        )
        return None if text is None else hashlib.md5(text.encode()).hexdigest()

    return now


def of_first(path: str) -> bool:
    return any(Path(path).is_relative_to(folder) for folder in FIRST)


def overlap(path: str, other: str) -> bool:
    """Whether they are the same, or one lies in the other."""
    return Path(path).is_relative_to(other) or Path(other).is_relative_to(path)
