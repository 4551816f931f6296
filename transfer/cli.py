"""What every command shares: one-line errors in place of tracebacks, and text for a terminal."""

import argparse
import errno
import io
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

import psutil

SHELLS = {"sh", "bash", "dash", "fish", "ksh", "zsh"}


def printable(text: str) -> str:
    """The text on one line, with characters that break the line or control a terminal escaped as in
    Python."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def say(*lines: str) -> None:
    """Print each as one line."""
    print("\n".join(map(printable, lines)))


class UserError(Exception):
    """Bad input. The message is one line: what is wrong, where, and what to do. Names and other
    programs' messages in it are made printable, and users are removed from URLs."""

    def __init__(self, message: str) -> None:
        super().__init__(without_users(printable(message)))


_SYSTEM_ERRORS = {
    errno.ENAMETOOLONG: "the name is too long for the file system; shorten it",
    errno.ENOENT: "no such file or folder; `dvc repro` makes what a stage needs",
    errno.ENOSPC: "the disk is full; free some space and run it again",
    errno.EDQUOT: "the disk quota is used up; free some space and run it again",
    errno.EFBIG: "the file grew past what the system allows (see `ulimit -f`)",
    errno.EACCES: "permission denied; check who owns the file and its folder",
    errno.EROFS: "the file system is read-only; mount it writable or run elsewhere",
}


def run(main: Callable[[], None]) -> NoReturn:
    """Call main and exit: 0 when it returns, 1 with one line on stderr for a user's mistake."""
    if "DVC_STAGE" in os.environ:  # a killed DVC leaves its stage running
        end_with_parent()
    if isinstance(sys.stdout, io.TextIOWrapper):  # so that any name can be printed
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.errno not in _SYSTEM_ERRORS:
            raise
        where = f"{printable(str(error.filename))}: " if error.filename else ""
        sys.exit(f"error: {where}{_SYSTEM_ERRORS[error.errno]}")
    except UnicodeEncodeError as error:
        if error.reason != "surrogates not allowed":
            raise
        name = printable(error.object[max(0, error.start - 20) : error.end + 20])
        sys.exit(f"error: '{name}' is not UTF-8; rename it")
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


def arguments(name: str, about: str | None, **words: str) -> list[str]:
    """A stage's command-line arguments. words: their names, each with its help."""
    parser = argparse.ArgumentParser(prog=f"python -m stages.{name}", description=about)
    for word, help in words.items():
        parser.add_argument(word, help=help)
    return list(vars(parser.parse_args()).values())


def one_line(error: Exception) -> str:
    """The start of a library's error message, or the error's type if it has none."""
    return " ".join(without_users(str(error)).split())[:200] or type(error).__name__


def without_users(text: str) -> str:
    """The text without the user, password or token of its URLs, even one with an unquoted slash."""
    return re.sub(r"(?<=://)([^\s/]*|[^\s/:]*:(?!\d*/)\S*)@", "", text)


def span(seconds: float) -> str:
    """A duration for people."""
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3 * 3600 else f"{seconds / 3600:.0f} h"


def end_with_parent() -> None:
    """End by SIGTERM when the process that started this one, directly or by a shell, has died."""
    parents = psutil.Process().parents()
    starter = next((process for process in parents if process.name() not in SHELLS), None)
    threading.Thread(target=_outlive, args=(starter,), daemon=True).start()


def _outlive(starter: psutil.Process | None) -> None:
    with suppress(psutil.NoSuchProcess):
        while not starter or starter.is_running() and starter.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


def listed(names: list[str]) -> str:
    """The first few, and how many more there are."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
