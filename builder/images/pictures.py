"""Each image run to a picture: the worker alone by its CMD, then the whole system behind the gateway's API.

Each run has a folder of its own, empty at first.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from builder.images.compose import Service
from builder.images.services import Services
from builder.images.store import Store

PNG: Final = b"\x89PNG"
GATEWAY: Final = "http://127.0.0.1:8080"
JOB: Final = {"prompt": "a red sun over purple mountains", "seed": 7, "num_inference_steps": 4}
FINAL: Final = ("completed", "failed", "cancelled")
LOOK_S: Final = 0.2
KEY: Final = re.compile(r"flux_[A-Za-z0-9]+_[A-Za-z0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One picture: who made it and how long that took."""

    what: str
    user: str
    seconds: float
    size_bytes: int
    healthy_after_s: Mapping[str, float] = field(default_factory=dict)
    volumes: Sequence[str] = ()
    """Those that this user could write to when they were fresh."""


def worker_alone(store: Store, folder: Path, *, user: str) -> Run:
    """`docker run --rm flux-worker`: test_input.json to a PNG in outputs. Its log is in `folder`.

    Before that the same container lists the models that it can fetch, with the module that the GPU worker and its init
    container run.
    """
    container = store.container("flux-worker")
    log = folder / "worker.log"

    def ran(*command: str) -> bool:
        with log.open("ab") as output:
            argv = store.run_command(container, command, user=user)
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False)
        return done.returncode == 0

    if not ran("python", "builder/fetch_models.py", "--list", "--volume", "/models"):
        raise RuntimeError(f"the image cannot fetch models: {log.read_text(errors='replace')[-3000:]}")
    began = time.monotonic()
    is_done = ran("python", "-u", "handler.py")
    seconds = time.monotonic() - began
    outputs = store.mounted(container) / "app" / "outputs"
    pictures = [read for file in outputs.rglob("*.png") if (read := file.read_bytes()).startswith(PNG)]
    store.remove(container)
    if not is_done or len(pictures) != 1:
        raise RuntimeError(f"the worker made {len(pictures)} pictures: {log.read_text(errors='replace')[-3000:]}")
    return Run(what="worker alone, its CMD", user=user, seconds=seconds, size_bytes=len(pictures[0]))


def whole_system(store: Store, folder: Path, services: list[Service], *, user: str) -> Run:
    """Those of `services` that are optional are not started, only their volumes written to. The others start in order,
    a key is made by the gateway's own command and a picture by REST."""
    running = Services(store, folder, user=user)
    keys: list[str] = []

    def first_key(service: Service) -> None:
        """The gateway does not start before there is one."""
        if service.name == "gateway":
            said = running.run_once(service, "python", "-m", "flux_engine", "keys", "create", "--user", "me")
            keys.extend(KEY.findall(said))

    with running.running([one for one in services if not one.is_optional], before=first_key):
        (key,) = keys
        began = time.monotonic()
        task = json.loads(_asked("/generate-image", key, JOB))
        while task["status"] not in FINAL:  # on a busy machine a picture takes longer than a request waits
            time.sleep(LOOK_S)
            task = json.loads(_asked(f"/task/{task['task_id']}/status", key))
        if task["status"] != "completed":
            raise RuntimeError(f"no picture: {task}\n{running.log('worker')[-3000:]}")
        picture = _asked(f"/task/{task['task_id']}/result", key)
        seconds = time.monotonic() - began
        volumes = [name for service in services if service.dockerfile for name in running.written(service)]
    if not picture.startswith(PNG):
        raise RuntimeError("the result is no PNG")
    return Run(
        what="gateway, Celery worker, Redis, bucket",
        user=user,
        seconds=seconds,
        size_bytes=len(picture),
        healthy_after_s=running.healthy_after_s,
        volumes=volumes,
    )


def _asked(path: str, key: str, body: Mapping[str, Any] | None = None) -> bytes:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", "Prefer": "wait=60"}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(GATEWAY + path, data, headers), timeout=90) as answer:
        return bytes(answer.read())
