"""Named volumes of one run of the compose file, as Docker makes them: outside the containers, and fresh in each run."""

from __future__ import annotations

import subprocess
from pathlib import Path

from builder.images.compose import Service
from builder.images.store import Store


class Volumes:
    """Under `folder`, which no run before has used."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self._folder = folder
        folder.mkdir(parents=True)

    def mounts(self, service: Service, container: str) -> dict[Path, str]:
        """What `service` mounts into its `container`, by its place outside."""
        return {self._volume(name, container, place): place for name, place in service.volumes.items()}

    def _volume(self, name: str, container: str, place: str) -> Path:
        """A fresh one gets what the image has at that place, owner and mode with it; where the image has nothing it is
        root's, and no other user can write to it."""
        volume = self._folder / name
        if volume.exists():
            return volume
        within = self._store.mounted(container) / place.lstrip("/")
        if within.exists():
            subprocess.run(["cp", "--archive", str(within), str(volume)], check=True)
        else:
            volume.mkdir(mode=0o755)
        return volume
