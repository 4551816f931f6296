"""A `python` and a `dvc` that start in milliseconds, for the PATH of the tests' commands.

A server that has imported the packages, and nothing of the project, forks a process for each
command, which takes over the caller's words, folder, environment and standard streams. So a command
is what it always is, a process of its own that imports the project from its folder, but for the
seconds that PyTorch and DVC take to load. Its parent is the server, and it ends when its caller
does. What depends on the tree of processes, on limits, or on variables that packages read when
they are loaded, has to be started by `sys.executable`.
"""

import atexit
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from select import select
from tempfile import TemporaryDirectory

MODULES = ("dvc", "stages.", "transfer")  # any other command is the interpreter's own
PACKAGES = """
    dvc.cli.parser dvc.dvcfile dvc.repo.reproduce dvc.repo.status dvc.stage.run dvc.stage.cache
    jinja2 markdown_it matplotlib.backends.backend_agg pydantic ruamel.yaml scipy.stats
    sklearn.model_selection sklearn.neighbors tabulate torch
    torch.optim.swa_utils torch.utils.flop_counter torchvision.models torchvision.transforms.v2
"""
CLIENT = """#!{python} -IS
import os, signal, socket, sys
words = sys.argv[1:]
if os.path.basename(sys.argv[0]) == "dvc":
    words = ["-m", "dvc", *words]
if words[:1] != ["-m"] or not words[1].startswith({modules}):
    os.execv({python!r}, [{python!r}, *words])
import json
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
request = json.dumps([words[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [len(request).to_bytes(4, "big")], [0, 1, 2])
server.sendall(request)
child = int.from_bytes(server.recv(4), "big")
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: os.kill(child, number))
status = int.from_bytes(server.recv(4), "big", signed=True)
if status < 0:
    signal.signal(-status, signal.SIG_DFL)
    os.kill(os.getpid(), -status)
os._exit(status)
"""


@cache
def folder() -> str:
    """Where the commands are, of a server that ends with this process."""
    from transfer.arithmetic import FIXED  # the server's own imports are none of the project's

    made = TemporaryDirectory(prefix="warm-")
    atexit.register(made.cleanup)
    place = Path(made.name)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(place / "socket"))
    listening.listen(64)
    text = CLIENT.format(python=sys.executable, modules=MODULES, address=str(place / "socket"))
    for name in ("python", "dvc"):
        (place / name).write_text(text)
        (place / name).chmod(0o755)
    # Its stdin ends when this process does.
    subprocess.Popen(
        [sys.executable, __file__, str(listening.fileno())],
        env={**os.environ, **FIXED},
        stdin=subprocess.PIPE,
        pass_fds=[listening.fileno()],
        start_new_session=True,
    )
    return str(place)


def serve(listening: socket.socket) -> list[str]:
    """Returns in a process forked for a command, with the command's words, and nowhere else."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        if 0 in select([listening, 0], [], [])[0]:
            os._exit(0)
        caller, _ = listening.accept()
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return attend(caller)
        caller.close()


def attend(caller: socket.socket) -> list[str]:
    """Forks the command's process, in which it returns, and tells the caller how that ended."""
    size, streams, *_ = socket.recv_fds(caller, 4, 3)
    with caller.makefile("rb") as file:
        words, where, environment = json.loads(file.read(int.from_bytes(size, "big")))
    child = os.fork()
    if child:
        caller.sendall(child.to_bytes(4, "big"))
        ended = os.pidfd_open(child)
        if ended not in select([ended, caller], [], [])[0]:
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with suppress(BrokenPipeError):
            caller.sendall(status.to_bytes(4, "big", signed=True))
        os._exit(0)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    caller.close()
    os.chdir(where)
    os.environ.clear()
    os.environ.update(environment)
    return words


def end() -> None:
    """What the interpreter does at the end, but for taking apart all that the packages made."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


if __name__ == "__main__":
    atexit.register(end)  # before the packages do, and so after them
    for package in PACKAGES.split():
        import_module(package)
    gc.freeze()
    sys.argv = serve(socket.socket(fileno=int(sys.argv[1])))
    sys.path[:1] = [os.getcwd(), *filter(None, os.environ.get("PYTHONPATH", "").split(":"))]
    status = 1
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        raise
