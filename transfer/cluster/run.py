"""Run the stale train and similarity stages in parallel on Ray; `dvc repro` then does the rest.

The stages that they need run first, one after another. Each group of runs that share their images,
and each similarity stage, is a `dvc repro -s` in a process of its own, so that DVC decides, records
and caches as usual.
"""

import argparse
import fcntl
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from transfer import cli, files, params
from transfer.cluster.watch import Watching
from transfer.commands import call, error_line, own_path, preceding, succeeded
from transfer.runs import all_runs

ROOT = Path(__file__).resolve().parents[2]
LOGS = Path("data/logs")
RETRIES = 3  # of a job whose worker died
KINDS = ("train", "similarity")  # stages that run in parallel
NODE = r'^"([^":]+)";$'  # a stage of the folder's own pipeline, in a graph of `dvc dag`
FAILED = re.compile(r"^ERROR: failed to reproduce (.*)", re.M)  # in DVC's output
BLOCKER = re.compile(r"^ +\(PID (\d+)\): (.*)", re.M)  # a process that DVC has to wait for
LOCKED = "Unable to acquire lock"  # what DVC says while another works on its own files
CLONES = "study-worker-"  # how folders of clones begin
TAIL = 9  # lines shown of a log with a failed stage
Ray = Any
"""The module ray, which is an extra and may be missing when types are checked."""


@dataclass(frozen=True)
class Job:
    """Stages to run one after another: a group of runs, of which the first trains all (see
    transfer.training.run_cache), or a similarity stage.

    root: path of the repository, or, if `commit` is given, the URL to clone that commit from.
    folder: of the pipeline, within the repository. threads: that PyTorch is to use.
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


def main() -> None:
    args = parse()
    os.environ["PATH"] = own_path()
    if not Path("dvc.yaml").is_file():
        raise cli.UserError("dvc.yaml: no such file; run from the folder of the study")
    with files.alone(LOGS / ".lock", "python -m transfer run"):
        train_stale(args)
    collect = "dvc repro --pull --allow-missing" if args.clone else "dvc repro"
    print(f"`{collect}` makes the tables and report.md")


def train_stale(args: argparse.Namespace) -> None:
    """Run the stale stages. Raises UserError for settings that nothing is run with, and at the end
    if any failed."""
    study = params.load()
    ray = connect(args)
    stages = to_do()
    with Watching(study) if args.watch else nullcontext():
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
    help = "threads, and CPUs of Ray, for each run (default: cores ÷ workers; 1 with --address)"
    parser.add_argument("--threads", type=count, help=help)
    parser.add_argument("--address", help="of a Ray cluster, such as auto (default: this machine)")
    help = "no shared disk: workers clone the commit and exchange results through the DVC remote"
    parser.add_argument("--clone", action="store_true", help=help)
    help = "show all runs in one table, as `python -m transfer watch` does"
    parser.add_argument("--watch", action="store_true", help=help)
    args = parser.parse_args()
    if args.watch and args.clone:
        parser.error("--watch looks into this folder, in which workers with --clone do not train")
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
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        ray.init(args.address or "local", num_cpus=cpus, include_dashboard=False, **quiet)
    except (OSError, RuntimeError, ValueError) as error:
        name = f"Ray at {args.address}" if args.address else "Ray"
        raise cli.UserError(f"{name}: {str(error).splitlines()[0]}") from None
    check_room(ray, args)
    return ray


def check_room(ray: Ray, args: argparse.Namespace) -> None:
    """Raise UserError if no run fits into this machine's Ray. A cluster may start nodes on demand,
    so there a message says that the runs wait. Another says that there are GPUs, if none was asked
    for."""
    least = {"CPU": args.threads, "GPU": args.gpus_per_run}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = sum(node.get("GPU", 0) for node in nodes)
    if gpus and not args.gpus_per_run and params.load().train.device != "cpu":
        shared = "every run takes the first it sees: give --gpus-per-run, such as 0.25"
        print(f"Ray has GPUs ({gpus:g}), and {shared}", flush=True)
    if any(all(node.get(kind, 0) >= least[kind] for kind in least) for node in nodes):
        return
    what = f"{args.threads} CPUs and {args.gpus_per_run:g} GPUs for a run"
    if not args.address:
        raise cli.UserError(f"Ray has no node with {what}; give another --gpus-per-run")
    print(f"Ray has no node with {what}; waiting for one", flush=True)


def to_do() -> list[str]:
    """The stale stages, after bringing what they need up to date."""
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
    root, commit = shareable() if args.clone else (str(ROOT), "")
    folder = os.path.relpath(Path.cwd(), ROOT)
    groups: dict[str, list[str]] = {}
    of = {f"train@{run.name}": run.group for run in all_runs(params.load().grid)}
    for stage in stages:
        groups.setdefault(of.get(stage, stage), []).append(stage)
    return [Job(name, own, root, folder, args.threads, commit) for name, own in groups.items()]


def stale() -> list[str]:
    """The stages that DVC would run."""
    return sorted(re.findall(r"^Running stage '([^']+)'", dvc("repro", "--dry", *KINDS), re.M))


def prepare() -> None:
    """Bring up to date, in order, what the parallel stages depend on."""
    graph = dvc("dag", "--dot")
    runs = {name for name in re.findall(NODE, graph, re.M) if name.startswith(KINDS)}
    needed = sorted(preceding(graph, runs))
    dvc("status", *needed)  # which waits for another DVC that makes any of them
    if subprocess.run(["dvc", "--wait-for-lock", "repro", *needed]).returncode:
        raise cli.UserError("what the runs need could not be made; see above")


def dvc(*arguments: str) -> str:
    """What a DVC command prints, once no other DVC uses what it needs. Raises UserError with what
    it says when it fails."""
    done = call("dvc", *arguments)
    while done.returncode and freed(done.stderr):
        done = call("dvc", *arguments)
    if done.returncode:
        line = error_line(done)
        if re.search(r"dvc\.lock' (is invalid|validation failed)", line):
            line += "; if DVC was killed as it wrote it, delete it: its cache has the finished runs"
        raise cli.UserError(f"dvc {' '.join(arguments[:3])}: {line}")
    return done.stdout


def freed(output: str) -> bool:
    """Whether a DVC failed because another was at work here; returns when that has ended or, as it
    may be at work elsewhere by then, after a minute."""
    others = []
    for number, command in BLOCKER.findall(output):
        if other := its_process(int(number)):
            print(f"waiting for process {number}: {command}", file=sys.stderr, flush=True)
            others.append(other)
        elif psutil.pid_exists(int(number)):
            return False  # the number is another program's now
    if LOCKED in output:  # DVC has tried for three seconds
        print("waiting for another DVC command in this folder", file=sys.stderr, flush=True)
    psutil.wait_procs(others, timeout=60)
    return LOCKED in output or "is being blocked by" in output


def its_process(number: int) -> psutil.Process | None:
    """The process of that number, if it is there and DVC's."""
    with suppress(psutil.Error):
        process = psutil.Process(number)
        return process if any("dvc" in word for word in process.cmdline()) else None
    return None


