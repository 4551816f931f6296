"""Run the stale train and similarity stages side by side on Ray; `dvc repro` then only collects.

What the runs need is made first, one stage after another. Each run is `dvc repro -s` of its stage
in a process of its own, so that DVC decides, records and caches as ever.
"""

import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from transfer import cli
from transfer.commands import call, error_line, succeeded

ROOT = Path(__file__).resolve().parents[2]
LOGS = Path("data/logs")
RETRIES = 3  # of a run whose worker died
KINDS = ("train", "similarity")  # of stages that go side by side
NEEDED = ("pack", "weights", "pretrain")  # by those; what these need, DVC makes too
TAIL = 5  # lines of a failed run's log that are shown
Ray = Any
"""The module ray, an extra: it may be missing, and comes without types of what it makes."""


@dataclass(frozen=True)
class Job:
    """A stage to run in `folder` of the repository at `root`, on so many `threads`; workers clone
    the repository from there at `commit` where that is given."""

    stage: str
    root: str
    folder: str
    threads: int
    commit: str = ""


@dataclass(frozen=True)
class Done:
    """How a job ended: the exit status of DVC (-1: its worker was lost), the seconds that it took,
    the end of its log, and the host that it ran on."""

    stage: str
    status: int
    seconds: float
    log: str
    host: str


