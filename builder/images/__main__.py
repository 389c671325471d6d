"""Build both images and run them: `sudo python -m builder.images` (`make images-test`)."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from builder.images import apart, base, compose, pictures, report
from builder.images.services import CommandFailed, Unhealthy
from builder.images.store import ISOLATION, BuildFailed, Layer, Store

ROOT: Final = Path(__file__).resolve().parents[2]
COMPOSE: Final = ROOT / "deploy" / "compose.yaml"
REPORT: Final = ROOT / "deploy" / "images.md"
FOLDER: Final = ROOT / "build" / "images"
BASE: Final = "docker.io/library/python:3.11-slim-bookworm"
TOOLS: Final = ("buildah", "debootstrap", "unshare", "setpriv", "ip")
USERS: Final = ("root", "flux")
WORKER: Final = "worker"
SYSTEM: Final = "system"
RESULT: Final = "result.json"
LIMIT_S: Final = 1200.0
LOG_LINES: Final = 15


class RunFailed(Exception):
    """The text says which run, and how its logs end if it was stuck."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m builder.images", description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where images are kept between runs")
    parser.add_argument("--no-build", action="store_true", help="run what was built last, and write no report")
    parser.add_argument("--limit", type=float, default=LIMIT_S, metavar="SECONDS", help="for each run (%(default)s)")
    parser.add_argument("--inside", nargs=2, metavar=("RUN", "USER"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if os.geteuid() != 0 or missing:
        needs = f"apt-get install buildah debootstrap iproute2 (missing: {', '.join(missing)})" if missing else "root"
        print(f"images-test needs {needs}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        _do(options)
    except (BuildFailed, CommandFailed, RunFailed, RuntimeError, Unhealthy, subprocess.CalledProcessError) as error:
        print(f"images-test failed: {error}", file=sys.stderr)
        return 1
    return 0


def _do(options: argparse.Namespace) -> None:
    folder: Path = options.folder.resolve()
    if options.inside:
        _run_inside(folder, *options.inside)
        return
    store = Store(folder)
    if options.no_build:
        _run(store, limit_s=options.limit)
    else:
        _build_and_run(store, limit_s=options.limit)


def _build_and_run(store: Store, *, limit_s: float) -> None:
    log = store.folder / "build.log"
    log.unlink(missing_ok=True)
    print(f"building; the log is {log}", flush=True)
    base.ensure(store, BASE, log)
    layers: dict[str, list[Layer]] = {}
    built: dict[str, str] = {}
    for service in {one.image: one for one in compose.services(COMPOSE) if one.dockerfile}.values():
        built[service.image] = _build(store, service, log)
        layers[service.image] = store.layers(service.image)
        print(f"{service.image} built in {built[service.image]}", flush=True)
    runs = _run(store, limit_s=limit_s)
    REPORT.write_text(report.page(layers, runs, built=built), encoding="utf-8")
    print(f"written: {REPORT.relative_to(ROOT)}")


def _build(store: Store, service: compose.Service, log: Path) -> str:
    """How long it took, and for how many of its steps the result was there."""
    began, before = time.monotonic(), log.read_text(errors="replace") if log.exists() else ""
    arguments = [f"--build-arg={name}={value}" for name, value in service.build_args.items()]
    mounts = [f"--volume={outside}:{inside}" for outside, inside in base.pip_mounts(store.folder).items()]
    options = ["--layers", "--pull-never", *ISOLATION, *arguments, *mounts, "--tag", service.image]
    store.buildah("build", *options, "--file", str(ROOT / str(service.dockerfile)), str(ROOT), log=log)
    said = log.read_text(errors="replace").removeprefix(before)
    seconds = time.monotonic() - began
    return f"{seconds:.0f} s, {said.count('--> Using cache')} of {said.count('STEP ')} steps from the cache"


def _run(store: Store, *, limit_s: float) -> list[pictures.Run]:
    runs = []
    for user in USERS:
        for what in (WORKER, SYSTEM):
            runs.append(_run_apart(store, what, user, limit_s=limit_s))
            print(f"{what} as {user}: {runs[-1].seconds:.1f} s to the picture", flush=True)
    return runs


def _run_apart(store: Store, what: str, user: str, *, limit_s: float) -> pictures.Run:
    """In a process of its own, apart from this machine and from the other runs."""
    folder = _folder(store.folder, what, user)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    store.remove_all()
    command = [sys.executable, "-m", "builder.images", "--folder", str(store.folder), "--inside", what, user]
    try:
        status = apart.run(command, limit_s=limit_s)
    except subprocess.TimeoutExpired:
        logs = "".join(f"\n{log.name}:\n{_end_of(log)}" for log in sorted(folder.glob("*.log")))
        raise RunFailed(f"{what} as {user} did not end within {limit_s:.0f} s; its logs end:{logs}") from None
    finally:
        store.remove_all()
    if status != 0:
        raise RunFailed(f"{what} as {user}: see above and {folder}")
    return pictures.Run(**json.loads((folder / RESULT).read_text()))


def _end_of(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:])


def _run_inside(images: Path, what: str, user: str) -> None:
    folder = _folder(images, what, user)
    store = Store(images, state=folder / "state")
    if what == WORKER:
        run = pictures.worker_alone(store, folder, user=user)
    else:
        run = pictures.whole_system(store, folder, compose.services(COMPOSE), user=user)
    (folder / RESULT).write_text(json.dumps(asdict(run)))


def _folder(images: Path, what: str, user: str) -> Path:
    return images / "runs" / f"{what}-{user}"


if __name__ == "__main__":
    sys.exit(main())
