"""DVC that writes its files atomically and quickly: `python -m transfer.cluster.dvc …` for `dvc …`.

DVC writes dvc.lock and .dvc/tmp/rwlock in place. If it is killed meanwhile, half a file is left, on
which every later DVC command fails. It also parses and writes all of dvc.lock for every stage,
which takes seconds at a thousand runs; here only the stage's own lines are replaced, by the text
that DVC itself writes. A DVC whose internals differ from the pinned version's runs unchanged.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from inspect import signature
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from transfer import cli, files

USED = {
    "dvc.dvcfile:Lockfile.dump_stages": "self stages kwargs",
    "dvc.rwlock:rwlock": "tmp_dir fs cmd read write hardlink",
    "dvc.stage.serialize:to_lockfile": "stage kwargs",
    "dvc.utils.serialize:dumps_yaml": "d",
}
"""Undocumented functions of DVC that are replaced or called here, with their parameters."""
EMPTY = "schema: '2.0'\nstages:\n"


def main() -> None:
    from dvc.cli import main as dvc

    cli.end_with_parent()  # so that no DVC outlives its worker
    if name := first_difference():
        problem = "so DVC runs unchanged, and may leave half of dvc.lock if it is killed"
        print(f"{name}: differs in this version of DVC, {problem}", file=sys.stderr, flush=True)
    else:
        patch()
    sys.exit(dvc(sys.argv[1:]))


def first_difference() -> str:
    """The first of USED that this DVC lacks or has with other parameters; '' if none."""
    for name, parameters in USED.items():
        try:
            function = resolve_name(name)
            same = [*signature(function).parameters] == parameters.split()
        except (ImportError, AttributeError, TypeError):
            return name
        if not same or function.__qualname__ != name.partition(":")[2]:  # such as a base class's
            return name
    return ""


def patch() -> None:
    """Change how DVC writes dvc.lock and its list of paths in use, for which it has no setting."""
    from dvc import rwlock
    from dvc.dvcfile import Lockfile
    from dvc.stage import serialize

    dump_stages, lock_paths = Lockfile.dump_stages, rwlock.rwlock

    @wraps(dump_stages)
    def splice_stages(self: Any, stages: list[Any], **options: Any) -> None:
        path = Path(self.path)
        before = path.read_text(encoding="utf-8") if path.is_file() else EMPTY
        text = before
        for stage in stages:
            text = with_stage(text, stage.name, serialize.to_lockfile(stage, **options))
        if not text:
            dump_stages(self, stages, **options)
        elif text != before:
            files.write_text(path, text)
            self.repo.scm_context.track_file(self.relpath)

    @wraps(lock_paths)
    def lock_paths_atomically(folder: str, _: Any, *arguments: Any) -> Any:
        return lock_paths(folder, WholeFiles, *arguments)

    Lockfile.dump_stages, rwlock.rwlock = splice_stages, lock_paths_atomically


class WholeFiles:
    """The part of DVC's file system that rwlock uses, with files that are whole or absent."""

    join = staticmethod(os.path.join)

    @staticmethod
    @contextmanager
    def open(path: str, mode: str = "r", **options: Any) -> Iterator[Any]:
        if mode == "r":
            with open(path, **options) as file:
                yield file
        else:
            with files.replacing(path) as part, open(part, mode, **options) as file:
                yield file


def with_stage(text: str, name: str, entry: dict[str, Any]) -> str:
    """dvc.lock with the stage's entry replaced, or added at the end; '' if the text holds anything
    but stages, which is left to DVC."""
    from dvc.utils.serialize import dumps_yaml

    head, _, body = text.partition("stages:\n")
    if head != "schema: '2.0'\n" or re.search(r"^\S", body, re.M):
        return ""
    # As in the file, where YAML may quote the name.
    lines = dumps_yaml({"stages": entry}).partition("\n")[2]
    key = re.escape(lines.partition("\n")[0])
    old = re.compile(rf"^{key}\n(?:    .*\n)*", re.M)
    body = old.sub(lambda _: lines, body, count=1) if old.search(body) else body + lines
    return f"{head}stages:\n{body}"


if __name__ == "__main__":
    main()
