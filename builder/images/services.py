"""The compose file's services as containers of the built images, each once what it depends on is healthy.

Their names resolve to this machine, as they do in compose's network. Two images come from a registry that may be out of
reach: Redis is then the server of the gateway's image with the compose file's options and volume, the bucket moto's S3.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.error import URLError

from builder.images.compose import Service
from builder.images.processes import service_behind
from builder.images.store import Store
from builder.images.volumes import Volumes

SERVER: Final = """
import os, sys
from flux_engine.cache.embedded import wheel_program
os.chdir(sys.argv[1])  # where its image works
os.execv(wheel_program(), sys.argv[2:])
"""
BUCKET_PORT: Final = 8333
HEALTHY_S: Final = 240.0
CHECK_S: Final = 60.0
ENDS_S: Final = 60.0
LOOK_S: Final = 0.2


class Unhealthy(Exception):
    """The text says which service, and how its log ends."""


class CommandFailed(Exception):
    """The text says which command, and how what it wrote ends."""


class Services:
    """`user` runs the containers of our own images. `folder`, with their volumes and logs, is this run's own."""

    def __init__(self, store: Store, folder: Path, *, user: str) -> None:
        self._store = store
        self._folder = folder
        self._user = user
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._containers: dict[str, str] = {}
        self.healthy_after_s: dict[str, float] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._volumes = Volumes(store, folder / "volumes")
        self._hosts = folder / "hosts"

    @contextmanager
    def running(self, services: list[Service], *, before: Callable[[Service], None]) -> Iterator[None]:
        """Every service healthy, in this order, with `before` called just before each starts; all of them ended
        afterwards, the last first. Raises Unhealthy."""
        self._hosts.write_text(f"127.0.0.1 localhost {' '.join(service.name for service in services)}\n")
        try:
            for service in services:
                before(service)
                began = time.monotonic()
                self._start(service)
                self._until_healthy(service)
                self.healthy_after_s[service.name] = time.monotonic() - began
            yield
        finally:
            for process in reversed(self._processes.values()):
                _end(process)
            for container in self._containers.values():
                self._store.remove(container)

    def run_once(self, service: Service, *command: str) -> str:
        """As `docker compose run --rm` does it; what the command wrote. Raises CommandFailed."""
        container = self._store.container(service.image)
        try:
            done = subprocess.run(self._run(container, service, command), capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise CommandFailed(f"{service.name}: {' '.join(command)}: {done.stderr[-2000:]}")
            return done.stdout
        finally:
            self._store.remove(container)

    def written(self, service: Service) -> list[str]:
        """The volumes of `service`, each written to. Raises CommandFailed."""
        for place in service.volumes.values():
            self.run_once(service, "touch", f"{place}/written")
        return list(service.volumes)

    def log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text(errors="replace")

    def _start(self, service: Service) -> None:
        argv = self._command(service)
        with (self._folder / f"{service.name}.log").open("wb") as output:
            self._processes[service.name] = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

    def _command(self, service: Service) -> list[str]:
        if service.name == "bucket":
            return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(BUCKET_PORT)]
        image, command = service.image, service.command
        if service.name == "redis":
            image, command = "flux-gateway", ("python", "-c", SERVER, *service.volumes.values(), *service.command)
        container = self._store.container(image)
        self._containers[service.name] = container
        return self._run(container, service, command or self._default(image))

    def _run(self, container: str, service: Service, command: tuple[str, ...]) -> list[str]:
        return self._store.run_command(
            container,
            command,
            environment=service.environment,
            user=self._user,
            mounts=self._volumes.mounts(service, container),
            hosts=self._hosts,
        )

    def _default(self, image: str) -> tuple[str, ...]:
        """The image's CMD, which buildah leaves to whoever runs it."""
        held = json.loads(self._store.buildah("inspect", "--type", "image", image))
        return tuple(held["OCIv1"]["config"]["Cmd"])

    def _until_healthy(self, service: Service) -> None:
        process, until = self._processes[service.name], time.monotonic() + HEALTHY_S
        while not self._is_healthy(service):
            if process.poll() is not None or time.monotonic() > until:
                raise Unhealthy(f"{service.name}: {self.log(service.name)[-2000:]}")
            time.sleep(LOOK_S)

    def _is_healthy(self, service: Service) -> bool:
        if service.name == "bucket":
            return _has_bucket(service, self._folder)
        check = service.healthcheck
        if service.name == "redis":  # the wheel brings the server without its command line
            check = ("python", "-c", "import redis; redis.Redis('redis').ping()")
        argv = self._run(self._containers[service.name], service, check)
        try:
            return subprocess.run(argv, capture_output=True, check=False, timeout=CHECK_S).returncode == 0
        except subprocess.TimeoutExpired:
            return False


def _has_bucket(service: Service, folder: Path) -> bool:
    """Seaweed makes the bucket at the first upload of an admin; moto has to be asked."""
    del service, folder
    request = urllib.request.Request(f"http://127.0.0.1:{BUCKET_PORT}/flux", method="PUT")
    with suppress(URLError, OSError), urllib.request.urlopen(request, timeout=5) as answer:
        return bool(answer.status == 200)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the service, as a container's runtime sends it, and SIGKILL after a minute."""
    with suppress(ProcessLookupError, FileNotFoundError):
        os.kill(service_behind(process.pid), signal.SIGTERM)
    try:
        process.wait(timeout=ENDS_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
