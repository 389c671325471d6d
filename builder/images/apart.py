"""A command with processes, mounts and a network of its own: whichever way it ends, nothing of it is left.

The kernel kills what is in a process namespace with its first process, and unmounts what was mounted in a mount
namespace with its last. So a server that outlives its container reaches neither the next run nor its ports.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from typing import Final

from builder.images.processes import children

# The first process dies with `unshare`, and that with whoever has called it.
NAMESPACES: Final = ("unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child=KILL")
APART: Final = ("setpriv", "--pdeathsig", "KILL", *NAMESPACES, "sh", "-c", 'ip link set lo up && exec "$@"', "sh")


def run(command: Sequence[str], *, limit_s: float) -> int:
    """The exit status. Raises subprocess.TimeoutExpired after `limit_s`. Either way all its processes have ended."""
    process = subprocess.Popen([*APART, *command])
    try:
        return process.wait(timeout=limit_s)
    finally:
        if process.returncode is None:
            _kill(process)
            process.wait()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The first process of the namespace ends after all others, and `unshare` after it."""
    first = children(process.pid)
    for pid in first or [process.pid]:
        os.kill(pid, signal.SIGKILL)
