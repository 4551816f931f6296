"""What a worker does with a job: a `dvc repro` of its stages, in this folder or in a clone."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transfer import cli
from transfer.commands import call, own_path, succeeded, wait_if_blocked

LOGS = Path("data/logs")
FAILED = re.compile(r"^ERROR: failed to reproduce (.*)", re.M)  # in DVC's output
TAIL = 9  # lines shown of a failed stage's log


@dataclass(frozen=True)
class Job:
    """Stages to run one after another: a group of runs, of which the first trains all (see
    transfer.training.run_cache), or a similarity stage.

    root: path of the repository, or, with a `commit`, the URL to clone that commit from. folder: of
    the pipeline, within the repository. threads: for PyTorch.
    """

    name: str
    stages: list[str]
    root: str
    folder: str
    threads: int
    commit: str = ""


@dataclass(frozen=True)
class Done:
    """How a job ended.

    failed: its stages that DVC could not make, all if the worker was lost. log: the last lines.
    host: where it ran.
    """

    job: str
    failed: list[str]
    seconds: float
    log: str
    host: str


def reproduce(job: Job, begun: Any) -> Done:
    """Run a job on a worker. begun: Ray's queue, which is told the job's name and host."""
    started, host = time.monotonic(), socket.gethostname()
    begun.put((job.name, host))
    try:
        with checkout(job) as root:
            failed, log = run_stages(job, root)
    except cli.UserError as error:
        failed, log = job.stages, str(error)
    return Done(job.name, failed, time.monotonic() - started, log, host)


@contextmanager
def checkout(job: Job) -> Iterator[Path]:
    """The repository's folder, or a clone of the job's commit that is removed afterwards. Raises
    UserError if git fails."""
    if not job.commit:
        yield Path(job.root)
        return
    with TemporaryDirectory(prefix="study-worker-") as folder:
        clone = Path(folder, "clone")
        succeeded(call("git", "clone", "-q", "--", job.root, str(clone)))
        if call("git", "checkout", "-q", job.commit, "--", folder=clone).returncode:
            problem = f"the commit {job.commit[:9]} is not in {job.root}"
            raise cli.UserError(f"{problem}; push it, so that workers can clone it")
        yield clone


def run_stages(job: Job, root: Path) -> tuple[list[str], str]:
    """The stages that failed, and the end of DVC's output, which goes to a log. A clone takes its
    inputs from the DVC remote, and pushes its results there."""
    folder = root / job.folder
    log = folder / LOGS / f"{job.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    fixed = {"OMP_NUM_THREADS": str(job.threads), "PYTHONPATH": str(root), "PATH": own_path()}
    environment = os.environ | fixed

    def dvc(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "transfer.cluster.dvc", "--wait-for-lock", *arguments]
        return logged(log, command, cwd=folder, env=environment)

    repro = ["repro", "--keep-going", "-s", *(["--pull"] if job.commit else []), *job.stages]
    status, output = dvc(*repro)
    while status and wait_if_blocked(output):
        status, output = dvc(*repro)
    if job.commit:
        push_status, push_output = dvc("push", "--run-cache")
        status, output = push_status or status, output + push_output
    failures = "".join(FAILED.findall(output))
    named = [stage for stage in job.stages if f"'{stage}'" in failures]
    failed = (named or job.stages) if status else []
    return failed, "\n".join(output.splitlines()[-TAIL:])


def logged(log: Path, command: list[str], **options: Any) -> tuple[int, str]:
    """Run a command and append its output to a log as it comes, without user names in URLs. Returns
    its status and output."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    text: dict[str, Any] = {"encoding": "utf-8", "errors": "replace"}
    output = ""
    with (
        open(log, "a", encoding="utf-8", buffering=1) as file,
        subprocess.Popen(command, **pipes, **text, **options) as process,
    ):
        assert process.stdout  # a pipe, as asked for
        try:
            for line in map(cli.without_users, process.stdout):
                output += line
                file.write(line)
            process.wait()
        finally:
            process.kill()  # if this worker is being ended; otherwise it has exited
    return process.returncode, output
