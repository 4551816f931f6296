"""A process that has imported what a worker's processes import, and forks for each of these.

Importing torch takes longer than a short run. `python -m cluster.warm FOLDER MODULE…` puts into an
empty folder a `python` that sends `python -m MODULE` here, by cluster.handover. Nothing is computed
before the fork, so that what is forked does what it would if started by itself.
"""

import importlib
import json
import os
import runpy
import shlex
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import psutil

from transfer import cli

COLD = -1000  # instead of an exit status: start it yourself
ROOT = Path(__file__).resolve().parents[1]
THREADS = "OMP_NUM_THREADS"


def main() -> None:
    folder, modules = Path(sys.argv[1]), sys.argv[2:]
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "socket"))
    listener.listen()
    words = ROOT / "cluster/handover.py", folder / "socket", sys.executable
    command = shlex.join([sys.executable, "-IS", *map(str, words)])
    (folder / "python").write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
    (folder / "python").chmod(0o700)
    become(*wait(listener, sources(), set(imported(modules))))


def imported(modules: list[str]) -> Iterator[str]:
    """Those that could be. Why another could not, it says when it is started by itself."""
    for module in modules:
        with suppress(Exception):
            importlib.import_module(module)
            yield module


def wait(listener: socket.socket, loaded: dict, modules: set[str]) -> tuple:
    """Answer one request after another; returns in the fork for one, with what it needs."""
    while True:
        connection, _ = listener.accept()
        # One who asks can die at any time.
        with connection, suppress(ConnectionError, ValueError):
            _, streams, _, _ = socket.recv_fds(connection, 1, 3)
            request = json.loads(connection.makefile().readline())
            status = COLD
            if request["module"] in modules and sources() == loaded and alike(request):
                child = os.fork()
                if not child:
                    return request, streams, connection.detach()
                status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            for stream in streams:
                os.close(stream)
            connection.sendall(b"%d\n" % status)


def sources() -> dict[Path, int]:
    """When each file of this code was last changed: what was loaded must be what is there."""
    files = (path for name in ("stages", "transfer") for path in ROOT.joinpath(name).rglob("*.py"))
    return {path: path.stat().st_mtime_ns for path in files}


def alike(request: dict[str, Any]) -> bool:
    """Whether `python -m` there would load this code, if a stage, and with as many threads."""
    environment = request["environment"]
    there = Path(request["folder"], environment.get("PYTHONPATH", "")).resolve()
    same = there == ROOT or not request["module"].startswith("stages.")
    return same and environment.get(THREADS) == os.environ.get(THREADS)


def become(request: dict[str, Any], streams: list[int], connection: int) -> NoReturn:
    """What was asked for, as if `python -m` had started it there. It ends with who asked."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    threading.Thread(target=end_with, args=(connection,), daemon=True).start()
    cli.end_with_dvc(psutil.Process(request["process"]))
    module = request["module"]
    del sys.modules[module]
    sys.argv = [module, *request["arguments"]]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = end.code
    except BaseException:
        status = traceback.format_exc().rstrip()
    if isinstance(status, str):
        print(status, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    # An end as Python makes it would touch, and so copy, most of the memory shared with the parent.
    os._exit(1 if isinstance(status, str) else status or 0)


def end_with(connection: int) -> None:
    os.read(connection, 1)  # nothing comes but the end
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
