"""Archives from Kaggle, fetched by Kaggle's own command line.

The command line, unlike Kaggle's Python API, needs no account for public data sets. Credentials
are the client's business: it looks in its own places, and nothing here reads them.
"""

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from transfer import files
from transfer.cli import UserError, without_users
from transfer.params import Download

# What the installed `kaggle` command runs. `python -m kaggle` tells a user without an account,
# wrongly, that one is required.
_CLIENT = "import sys; sys.argv[0] = 'kaggle'; from kaggle.cli import main; main()"

_REFUSED = {
    401: "renew the credentials in ~/.kaggle or the KAGGLE_ variables, or remove them: a public "
    "data set needs none",
    403: "check its name in params.yaml, accept its terms on its page, and put credentials in "
    "~/.kaggle/kaggle.json",
    404: "check its name and version in params.yaml",
}

# The client's words for what another attempt does not mend.
_HOPELESS = {
    r"NameResolutionError|Failed to establish a new connection|ProxyError|SSLError": (
        "cannot reach Kaggle; check the network and the HTTPS_PROXY variable"
    ),
    "No space left on device|Disk quota exceeded": "the disk is full; free some space",
    "No module named": "the kaggle client is not installed; install requirements.txt",
}


class _Failed(Exception):
    """An attempt that failed; `again` tells whether another one may do better."""

    def __init__(self, reason: str, again: bool = True):
        super().__init__(reason)
        self.again = again


def fetch(
    source: Download,
    target: str | Path,
    *,
    attempts: int = 4,
    pause: float = 5.0,
    stall: float = 60.0,
) -> None:
    """Download a data set's archive to `target`, a zip file that is whole or absent.

    pause: seconds before the second attempt, doubled before each further one.
    stall: seconds without a byte after which an attempt is ended. The client's own pauses
    between its retries reach 33 s, so a shorter time cuts those off.
    Raises UserError, one line, when Kaggle refuses, the last attempt fails, or the archive is not
    what the source's first download was.
    """
    target = Path(target)
    with _ended_by_signals(), _scratch(target.with_name(f".{target.stem}.download")) as folder:
        archive = folder / f"{source.kaggle.partition('/')[2]}.zip"  # the name the client gives it
        for left in reversed(range(attempts)):
            try:
                _attempt(source, archive, stall)
                break
            except _Failed as failed:
                if not (failed.again and left):
                    raise UserError(_message(failed, source, target)) from None
                print(f"{failed}; trying again in {pause:g} s", file=sys.stderr, flush=True)
                time.sleep(pause)
                pause *= 2
        made, record = Fetched.describe(source, archive), _record(target)
        if (known := _first(source, target)) not in (None, made):
            raise UserError(
                f"{source.kaggle} version {source.version}: its bytes are not those that {record} "
                "records of its first download; if you trust these, delete that file and run it "
                "again"
            )
        with files.replacing(target) as part:
            os.replace(archive, part)
        if not known:
            made.write(record)


def fetched(source: Download, target: Path) -> bool:
    """Whether `target` is what `fetch` first made of `source`, to the byte."""
    known = _first(source, target)
    return known is not None and target.is_file() and known == Fetched.describe(source, target)


class Fetched(files.Stored):
    """Where an archive came from, and its sha256. Git keeps it."""

    kaggle: str
    version: int
    sha256: str

    @classmethod
    def describe(cls, source: Download, archive: Path) -> Self:
        return cls(**source.model_dump(), sha256=files.sha256(archive))


def _first(source: Download, target: Path) -> Fetched | None:
    """What was recorded of the source's first download; None if it was another source's, or there
    was none. Raises UserError for a record that cannot be read."""
    record = _record(target)
    if not record.exists():
        return None
    try:
        known = Fetched.read(record)
    except UserError:
        raise UserError(f"{record}: no record of a download; restore it, or delete it") from None
    return known if known.model_dump(exclude={"sha256"}) == source.model_dump() else None


def _record(target: Path) -> Path:
    return target.parent.with_name("fetched") / f"{target.stem}.json"


