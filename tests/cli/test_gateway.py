"""`python -m flux_engine gateway`, as an operator starts it where something is not there yet."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.servers import free_port

ENVIRONMENT = {"RUNPOD_ENDPOINT_ID": "endpoint", "RUNPOD_API_KEY": "key", "GATEWAY_PORT": "0"}


def test_without_redis_it_says_so_in_one_line() -> None:
    environment = os.environ | ENVIRONMENT | {"REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}
    gateway = subprocess.run(
        [sys.executable, "-m", "flux_engine", "gateway"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    said = gateway.stderr
    assert gateway.returncode == 1
    assert said.splitlines()[-1].startswith("The gateway cannot start: Redis does not answer")
    assert "Traceback" not in said
