"""DVC that writes its files atomically and soon: `python -m transfer.cluster.dvc …`, as `dvc …`.

DVC writes dvc.lock and .dvc/tmp/rwlock in place, so that one killed just then leaves a part of
them, on which every DVC after it would fail. And it parses and writes all of dvc.lock at every
stage, which takes seconds at a thousand runs; here only the stage's own lines are replaced, by the
text that DVC itself makes. A DVC that is another inside runs as it is.
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

INSIDE = {
    "dvc.utils.serialize._common:_dump_data": "path data dumper fs dumper_args",
    "dvc.utils.serialize:dumps_yaml": "d",
    "dvc.dvcfile:Lockfile.dump_stages": "self stages kwargs",
    "dvc.stage.serialize:to_lockfile": "stage kwargs",
    "dvc.rwlock:_edit_rwlock": "lock_dir fs hardlink",
}
"""What is replaced or used of DVC that it promises to nobody, and the names of its parameters."""


def main() -> None:
    from dvc.cli import main as dvc

    cli.end_with_parent()  # a worker that died leaves no DVC behind
    if name := other_inside():
        told = "so it runs as it is, and may leave a part of dvc.lock if it is killed"
        print(f"{name}: not in this version of DVC as it was, {told}", file=sys.stderr, flush=True)
    else:
        patch()
    sys.exit(dvc(sys.argv[1:]))


def other_inside() -> str:
    """The first of INSIDE that this DVC lacks, or has with other parameters; '' if none."""
    for name, parameters in INSIDE.items():
        try:
            found = resolve_name(name)
            same = [*signature(found).parameters] == parameters.split()
        except (ImportError, AttributeError, TypeError):
            return name
        if not same or found.__qualname__ != name.partition(":")[2]:  # such as a base class's
            return name
    return ""


def patch() -> None:
    """Change how DVC writes YAML and its list of paths in use. It has no setting for it, and
    requirements.txt pins it."""
    from dvc import rwlock
    from dvc.dvcfile import Lockfile
    from dvc.stage import serialize
    from dvc.utils.serialize import _common

    in_place, whole, edit = _common._dump_data, Lockfile.dump_stages, rwlock._edit_rwlock

    @wraps(in_place)
    def replaced(path: str | Path, *arguments: Any, **named: Any) -> None:
        with files.replacing(path) as part:
            in_place(part, *arguments, **named)

    @wraps(whole)
    def spliced(self: Any, stages: list[Any], **options: Any) -> None:
        path = Path(self.path)
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        for stage in stages:
            text = with_stage(text, stage.name, serialize.to_lockfile(stage, **options))
        if not text:
            whole(self, stages, **options)
        elif text != path.read_text(encoding="utf-8"):
            files.write_text(path, text)
            self.repo.scm_context.track_file(self.relpath)

    @wraps(edit)
    def edited(folder: str, _: Any, hardlink: bool) -> Any:
        return edit(folder, WholeFiles, hardlink)

    _common._dump_data, Lockfile.dump_stages = replaced, spliced
    rwlock._edit_rwlock = edited


class WholeFiles:
    """As much of DVC's file system as the rwlock needs, with files that are whole or absent."""

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
    """dvc.lock with this entry of a stage in place of its own or at the end; '' for a text that is
    not all stages, of which DVC knows more."""
    from dvc.utils.serialize import dumps_yaml

    head, _, body = text.partition("stages:\n")
    if head != "schema: '2.0'\n" or re.search(r"^\S", body, re.M):
        return ""
    # As it stands in the file; a name that YAML has to quote, too.
    lines = dumps_yaml({"stages": entry}).partition("\n")[2]
    key = re.escape(lines.partition("\n")[0])
    own = re.compile(rf"^{key}\n(?:    .*\n)*", re.M)
    body = own.sub(lambda _: lines, body, count=1) if own.search(body) else body + lines
    return f"{head}stages:\n{body}"


if __name__ == "__main__":
    main()
