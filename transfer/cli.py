"""How a stage meets its user: one clear line for each mistake, and no traceback."""

import ctypes
import errno
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import psutil


class UserError(Exception):
    """Bad input. The message is one line: what is wrong, where, and what to do. It may quote names,
    so what would break the line is written as Python escapes it."""

    def __init__(self, message: str) -> None:
        super().__init__("".join(c if c.isprintable() else repr(c)[1:-1] for c in message))


_SYSTEM_ERRORS = {
    errno.ENOENT: "no such file or folder; `dvc repro` makes what a stage needs",
    errno.ENOSPC: "the disk is full; free some space and run it again",
    errno.EDQUOT: "the disk quota is used up; free some space and run it again",
    errno.EFBIG: "the file grew past what the system allows (see `ulimit -f`)",
    errno.EACCES: "permission denied; check who owns the file and its folder",
    errno.EROFS: "the file system is read-only; mount it writable or run elsewhere",
}

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def run(main: Callable[[], None]) -> NoReturn:
    """Call main and exit: 0 when it returns, 1 with one line on stderr for a user's mistake."""
    _settle()
    end_with_dvc(psutil.Process())
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.errno not in _SYSTEM_ERRORS:
            raise
        where = f"{error.filename}: " if error.filename else ""
        sys.exit(f"error: {where}{_SYSTEM_ERRORS[error.errno]}")
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


def span(seconds: float) -> str:
    """A time as a person is told it."""
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def _settle() -> None:
    """Spare Python and the C library work that takes training a tenth of its time or more."""
    # What was imported is no garbage: neither a collection nor the end need look through it.
    gc.freeze()
    gc.enable()
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        # Else each step would give its tensors' memory back to the system and ask for it again.
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def end_with_dvc(process: psutil.Process) -> None:
    """When the DVC that this process was started by dies, end too.

    DVC, when killed, leaves its stage running, and the next `dvc repro` would run it beside that.
    """
    for parent in process.parents()[:3]:
        # The fifth word names it where cluster.warm has started it.
        if any(Path(word).name in ("dvc", "cluster.dvc") for word in parent.cmdline()[:5]):
            threading.Thread(target=_outlive, args=(parent,), daemon=True).start()
            return


def _outlive(parent: psutil.Process) -> None:
    try:
        while parent.is_running() and parent.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.5)
    except psutil.NoSuchProcess:
        pass
    os.kill(os.getpid(), signal.SIGTERM)