def _attempt(source: Download, archive: Path, stall: float) -> None:
    """Run the client once. What an attempt leaves behind the next one resumes."""
    dataset = f"{source.kaggle}/{source.version}"
    arguments = ["datasets", "download", dataset, "--path", str(archive.parent)]
    # -P: a folder named kaggle in the study's folder must not stand in for the client.
    code, output = _run([sys.executable, "-P", "-c", _CLIENT, *arguments], archive, stall)
    if code != 0:
        raise _failure(output)
    if flaw := _flaw(archive):
        archive.unlink(missing_ok=True)
        raise _Failed(flaw)


def _run(command: list[str], archive: Path, stall: float) -> tuple[int, str]:
    """Run a command in a process group of its own, and end all of it however this ends.

    Returns its exit status and the end of its output.
    """
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    )
    assert process.stdout  # a pipe, as asked for
    try:
        output = _relay(process.stdout.fileno(), archive, stall)
        return process.wait(), output
    finally:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def _relay(pipe: int, archive: Path, stall: float) -> str:
    """Copy output to stderr until it ends, and return its last 8 kB.

    Raises _Failed when the archive's size has not changed for `stall` seconds. Any change counts:
    the client may have to start over from nothing.
    """
    output, begun, size, since = "", b"", -1, time.monotonic()
    while True:
        if select.select([pipe], [], [], 0.2)[0]:
            chunk = os.read(pipe, 8192)
            # A word is held back until it is whole, since it may be a URL.
            said = begun + chunk
            words = re.sub(rb"\S*\Z", b"", said) if chunk else said
            begun = said[len(words) :]
            text = without_users(words.decode(errors="replace"))
            sys.stderr.write(text)
            sys.stderr.flush()
            output = (output + text)[-8192:]
            if not chunk:
                return output
        if (now := _size(archive)) != size:
            size, since = now, time.monotonic()
        elif time.monotonic() - since > stall:
            raise _Failed(f"nothing came from Kaggle for {stall:g} s")


def _failure(output: str) -> _Failed:
    """Tell from the client's output why it failed."""
    status = _status(output)
    if status in (408, 429) or status >= 500:
        return _Failed(f"Kaggle answered {status}")
    if status:
        return _Failed(f"Kaggle answered {status}; {_REFUSED.get(status, _REFUSED[404])}", False)
    for words, reason in _HOPELESS.items():
        if re.search(words, output):
            return _Failed(reason, False)
    if "Download failed after" in output:
        return _Failed("the transfer kept breaking off")
    return _Failed("the kaggle client failed with the message above")


def _status(output: str) -> int:
    """The HTTP status that ended the client, 0 if none did."""
    if found := re.findall(r"\b([45]\d\d) (?:Client|Server) Error", output):
        return int(found[-1])
    # For these two the client prints words of its own or of Kaggle's, and no number.
    if "Authentication required" in output:
        return 401
    return 403 if re.search(r"Permission '.*' was denied", output) else 0


def _flaw(archive: Path) -> str | None:
    """What keeps a file from being a whole zip archive; None if nothing does."""
    try:
        with zipfile.ZipFile(archive) as opened:
            damaged = opened.testzip()
    except FileNotFoundError:
        return "the kaggle client wrote no archive"
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError):
        with archive.open("rb") as file:
            page = file.read(64).lstrip().startswith(b"<")
        return "a web page came, no archive" if page else "what came is not a whole zip archive"
    return f"the archive came damaged at {damaged}" if damaged else None


def _message(failed: _Failed, source: Download, target: Path) -> str:
    key = target.stem
    by_hand = target.with_name(f"{key}_version_{source.version}.zip")
    return (
        f"{source.kaggle} version {source.version}: {failed}"
        f"{'; run it again later' if failed.again else ''}. Or save the archive from "
        f"https://www.kaggle.com/datasets/{source.kaggle}/versions/{source.version} as {by_hand}, "
        f"set datasets.{key}.source to that in params.yaml, and remove download.{key}"
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """An empty folder, removed at the end; an earlier run that was killed may have left one."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind as Ctrl-C does, so that the client ends with us."""

    def leave(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    # nohup has SIGHUP ignored, and means it.
    ours = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
