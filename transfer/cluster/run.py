"""Run the stale train and similarity stages in parallel on Ray; `dvc repro` then makes the rest.

The stages that they depend on run first, one after another. Each group of runs that share their
images, and each similarity stage, is a `dvc repro -s` in its own process, so that DVC decides,
records and caches as usual.
"""

import argparse
import os
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from transfer import cli, files, params
from transfer.cluster.worker import LOGS, Done, Job, reproduce
from transfer.commands import call, error_line, own_path, preceding, succeeded, wait_if_blocked
from transfer.runs import all_runs

ROOT = Path(__file__).resolve().parents[2]
RETRIES = 3  # of a job whose worker died
KINDS = ("train", "similarity")  # stages that run in parallel
NODE = r'^"([^":]+)";$'  # a stage of the folder's own pipeline, in a graph of `dvc dag`
Ray = Any
"""The module ray, which is an extra and may be missing when types are checked."""


def main() -> None:
    args = parse()
    os.environ["PATH"] = own_path()
    if not Path("dvc.yaml").is_file():
        raise cli.UserError("dvc.yaml: no such file; run from the folder of the study")
    with files.locked(LOGS / ".lock", "python -m transfer run"):
        train_stale(args)
    collect = "dvc repro --pull --allow-missing" if args.clone else "dvc repro"
    print(f"`{collect}` makes the tables and report.md")


def train_stale(args: argparse.Namespace) -> None:
    """Run the stale stages. Raises UserError if a setting is invalid, and at the end if any stage
    failed."""
    params.load()  # which checks it before DVC runs anything
    ray = connect(args)
    stages = to_do()
    failed = train(ray, grouped(stages, args), args) if stages else []
    print(f"{len(stages) - len(failed)} of {len(stages)} stale stages done", flush=True)
    if failed:
        raise cli.UserError(f"{len(failed)} stages failed: {', '.join(failed)}")
    ray.shutdown()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m transfer run", description=__doc__)
    parser.add_argument("--workers", type=count, help="runs at once on this machine (default 2)")
    parser.add_argument(
        "--gpus-per-run",
        type=share,
        default=0,
        help="GPUs for each run, such as 0.25 or 1 (default 0)",
    )
    help = "threads, and Ray CPUs, for each run (default: cores ÷ workers; 1 with --address)"
    parser.add_argument("--threads", type=count, help=help)
    parser.add_argument("--address", help="a Ray cluster, such as auto (default: this machine)")
    help = "without a shared disk: clone the commit for each job, and share results by DVC remote"
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
    """A share of a GPU, or a number of GPUs, as Ray accepts them."""
    if not 0 <= float(text) <= 1 and not text.isdigit():
        raise argparse.ArgumentTypeError("give a share from 0 to 1, or a whole number")
    return float(text)


