"""Train the stale runs side by side on Ray; then `dvc repro` has only the collecting left to do.

What the runs need is made first, one stage after another. Each run is `dvc repro -s` of its stage
in a process of its own, so that DVC decides, records and caches as ever.
"""

import argparse
import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from transfer import cli

LOGS = Path("data/logs")
TAIL = 5  # lines of a failed run's log that are shown


@dataclass(frozen=True)
class Job:
    """A stage to run in `folder`, or in a clone of `source` at `commit` where that is given."""

    stage: str
    folder: str
    threads: int
    source: str = ""
    commit: str = ""


@dataclass(frozen=True)
class Done:
    stage: str
    status: int
    seconds: float
    log: str
    host: str


def main() -> None:
    args = parse()
    os.chdir(args.pipeline.parent)
    if not Path(args.pipeline.name).is_file():
        raise cli.UserError(f"{args.pipeline}: no such file; give --pipeline a dvc.yaml")
    prepare()
    source = commit = ""
    if args.clone:
        source, commit = shareable()
    stages = stale()
    threads = args.threads or max(1, (os.cpu_count() or 1) // args.workers)
    folder = str(Path.cwd())
    jobs = [Job(stage, folder, threads, source, commit) for stage in stages]
    failed = train(jobs, args) if jobs else []
    print(f"{len(jobs) - len(failed)} of {len(jobs)} stale runs trained", flush=True)
    if failed:
        raise cli.UserError(f"{len(failed)} runs failed: {', '.join(d.stage for d in failed)}")
    collect = "dvc repro --pull --allow-missing" if args.clone else "dvc repro"
    print(f"`{collect}` makes the tables and the report")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m cluster.run", description=__doc__)
    parser.add_argument("--pipeline", type=Path, default=Path("dvc.yaml"))
    parser.add_argument("--workers", type=int, default=2, help="runs at once on this machine")
    parser.add_argument("--gpus-per-run", type=float, default=0, help="a share, such as 0.25")
    parser.add_argument("--threads", type=int, default=0, help="of a run; 0: cores ÷ workers")
    parser.add_argument("--address", help="of a Ray cluster, such as auto; else this machine")
    help = "workers share no disk: they clone the commit, and exchange results by the DVC remote"
    parser.add_argument("--clone", action="store_true", help=help)
    args = parser.parse_args()
    if args.workers < 1:
        parser.error("--workers: give 1 or more")
    return args


def dvc(*arguments: str) -> str:
    """What a DVC command prints. Raises UserError with its last line when it fails."""
    done = subprocess.run(["dvc", *arguments], capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        errors = [line for line in lines if line.lower().startswith("error")] or lines
        raise cli.UserError(f"dvc {' '.join(arguments[:3])}: {errors[-1] if errors else 'failed'}")
    return done.stdout


def prepare() -> None:
    """Bring up to date, in order, what the runs need."""
    nodes = re.findall(r'^"([^"]+)";$', dvc("dag", "--dot", "train"), re.M)
    needed = [name for name in nodes if not name.startswith("train@")]
    if subprocess.run(["dvc", "repro", *needed]).returncode:
        raise cli.UserError("what the runs need could not be made; see above")


def stale() -> list[str]:
    """The train stages that DVC would run. Runs that share a backbone pass are not neighbours."""
    return sorted(
        re.findall(r"^Running stage '(train@[^']+)'", dvc("repro", "--dry", "train"), re.M)
    )


def shareable() -> tuple[str, str]:
    """(git URL, commit) for workers to clone; what they need is pushed. Raises UserError for what
    they could not see."""
    if changed := git("status", "--porcelain"):
        first = changed.splitlines()[0]
        raise cli.UserError(f"{first}: not committed, so workers would not see it; commit it first")
    if "core.remote" not in dvc("config", "--list"):
        raise cli.UserError("no default DVC remote to exchange results by; see `dvc remote add -d`")
    dvc("push", "--run-cache")
    url = git("remote", "get-url", "origin", check=False) or git("rev-parse", "--show-toplevel")
    return url, git("rev-parse", "HEAD")


def git(*arguments: str, check: bool = True) -> str:
    """What a git command prints."""
    command = ["git", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=check).stdout.strip()


def train(jobs: list[Job], args: argparse.Namespace) -> list[Done]:
    """Run them all, saying what is done; returns those that failed by their own fault."""
    ray = connect(args)
    task = ray.remote(num_cpus=1, num_gpus=args.gpus_per_run, max_retries=3)(reproduce)
    waiting = {task.remote(job): job for job in jobs}
    started, failed = time.monotonic(), []
    print(f"{len(jobs)} runs to train, {args.workers} at once; logs in {LOGS}/", flush=True)
    while waiting:
        ready, _ = ray.wait(list(waiting), num_returns=1)
        job = waiting.pop(ready[0])
        try:
            done = ray.get(ready[0])
        except ray.exceptions.RayError as error:
            # Lost more often than it is retried, or no clone to be had.
            done = Done(job.stage, -1, 0.0, str(error).strip().splitlines()[-1], "its worker")
        failed += [done] if done.status else []
        passed = time.monotonic() - started
        print(line(done, len(jobs) - len(waiting), len(jobs), passed), flush=True)
    for done in failed:
        print(f"\n{done.stage}: exit status {done.status}\n{done.log}", file=sys.stderr)
    ray.shutdown()
    return failed


def line(done: Done, finished: int, jobs: int, passed: float) -> str:
    left = passed / finished * (jobs - finished)
    word = "failed" if done.status else "done"
    return (
        f"{finished}/{jobs} {word} {done.stage} on {done.host}, {done.seconds:.0f} s; "
        f"{left / 60:.0f} min to go"
    )


def connect(args: argparse.Namespace):
    try:
        import ray
    except ImportError:
        raise cli.UserError("Ray is not installed; pip install -r requirements-ray.txt") from None
    here = {"num_cpus": args.workers, "include_dashboard": False}
    where = {"address": args.address} if args.address else here
    ray.init(**where, log_to_driver=False, logging_level="ERROR")
    return ray


def reproduce(job: Job) -> Done:
    """Runs on a worker."""
    started = time.monotonic()
    folder = clone(job) if job.source else Path(job.folder)
    log = folder / LOGS / f"{job.stage}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    command = ["dvc", "--wait-for-lock", "repro", "-s", *["--pull"] * bool(job.source), job.stage]
    status = call(command, folder, log, job.threads)
    if job.source and not status:
        status = call(["dvc", "push", "--run-cache"], folder, log, job.threads)
    tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:])
    return Done(job.stage, status, time.monotonic() - started, tail, socket.gethostname())


def clone(job: Job) -> Path:
    """A clone of the commit that this worker process keeps for its other runs, in the system's
    folder for temporary files."""
    folder = Path(tempfile.gettempdir(), f"{job.commit[:12]}-{os.getpid()}")
    if not (folder / ".git").is_dir():
        subprocess.run(["git", "clone", "-q", job.source, str(folder)], check=True)
        subprocess.run(["git", "checkout", "-q", job.commit], cwd=folder, check=True)
    return folder


def call(command: list[str], folder: Path, log: Path, threads: int) -> int:
    """Exit status of a command, its output appended to the log. It ends with this process."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with open(log, "a", encoding="utf-8") as file:
        return subprocess.run(
            command, cwd=folder, env=environment, stdout=file, stderr=file, preexec_fn=_end_too
        ).returncode


def _end_too() -> None:
    """Linux alone can: a dead worker leaves no DVC, and that (transfer.cli) no stage."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


if __name__ == "__main__":
    cli.run(main)
