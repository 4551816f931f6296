"""Outputs that are whole or absent, and locks."""

import hashlib
import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from transfer.cli import UserError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a fresh path beside `path`; what the caller writes there (a file or a folder)
    becomes `path` when the block ends without error, and is removed otherwise."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    remove(part)
    try:
        yield part
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        os.replace(part, path)
    finally:
        remove(part)


def write_text(path: str | Path, text: str) -> None:
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def read_json(path: str | Path) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def json_text(value: Any) -> str:
    """Sorted and indented, so that equal values are equal files."""
    return json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n"


def write_json(path: str | Path, value: Any) -> None:
    write_text(path, json_text(value))


class Fields(BaseModel):
    """A part of a file: a subclass says which fields it has."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Stored(Fields):
    """A JSON file that one stage writes and others read."""

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Raises UserError for a file with other fields, as an older version of this code wrote."""
        try:
            return cls.model_validate_json(Path(path).read_bytes())
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            raise UserError(f"{path}: of another version ({where}); run `dvc repro`") from None

    def write(self, path: str | Path) -> None:
        write_json(path, self.model_dump(mode="json"))


def sha256(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove(path: Path) -> None:
    """A file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def alone(path: str | Path, what: str) -> Iterator[bool]:
    """Hold a lock that no other process holds; wait for one that does, and say who it is. Yields
    whether it waited.

    The lock goes with the process, however that ends. Raises UserError on Windows.
    """
    try:
        import fcntl
    except ImportError:
        raise UserError("training needs Linux or macOS; on Windows run it in WSL") from None
    waited, path = False, Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = True
            file.seek(0)
            holder = file.read().strip() or "another process"
            print(f"{what}: waiting for {holder}", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield waited