def connect(args: argparse.Namespace) -> Ray:
    """Start Ray, or connect to the address. Raises UserError if that fails or no run fits."""
    try:
        import ray
    except ImportError:
        raise cli.UserError("Ray is not installed; pip install -r requirements-ray.txt") from None
    host, _, port = (args.address or "").rpartition(":")
    try:
        if port.isdigit():  # Ray itself would try for minutes
            host = host.removeprefix("ray://").strip("[]")
            socket.create_connection((host, int(port)), timeout=10).close()
        # Without "local", Ray would join a cluster that `ray start` has started here.
        cpus = None if args.address else args.workers * args.threads
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        ray.init(args.address or "local", num_cpus=cpus, include_dashboard=False, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        name = f"Ray at {args.address}" if args.address else "Ray"
        raise cli.UserError(f"{name}: {str(error).splitlines()[0]}") from None
    check_room(ray, args)
    return ray


def check_room(ray: Ray, args: argparse.Namespace) -> None:
    """Raise UserError if no run fits into this machine's Ray. A cluster may start nodes on demand,
    so there only print that the runs wait. Also point out GPUs that are there and not asked for."""
    least = {"CPU": args.threads, "GPU": args.gpus_per_run}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = sum(node.get("GPU", 0) for node in nodes)
    if gpus and not args.gpus_per_run and params.load().train.device != "cpu":
        advice = "every run takes the first it sees: give --gpus-per-run, such as 0.25"
        print(f"Ray has GPUs ({gpus:g}), and {advice}", flush=True)
    if any(all(node.get(kind, 0) >= least[kind] for kind in least) for node in nodes):
        return
    need = f"{args.threads} CPUs and {args.gpus_per_run:g} GPUs for a run"
    if not args.address:
        raise cli.UserError(f"Ray has no node with {need}; give another --gpus-per-run")
    print(f"Ray has no node with {need}; waiting for one", flush=True)


def to_do() -> list[str]:
    """The stale stages, after bringing up to date what they depend on."""
    try:
        stages = stale()
        ready = all(stage.startswith(KINDS) for stage in stages)
    except cli.UserError:  # DVC misses files that are not made yet
        ready = False
    if not ready:
        prepare()
        stages = stale()
    return stages


def grouped(stages: list[str], args: argparse.Namespace) -> list[Job]:
    """A job for each group of runs, and for each other stage."""
    root, commit = shareable() if args.clone else (str(ROOT), "")
    folder = os.path.relpath(Path.cwd(), ROOT)
    group_of = {f"train@{run.name}": run.group for run in all_runs(params.load().grid)}
    groups: dict[str, list[str]] = {}
    for stage in stages:
        groups.setdefault(group_of.get(stage, stage), []).append(stage)
    return [
        Job(name, members, root, folder, args.threads, commit) for name, members in groups.items()
    ]


def stale() -> list[str]:
    """The stages that DVC would run."""
    return sorted(re.findall(r"^Running stage '([^']+)'", dvc("repro", "--dry", *KINDS), re.M))


def prepare() -> None:
    """Bring up to date, in order, what the parallel stages depend on."""
    graph = dvc("dag", "--dot")
    runs = {name for name in re.findall(NODE, graph, re.M) if name.startswith(KINDS)}
    needed = sorted(preceding(graph, runs))
    dvc("status", *needed)  # waits for another DVC command that makes any of them
    if subprocess.run(["dvc", "--wait-for-lock", "repro", *needed]).returncode:
        raise cli.UserError("what the runs need could not be made; see above")


def dvc(*arguments: str) -> str:
    """The output of a DVC command, which waits for others that use the same files. Raises UserError
    with DVC's message if it fails."""
    done = call("dvc", *arguments)
    while done.returncode and wait_if_blocked(done.stderr):
        done = call("dvc", *arguments)
    if done.returncode:
        line = error_line(done)
        if re.search(r"dvc\.lock' (is invalid|validation failed)", line):
            line += "; if DVC was killed as it wrote it, delete it: its cache has the finished runs"
        raise cli.UserError(f"dvc {' '.join(arguments[:3])}: {line}")
    return done.stdout


def shareable() -> tuple[str, str]:
    """The git URL and commit that workers clone, after pushing what they need to the DVC remote.
    Raises UserError if workers would miss anything."""
    if changed := git("status", "--porcelain"):
        first = changed.splitlines()[0]
        raise cli.UserError(f"{first}: not committed, so workers would not see it; commit it first")
    if "core.remote" not in dvc("config", "--list"):
        raise cli.UserError("no default DVC remote to share results by; see `dvc remote add -d`")
    dvc("push", "--run-cache")
    origin = call("git", "remote", "get-url", "origin").stdout.strip()
    return origin or git("rev-parse", "--show-toplevel"), git("rev-parse", "HEAD")


def git(*arguments: str) -> str:
    """The output of a git command. Raises UserError if it fails."""
    return succeeded(call("git", *arguments)).strip()


def train(ray: Ray, jobs: list[Job], args: argparse.Namespace) -> list[str]:
    """Run all jobs, printing where each starts and ends; returns the stages that failed."""
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # On this node, so that the queue survives the loss of any other.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    begun = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
    takes = {"num_cpus": args.threads, "num_gpus": args.gpus_per_run}
    task = ray.remote(**takes, max_retries=RETRIES)(reproduce)
    waiting = {task.remote(job, begun): job for job in jobs}
    board = Board(len(jobs))
    at_once = "" if args.address else f", {args.workers} at once"
    stages = sum(len(job.stages) for job in jobs)
    print(f"{stages} stages to run{at_once}, in {len(jobs)} groups; logs in {LOGS}/", flush=True)
    while waiting:
        ready, _ = ray.wait(list(waiting), num_returns=1, timeout=0.5)
        for name, host in begun.get_nowait_batch(begun.qsize()):
            board.begin(name, host)
        for task_id in ready:
            job = waiting.pop(task_id)
            try:
                board.end(ray.get(task_id))
            except ray.exceptions.RayError as error:  # after the last retry
                reason = cli.without_users(str(error).strip().splitlines()[-1])
                board.end(Done(job.name, job.stages, 0.0, reason, "its worker"))
    for done in board.failed:
        print(f"\n{', '.join(done.failed)}:\n{done.log}", file=sys.stderr)
    return [stage for done in board.failed for stage in done.failed]


class Board:
    """Prints a line when a job starts or ends, with the progress of all."""

    def __init__(self, jobs: int) -> None:
        self.jobs, self.started = jobs, time.monotonic()
        self.running: dict[str, str] = {}
        self.ended: set[str] = set()
        self.failed: list[Done] = []

    def begin(self, job: str, host: str) -> None:
        if job in self.ended:
            return
        again = " again" if job in self.running else ""
        self.running[job] = host
        print(f"started {job} on {host}{again}", flush=True)

    def end(self, done: Done) -> None:
        self.ended.add(done.job)
        self.running.pop(done.job, None)
        self.failed += [done] if done.failed else []
        left = self.jobs - len(self.ended)
        to_go = (time.monotonic() - self.started) / len(self.ended) * left
        hosts = Counter(self.running.values()).items()
        print(
            f"{'failed' if done.failed else 'done'} {done.job} on {done.host}, "
            f"{done.seconds:.0f} s | {len(self.ended)}/{self.jobs}, {len(self.failed)} failed, "
            f"{left} left, {cli.span(to_go)} to go | running: "
            + (", ".join(f"{count} on {host}" for host, count in hosts) or "none"),
            flush=True,
        )