def shareable() -> tuple[str, str]:
    """The git URL and commit that workers clone, after pushing what they need to the DVC remote.
    Raises UserError if they could not see all of it."""
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


def train(ray: Ray, jobs: list[Job], args: argparse.Namespace) -> list[str]:
    """Run all jobs, printing where each starts and ends; returns the stages that failed."""
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
    stages = sum(len(job.stages) for job in jobs)
    print(f"{stages} stages to run{at_once}, in {len(jobs)} groups; logs in {LOGS}/", flush=True)
    while waiting:
        ready, _ = ray.wait(list(waiting), num_returns=1, timeout=0.5)
        for name, host in begun.get_nowait_batch(begun.qsize()):
            board.begin(name, host)
        for one in ready:
            job = waiting.pop(one)
            try:
                board.end(ray.get(one))
            except ray.exceptions.RayError as error:
                # The worker was lost more often than it is retried.
                why = cli.without_users(str(error).strip().splitlines()[-1])
                board.end(Done(job.name, job.stages, 0.0, why, "its worker"))
    for done in board.failed:
        print(f"\n{', '.join(done.failed)}:\n{done.log}", file=sys.stderr)
    return [stage for done in board.failed for stage in done.failed]


class Board:
    """Prints a line whenever a job starts or ends: which runs where, and the progress of all."""

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


def reproduce(job: Job, begun: Any) -> Done:
    """Runs on a worker, which announces (job, host) in `begun`, a queue of Ray's."""
    started, host = time.monotonic(), socket.gethostname()
    begun.put((job.name, host))
    try:
        root = clone(job) if job.commit else Path(job.root)
    except cli.UserError as error:
        return Done(job.name, job.stages, time.monotonic() - started, str(error), host)
    folder = root / job.folder
    log = folder / LOGS / f"{job.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    fixed = {"OMP_NUM_THREADS": str(job.threads), "PYTHONPATH": str(root), "PATH": own_path()}
    own = os.environ | fixed

    def dvc(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "transfer.cluster.dvc", "--wait-for-lock", *arguments]
        return logged(log, command, cwd=folder, env=own)

    repro = ["repro", "--keep-going", "-s", *(["--pull"] if job.commit else []), *job.stages]
    status, output = dvc(*repro)
    while status and freed(output):
        status, output = dvc(*repro)
    if job.commit:
        pushed, more = dvc("push", "--run-cache")
        status, output = pushed or status, output + more
    named = [stage for stage in job.stages if f"'{stage}'" in "".join(FAILED.findall(output))]
    failed = (named or job.stages) if status else []
    tail = "\n".join(output.splitlines()[-TAIL:])
    return Done(job.name, failed, time.monotonic() - started, tail, host)


def logged(log: Path, command: list[str], **options: Any) -> tuple[int, str]:
    """Run a command, with what it says added to a log as it comes, without the users of URLs.
    Returns its status and what it said."""
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
            process.kill()  # where this worker is ended; nothing, where the command has
    return process.returncode, output


def clone(job: Job) -> Path:
    """This worker process's clone of the commit, where its later runs find it again. Raises
    UserError, and leaves nothing, where git fails."""
    folder = clones() / job.commit
    if not folder.is_dir():
        with files.replacing(folder) as part:
            succeeded(call("git", "clone", "-q", "--", job.root, str(part)))
            if call("git", "checkout", "-q", job.commit, "--", folder=part).returncode:
                why = f"the commit {job.commit[:9]} is not in {job.root}"
                raise cli.UserError(f"{why}; push it, so that workers can clone it")
    return folder


@cache
def clones() -> Path:
    """A folder of this process's own, for its user alone, which it holds locked while it lives.
    Those of processes that have ended are removed."""
    for left in Path(tempfile.gettempdir()).glob(f"{CLONES}*"):
        with suppress(OSError):  # another user's, no folder, a link to one, or in use
            held = locked(left, fcntl.LOCK_NB)
            # An empty one may be just being made.
            if os.fstat(held).st_uid == os.getuid() and any(left.iterdir()):
                shutil.rmtree(left)
            os.close(held)
    own = Path(tempfile.mkdtemp(prefix=CLONES))
    locked(own)
    return own


def locked(folder: Path, how: int = 0) -> int:
    """A lock of the folder itself, until the file descriptor is closed. Raises OSError for what is
    no folder, and for one in use if `how` is LOCK_NB."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | how)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
