"""Build both images and run them: `sudo python -m builder.images` (`make images-test`)."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from builder.images import base, compose, pictures, report
from builder.images.services import Unhealthy
from builder.images.store import ISOLATION, BuildFailed, Layer, Store

ROOT: Final = Path(__file__).resolve().parents[2]
COMPOSE: Final = ROOT / "deploy" / "compose.yaml"
REPORT: Final = ROOT / "deploy" / "images.md"
FOLDER: Final = ROOT / "build" / "images"
BASE: Final = "docker.io/library/python:3.11-slim-bookworm"
TOOLS: Final = ("buildah", "debootstrap", "unshare", "ip")
USERS: Final = ("root", "flux")
RUNS: Final = "runs.json"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m builder.images", description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where images are kept between runs")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if os.geteuid() != 0 or missing:
        needs = f"apt-get install buildah debootstrap iproute2 (missing: {', '.join(missing)})" if missing else "root"
        print(f"images-test needs {needs}", file=sys.stderr)
        return 2
    store = Store(options.folder)
    try:
        return _run(store) if options.inside else _build_and_run(store)
    except (BuildFailed, Unhealthy, RuntimeError, subprocess.CalledProcessError) as error:
        print(f"images-test failed: {error}", file=sys.stderr)
        return 1


def _build_and_run(store: Store) -> int:
    log = store.folder / "build.log"
    log.unlink(missing_ok=True)
    print(f"building; the log is {log}", flush=True)
    base.ensure(store, BASE, log)
    layers: dict[str, list[Layer]] = {}
    seconds: dict[str, float] = {}
    for service in {one.image: one for one in compose.services(COMPOSE) if one.dockerfile}.values():
        began = time.monotonic()
        _build(store, service, log)
        seconds[service.image] = time.monotonic() - began
        layers[service.image] = store.layers(service.image)
        print(f"{service.image} built in {seconds[service.image]:.0f} s", flush=True)
    again = [sys.executable, "-m", "builder.images", "--inside", "--folder", str(store.folder)]
    inside = ["sh", "-c", 'ip link set lo up && exec "$@"', "sh", *again]
    subprocess.run(["unshare", "--net", *inside], cwd=ROOT, check=True)
    runs = [pictures.Run(**held) for held in json.loads((store.folder / RUNS).read_text())]
    REPORT.write_text(report.page(layers, runs, build_s=seconds), encoding="utf-8")
    print(f"written: {REPORT.relative_to(ROOT)}")
    return 0


def _build(store: Store, service: compose.Service, log: Path) -> None:
    arguments = [f"--build-arg={name}={value}" for name, value in service.build_args.items()]
    mounts = [f"--volume={outside}:{inside}" for outside, inside in base.pip_mounts(store.folder).items()]
    options = ["--layers", "--pull-never", *ISOLATION, *arguments, *mounts, "--tag", service.image]
    store.buildah("build", *options, "--file", str(ROOT / str(service.dockerfile)), str(ROOT), log=log)


def _run(store: Store) -> int:
    """Within a network of its own."""
    folder = store.folder / "runs"
    shutil.rmtree(folder, ignore_errors=True)
    services = compose.services(COMPOSE)
    runs = []
    for user in USERS:
        runs.append(pictures.worker_alone(store, folder, user=user))
        print(f"worker alone as {user}: {runs[-1].seconds:.1f} s", flush=True)
        runs.append(pictures.whole_system(store, folder, services, user=user))
        print(f"the system as {user}: {runs[-1].seconds:.1f} s", flush=True)
    (store.folder / RUNS).write_text(json.dumps([asdict(run) for run in runs]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
