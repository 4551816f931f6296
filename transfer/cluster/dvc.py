"""DVC that writes dvc.lock atomically: `python -m transfer.cluster.dvc …`, as `dvc …`.

DVC writes the file in place, so that one killed just then leaves a part of it, on which every other
worker would fail.
"""

import sys
from functools import wraps
from pathlib import Path
from typing import Any

from dvc.utils.serialize import _common

from transfer import cli, files


def main() -> None:
    from dvc.cli import main as dvc

    cli.end_with_parent()  # a worker that died leaves no DVC behind
    write_whole()
    sys.exit(dvc(sys.argv[1:]))


def write_whole() -> None:
    """Let DVC change its YAML files by replacing them, so that dvc.lock is whole at any instant.
    DVC has no setting for it."""
    in_place = _common._dump_data

    @wraps(in_place)
    def replaced(path: str | Path, *arguments: Any, **named: Any) -> None:
        with files.replacing(path) as part:
            in_place(part, *arguments, **named)

    _common._dump_data = replaced


if __name__ == "__main__":
    main()
