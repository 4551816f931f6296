"""A run's progress on disk, so that a killed run resumes where it was."""

import fcntl
import hashlib
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from transfer import code, files


class Checkpoint:
    """State kept in a file that DVC does not track.

    `key` says what the state depends on: that of another key is not loaded. Saved at most once in
    `every` seconds, since writing ResNet-50 and Adam's moments takes a good part of an epoch on a
    GPU.
    """

    def __init__(self, path: str | Path, key: str, every: float = 60.0) -> None:
        self.path, self.key, self.every = Path(path), key, every
        self.saved = time.monotonic()

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """The last saved state, with tensors on `device`; None if there is none. If a file is there
        that is of no use, also None, and a line on stderr."""
        if not self.path.is_file():
            return None
        try:
            found = torch.load(self.path, map_location=device, weights_only=True)
            if found["key"] == self.key:
                return found["state"]
            why = "is of other settings, data or code"
        except Exception:  # what a torn file raises depends on where it is torn
            why = "is not whole"
        print(f"{self.path} {why}; starting anew", file=sys.stderr, flush=True)
        return None

    def save(self, state: dict[str, Any]) -> None:
        """Write it (tensors, numbers, strings, and lists, tuples and dicts of these), unless the
        last write was less than `every` seconds ago."""
        if time.monotonic() - self.saved < self.every:
            return
        with files.replacing(self.path) as part:
            torch.save({"key": self.key, "state": state}, part)
        self.saved = time.monotonic()

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def fingerprint(script: str, bound: list[Path], **depends: Any) -> str:
    """A hash of the code that the script, such as stages.train, imports, of the files' content and
    of what else is named.

    Also of torch's version and number of threads, on which a CPU's rounding depends.
    """
    depends |= {"code": code.digest(script), "files": [files.sha256(path) for path in bound]}
    depends |= {"torch": torch.__version__, "threads": torch.get_num_threads()}
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()


@contextmanager
def alone(path: str | Path, what: str) -> Iterator[bool]:
    """Hold a lock that no other process holds; wait for one that does, and say who it is. Yields
    whether it waited.

    The lock goes with the process, however that ends.
    """
    waited = False
    path = Path(path)
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
