"""What `make images-test` promises about the compose file and about what a run leaves; its runs take minutes."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from builder.images import apart, compose

ROOT: Final = Path(__file__).parents[2]
SERVICES: Final = {one.name: one for one in compose.services(ROOT / "deploy" / "compose.yaml")}
OWNED: Final = re.compile(r"install -d -o flux ([^\n&]+)")
FORGETS: Final = 'exec 3>"$0/pipe"; setsid sleep 100000 & >"$0/started"; '

needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or not all(shutil.which(tool) for tool in ("unshare", "setpriv", "ip")),
    reason="namespaces need root, unshare, setpriv and ip",
)


def test_services_start_after_what_they_need() -> None:
    names = list(SERVICES)
    assert {"redis", "bucket"} == set(names[:2])
    assert [one.name for one in SERVICES.values() if one.is_optional] == ["worker-gpu"]
    assert SERVICES["gateway"].volumes == {"gateway": "/data"}


@pytest.mark.parametrize("name", [one.name for one in SERVICES.values() if one.dockerfile])
def test_fresh_volumes_belong_to_the_user_of_the_image(name: str) -> None:
    """A volume takes the owner of what the image has at its place, and is root's where that has nothing."""
    service = SERVICES[name]
    owned = " ".join(OWNED.findall((ROOT / str(service.dockerfile)).read_text(encoding="utf-8"))).split()
    assert set(service.volumes.values()) <= set(owned)


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[int]:
    """The reading end of tmp_path / "pipe"."""
    os.mkfifo(tmp_path / "pipe")
    reading = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    yield reading
    os.close(reading)


@needs_namespaces
def test_what_a_run_forgets_ends_with_it(tmp_path: Path, pipe: int) -> None:
    assert apart.run(["sh", "-c", FORGETS + "exit 7", str(tmp_path)], limit_s=600) == 7
    assert (tmp_path / "started").exists()
    assert os.read(pipe, 1) == b""  # BlockingIOError where anything still holds the other end


@needs_namespaces
def test_what_a_run_forgets_ends_with_its_time(tmp_path: Path, pipe: int) -> None:
    limit_s = 0.25
    while not (tmp_path / "started").exists():
        limit_s *= 2
        with pytest.raises(subprocess.TimeoutExpired):
            apart.run(["sh", "-c", FORGETS + "wait", str(tmp_path)], limit_s=limit_s)
    assert os.read(pipe, 1) == b""


@needs_namespaces
def test_runs_share_no_port() -> None:
    bound = socket.create_server(("127.0.0.1", 0))
    with bound:
        serve = f"import socket; socket.create_server(('127.0.0.1', {bound.getsockname()[1]}))"
        assert apart.run([sys.executable, "-c", serve], limit_s=600) == 0
