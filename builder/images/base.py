"""What stands in for the base image of both Dockerfiles: Debian of the same release, from its own mirror.

Where no registry is reached, the name in FROM has to be in the store before the build; debootstrap makes what it holds.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Final

from builder.images.store import BuildFailed, Store

RELEASE: Final = "bookworm"
PACKAGES: Final = ("python3", "python3-venv", "ca-certificates")
PIP_CONFIG: Final = "/etc/pip.conf"
LOCAL_PATH: Final = re.compile(r"(?:file://)?(/[^\s]+)")


def ensure(store: Store, name: str, log: Path) -> None:
    """`name` in `store`, made where it is not there yet. Raises BuildFailed."""
    if store.has_image(name):
        return
    root = store.folder / "base"
    shutil.rmtree(root, ignore_errors=True)
    include = f"--include={','.join(PACKAGES)}"
    with log.open("ab") as output:
        command = ["debootstrap", "--variant=minbase", include, RELEASE, str(root), _mirror()]
        if subprocess.run(command, stdout=output, stderr=output, check=False).returncode != 0:
            raise BuildFailed(f"debootstrap failed; see {log}")
    for folder in ("var/cache/apt/archives", "var/lib/apt/lists"):
        shutil.rmtree(root / folder, ignore_errors=True)
        (root / folder / "partial").mkdir(parents=True)
    packed = store.folder / "base.tar"
    with tarfile.open(packed, "w") as archive:
        archive.add(root, ".", filter=lambda one: None if one.isdev() else one)
    container = store.buildah("from", "scratch")
    store.buildah("add", container, str(packed), "/")
    store.buildah("commit", "--quiet", container, name)
    store.remove(container)
    packed.unlink()
    shutil.rmtree(root)


def pip_mounts(folder: Path) -> dict[Path, str]:
    """This machine's configuration of pip, merged into one file, and the local places that it names."""
    said = subprocess.run(["pip", "config", "list"], capture_output=True, text=True, check=True).stdout
    values: dict[str, str] = {}
    for line in said.splitlines():
        name, _, value = line.partition("=")
        values[name.rpartition(".")[2].strip()] = value.strip().strip("'")
    written = folder / "pip.conf"
    written.write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in values.items()))
    places = {place for value in values.values() for place in LOCAL_PATH.findall(value)}
    return {written: f"{PIP_CONFIG}:ro"} | {Path(_top(place)): f"{_top(place)}:ro" for place in places}


def _top(place: str) -> str:
    """The folder of an index's pages holds files beside it."""
    return os.path.dirname(place) if place.endswith("/simple") else place


def _mirror() -> str:
    """Where apt gets this machine's own packages."""
    asked = ["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE)", "Created-By: Packages"]
    for line in subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines():
        site, _, release = line.partition(" ")
        if release == RELEASE:
            return site
    raise BuildFailed(f"apt knows no mirror of Debian {RELEASE}")
