"""DVC that writes dvc.lock atomically and soon: `python -m transfer.cluster.dvc …`, as `dvc …`.

DVC writes the file in place, so that one killed just then leaves a part of it, on which every other
worker would fail. And it parses and writes all of it at every stage, which takes seconds at a
thousand runs; here only the stage's own lines are replaced, by the text that DVC itself makes.
"""

import re
import sys
from functools import wraps
from pathlib import Path
from typing import Any

from dvc.dvcfile import Lockfile
from dvc.stage import serialize
from dvc.utils.serialize import _common, dumps_yaml

from transfer import cli, files


def main() -> None:
    from dvc.cli import main as dvc

    cli.end_with_parent()  # a worker that died leaves no DVC behind
    patch()
    sys.exit(dvc(sys.argv[1:]))


def patch() -> None:
    """Change how DVC writes YAML. It has no setting for it, and requirements.txt pins it."""
    in_place, whole = _common._dump_data, Lockfile.dump_stages

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

    _common._dump_data, Lockfile.dump_stages = replaced, spliced


def with_stage(text: str, name: str, entry: dict[str, Any]) -> str:
    """dvc.lock with this entry of a stage in place of its own or at the end; '' for a text that is
    not all stages, of which DVC knows more."""
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
