"""Stands for `python`: hands a module to the warm process, or starts it itself.

Called with the warm process's socket, the real interpreter, and the arguments to `python`. It
imports little, since it has to start fast.
"""

import json
import os
import socket
import sys

COLD = b"-1000\n"


def main() -> None:
    path, python, *arguments = sys.argv[1:]
    status = ask(path, *arguments[1:]) if arguments[:1] == ["-m"] else COLD
    if status == COLD:
        os.execv(python, [python, *arguments])
    if not status:
        sys.exit("error: the warm process has died")
    code = int(status)
    sys.exit(code if code >= 0 else 128 - code)


def ask(path: str, module: str, *arguments: str) -> bytes:
    """The module's exit status, or that this is not for it; nothing where it died meanwhile."""
    request = {
        "module": module,
        "arguments": arguments,
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "process": os.getpid(),
    }
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(path)
        except ConnectionRefusedError:
            return COLD
        socket.send_fds(connection, [b"\0"], [0, 1, 2])
        connection.sendall(json.dumps(request).encode() + b"\n")
        return connection.makefile("rb").readline()


if __name__ == "__main__":
    main()
