"""Runs the embedded server for as long as any worker of this machine uses it. Standard library only.

    python -I -S guard.py LOCK LIFELINE COMMAND...

Every worker holds LOCK shared. The guard asks for it exclusively, which the kernel grants when the last worker has
closed it or has died; then the guard tells the server to save and to end. Nothing polls, and no process is left behind.
The guard leaves its caller's session, so that Ctrl-C reaches the worker alone. LIFELINE is the number of a pipe's
writing end, which the guard keeps open while it runs: so its caller can tell that the server did not start.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

SAVE_TIMEOUT_S = 10.0


def main(lock: Path, command: list[str]) -> None:
    if os.fork():
        return
    os.setsid()
    log = os.open(lock.with_name("server.log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for stream in (1, 2):
        os.dup2(log, stream)
    guarding = os.open(lock.with_name("guard.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(guarding, fcntl.LOCK_EX)  # held until this process ends: one guard a folder
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 - a fixed program

    def leave_where_it_ended(*_: object) -> None:  # the signal also means that the server was frozen or woken
        if os.waitpid(server.pid, os.WNOHANG)[0]:
            os._exit(0)

    signal.signal(signal.SIGCHLD, leave_where_it_ended)
    leave_where_it_ended()
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        server.terminate()
        try:
            server.wait(SAVE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            server.kill()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[3:])
