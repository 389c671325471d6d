"""`python -m flux_engine gateway`, as an operator starts it where something is not there yet."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

from tests.servers import free_port

ENVIRONMENT = {"RUNPOD_ENDPOINT_ID": "endpoint", "RUNPOD_API_KEY": "key", "GATEWAY_PORT": "0"}


def started(redis_port: int) -> subprocess.Popen[str]:
    environment = os.environ | ENVIRONMENT | {"REDIS_URL": f"redis://127.0.0.1:{redis_port}/0"}
    return subprocess.Popen(
        [sys.executable, "-m", "flux_engine", "gateway"], env=environment, stderr=subprocess.PIPE, text=True
    )


def test_without_redis_it_says_so_in_one_line() -> None:
    gateway = started(free_port())
    _, said = gateway.communicate()
    assert gateway.returncode == 1
    assert said.splitlines()[-1].startswith("The gateway cannot start: Redis does not answer")
    assert "Traceback" not in said


def test_it_ends_at_once_when_told_to_while_it_waits_for_redis() -> None:
    """By a handler of its own, since the kernel lets process 1 be ended by no other."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        gateway = started(silent.getsockname()[1])
        held, _ = silent.accept()  # it is opening; nobody answers
        with held:
            gateway.send_signal(signal.SIGTERM)
            _, said = gateway.communicate()
    assert gateway.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in said
