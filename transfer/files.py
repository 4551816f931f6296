"""Files that are written whole or not at all, and locks."""

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
    """Yield a new path beside `path`. The file or folder that the caller writes there replaces
    `path` when the block ends, or is removed if it fails."""
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
    """A record with checked types. Unknown fields are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Stored(Fields):
    """A record that is a JSON file of its own."""

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Raises UserError if the fields differ, as in a file of an older version."""
        try:
            return cls.model_validate_json(Path(path).read_bytes())
        except ValidationError as error:
            field = ".".join(map(str, error.errors()[0]["loc"]))
            raise UserError(f"{path}: of another version ({field}); run `dvc repro`") from None

    def write(self, path: str | Path) -> None:
        write_json(path, self.model_dump(mode="json"))


def sha256(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove(path: Path) -> None:
    """Remove a file or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def locked(path: str | Path, who: str) -> Iterator[bool]:
    """Hold an exclusive lock on the file; print whom it waits for. Yields whether it waited. The
    lock ends with the process. Raises UserError on Windows."""
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
            print(f"{who}: waiting for {holder}", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield waited