def main() -> None:
    args = parse()
    os.environ["PATH"] = own_path()
    if not Path("dvc.yaml").is_file():
        raise cli.UserError("dvc.yaml: no such file; run from the folder of the study")
    ray = connect(args)
    jobs = plan(args)
    failed = train(ray, jobs, args) if jobs else []
    ray.shutdown()
    print(f"{len(jobs) - len(failed)} of {len(jobs)} stale stages done", flush=True)
    if failed:
        raise cli.UserError(f"{len(failed)} stages failed: {', '.join(d.stage for d in failed)}")
    collect = "dvc repro --pull --allow-missing" if args.clone else "dvc repro"
    print(f"`{collect}` makes the tables and the report")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m transfer run", description=__doc__)
    parser.add_argument("--workers", type=count, help="runs at once on this machine (default 2)")
    parser.add_argument("--gpus-per-run", type=share, default=0, help="such as 0.25 or 1")
    help = "of a run, so many of Ray's CPUs (default: cores ÷ workers; with --address 1)"
    parser.add_argument("--threads", type=count, help=help)
    parser.add_argument("--address", help="of a Ray cluster, such as auto; else this machine")
    help = "workers share no disk: they clone the commit, and exchange results by the DVC remote"
    parser.add_argument("--clone", action="store_true", help=help)
    args = parser.parse_args()
    if args.address and args.workers:
        parser.error("--workers is for this machine; a cluster runs as many as it has room for")
    args.workers = args.workers or 2
    if not args.threads:
        args.threads = 1 if args.address else max(1, (os.cpu_count() or 1) // args.workers)
    return args


def count(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError("give 1 or more")
    return int(text)


def share(text: str) -> float:
    """Of a GPU, or whole ones: what Ray takes."""
    if not 0 <= float(text) <= 1 and not text.isdigit():
        raise argparse.ArgumentTypeError("give a share from 0 to 1, or a whole number")
    return float(text)


def connect(args: argparse.Namespace) -> Ray:
    """Start Ray, or find it at the address. Raises UserError where there is none, or no room."""
    try:
        import ray
    except ImportError:
        raise cli.UserError("Ray is not installed; pip install -r requirements-ray.txt") from None
    host, _, port = (args.address or "").rpartition(":")
    try:
        if port.isdigit():  # Ray itself would try for minutes.
            host = host.removeprefix("ray://").strip("[]")
            socket.create_connection((host, int(port)), timeout=10).close()
        # "local", since it would join what `ray start` has started here.
        cpus = None if args.address else args.workers * args.threads
        where = {"address": args.address or "local", "num_cpus": cpus}
        ray.init(**where, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as error:
        name = f"Ray at {args.address}" if args.address else "Ray"
        raise cli.UserError(f"{name}: {str(error).splitlines()[0]}") from None
    check_room(ray, args)
    return ray


def check_room(ray: Ray, args: argparse.Namespace) -> None:
    """Raise UserError where no run would ever fit into the Ray of this machine; a cluster may have
    nodes that start on demand, and is waited for."""
    least = {"CPU": args.threads, "GPU": args.gpus_per_run}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(all(node.get(kind, 0) >= least[kind] for kind in least) for node in nodes):
        return
    what = f"{args.threads} CPUs and {args.gpus_per_run:g} GPUs for a run"
    if not args.address:
        raise cli.UserError(f"Ray has no node with {what}; give another --gpus-per-run")
    print(f"Ray has no node with {what}; waiting for one", flush=True)


def plan(args: argparse.Namespace) -> list[Job]:
    """The runs to make, once what they need is made."""
    try:
        stages = stale()
        ready = all(stage.startswith(KINDS) for stage in stages)
    except cli.UserError:  # DVC looks in vain for what is not made yet
        ready = False
    if not ready:
        prepare()
        stages = stale()
    root, commit = shareable() if args.clone else (str(ROOT), "")
    folder = os.path.relpath(Path.cwd(), ROOT)
    return [Job(stage, root, folder, args.threads, commit) for stage in stages]


def stale() -> list[str]:
    """What DVC would run for the runs; those that share a backbone pass are not neighbours."""
    return sorted(re.findall(r"^Running stage '([^']+)'", dvc("repro", "--dry", *KINDS), re.M))


def prepare() -> None:
    """Bring up to date, in order, what the runs build on."""
    if subprocess.run(["dvc", "repro", *NEEDED]).returncode:
        raise cli.UserError("what the runs need could not be made; see above")


def dvc(*arguments: str) -> str:
    """What a DVC command prints. Raises UserError with what it says when it fails."""
    done = call("dvc", *arguments)
    if done.returncode:
        line = error_line(done)
        if re.search(r"dvc\.lock' (is invalid|validation failed)", line):
            line += "; if DVC was killed as it wrote it, delete it: its cache has the finished runs"
        raise cli.UserError(f"dvc {' '.join(arguments[:3])}: {line}")
    return done.stdout


def shareable() -> tuple[str, str]:
    """(git URL, commit) for workers to clone; what they need is pushed. Raises UserError for what
    they could not see."""
    if changed := git("status", "--porcelain"):
        first = changed.splitlines()[0]
        raise cli.UserError(f"{first}: not committed, so workers would not see it; commit it first")
    if "core.remote" not in dvc("config", "--list"):
        raise cli.UserError("no default DVC remote to exchange results by; see `dvc remote add -d`")
    dvc("push", "--run-cache")
    origin = call("git", "remote", "get-url", "origin").stdout.strip()
    return origin or git("rev-parse", "--show-toplevel"), git("rev-parse", "HEAD")


def git(*arguments: str) -> str:
    """What a git command prints. Raises UserError when it fails."""
    return succeeded(call("git", *arguments)).strip()


def train(ray: Ray, jobs: list[Job], args: argparse.Namespace) -> list[Done]:
    """Run them all, saying what starts and ends where; returns those that failed by their own
    fault."""
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # On this node, so that losing another does not lose it.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    begun = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
    takes = {"num_cpus": args.threads, "num_gpus": args.gpus_per_run}
    task = ray.remote(**takes, max_retries=RETRIES)(reproduce)
    waiting = {task.remote(job, begun): job for job in jobs}
    board = Board(len(jobs))
    at_once = "" if args.address else f", {args.workers} at once"
    print(f"{len(jobs)} stages to run{at_once}; logs in {LOGS}/", flush=True)
    while waiting:
        ready, _ = ray.wait(list(waiting), num_returns=1, timeout=0.5)
        for stage, host in begun.get_nowait_batch(begun.qsize()):
            board.begin(stage, host)
        for one in ready:
            job = waiting.pop(one)
            try:
                board.end(ray.get(one))
            except ray.exceptions.RayError as error:
                # Lost more often than it is retried, or no clone to be had.
                why = str(error).strip().splitlines()[-1]
                board.end(Done(job.stage, -1, 0.0, why, "its worker"))
    for done in board.failed:
        print(f"\n{done.stage}: exit status {done.status}\n{done.log}", file=sys.stderr)
    return board.failed


class Board:
    """What runs where, and how far all of it is; a line at each change."""

    def __init__(self, jobs: int) -> None:
        self.jobs, self.started = jobs, time.monotonic()
        self.running: dict[str, str] = {}
        self.ended: set[str] = set()
        self.failed: list[Done] = []

    def begin(self, stage: str, host: str) -> None:
        if stage in self.ended:
            return
        again = " again" if stage in self.running else ""
        self.running[stage] = host
        print(f"started {stage} on {host}{again}", flush=True)

    def end(self, done: Done) -> None:
        self.ended.add(done.stage)
        self.running.pop(done.stage, None)
        self.failed += [done] if done.status else []
        left = self.jobs - len(self.ended)
        to_go = (time.monotonic() - self.started) / len(self.ended) * left
        hosts = Counter(self.running.values()).items()
        print(
            f"{'failed' if done.status else 'done'} {done.stage} on {done.host}, "
            f"{done.seconds:.0f} s | {len(self.ended)}/{self.jobs}, {len(self.failed)} failed, "
            f"{left} left, {cli.span(to_go)} to go | running: "
            + (", ".join(f"{count} on {host}" for host, count in hosts) or "none"),
            flush=True,
        )


def reproduce(job: Job, begun: Any) -> Done:
    """Runs on a worker, which puts (stage, host) in `begun`, a queue of Ray's."""
    started, host = time.monotonic(), socket.gethostname()
    begun.put((job.stage, host))
    root = clone(job) if job.commit else Path(job.root)
    folder = root / job.folder
    log = folder / LOGS / f"{job.stage}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    fixed = {"OMP_NUM_THREADS": str(job.threads), "PYTHONPATH": str(root), "PATH": own_path()}

    def dvc(*arguments: str) -> int:
        command = [sys.executable, "-m", "transfer.cluster.dvc", *arguments]
        with open(log, "a", encoding="utf-8") as file:
            own = {**os.environ, **fixed}
            done = subprocess.run(command, cwd=folder, env=own, stdout=file, stderr=file)
        return done.returncode

    pull = ["--pull"] if job.commit else []
    status = dvc("--wait-for-lock", "repro", "-s", *pull, job.stage)
    if job.commit and not status:
        status = dvc("push", "--run-cache")
    tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:])
    return Done(job.stage, status, time.monotonic() - started, tail, host)


def own_path() -> str:
    """PATH, on which `python` and `dvc` are those of this environment, activated or not."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def clone(job: Job) -> Path:
    """This worker process's clone of the commit, kept for its other runs in the system's folder for
    temporary files. Those of processes that are gone are removed."""
    workers = Path(tempfile.gettempdir(), f"study-workers-{os.getuid()}")
    for left in workers.glob("*"):
        if not psutil.pid_exists(int(left.name)):
            shutil.rmtree(left, ignore_errors=True)
    own = workers / str(os.getpid())
    own.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = own / job.commit
    if not folder.is_dir():
        subprocess.run(["git", "clone", "-q", job.root, str(folder)], check=True)
        subprocess.run(["git", "checkout", "-q", job.commit], cwd=folder, check=True)
    return folder
