"""A run's progress on disk, so that a killed run resumes where it was."""

import io
import sys
import time
from pathlib import Path
from typing import Any

import torch

from transfer import files


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
            why = "is of other settings, data or code, or another device"
        except Exception:  # what a torn file raises depends on where it is torn
            why = "is not whole"
        print(f"{self.path} {why}; starting anew", file=sys.stderr, flush=True)
        return None

    def save(self, state: dict[str, Any]) -> None:
        """Write it (tensors, numbers, strings, and lists, tuples and dicts of these), unless the
        last write was less than `every` seconds ago."""
        if time.monotonic() - self.saved < self.every:
            return
        write(self.path, {"key": self.key, "state": state})
        self.saved = time.monotonic()

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def write(path: str | Path, value: dict[str, Any]) -> None:
    """torch.save to a file that is whole or absent. Raises OSError where the disk is full, of which
    PyTorch, writing by itself, would say only that a position is unexpected."""
    stream = io.BytesIO()
    torch.save(value, stream)
    with files.replacing(path) as part:
        part.write_bytes(stream.getbuffer())
