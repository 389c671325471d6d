"""What a worker looks at before it takes its first job: its volume, its model, and room on its disks.

A check that raises ends the worker, and the platform shows its words beside an unhealthy worker, in place of jobs that
fail one by one. None of them reads weights or needs torch.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from flux_engine.models.served import ServedModels

MIN_FREE_BYTES: Final = 512 * 1024**2  # results that wait for a retry, LoRAs, compile caches

Check = Callable[[], None]


class Unfit(Exception):
    """This worker cannot do its work; the text says what to change."""


def fitness_checks(
    served: ServedModels, *, volume: Path, cache_folder: Path, min_free_bytes: int = MIN_FREE_BYTES
) -> list[Check]:
    """The checks in the order in which their words help most; each raises Unfit, or ModelUnavailable."""

    def volume_can_be_written() -> None:
        _check_writable(volume, "MODEL_VOLUME")

    def disks_have_room() -> None:
        for folder, name in ((volume, "MODEL_VOLUME"), (cache_folder, "the worker's own disk")):
            _check_room(folder, name, min_free_bytes)

    def model_is_there() -> None:
        served.weights(served.default())

    return [volume_can_be_written, disks_have_room, model_is_there]


def _check_writable(folder: Path, name: str) -> None:
    """A volume that was not attached is no fault in itself: the model may be in the image."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise Unfit(f"{name} is a file; set it to the folder where the volume is attached")
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"flux")
    except OSError as error:
        raise Unfit(f"{name} cannot be written ({os.strerror(error.errno or 0)}); free it or attach another") from error


def _check_room(folder: Path, name: str, min_free_bytes: int) -> None:
    existing = next((place for place in (folder, *folder.parents) if place.exists()), None)
    if existing is None or (existing != folder and name == "MODEL_VOLUME"):
        return
    free = shutil.disk_usage(existing).free
    if free < min_free_bytes:
        wanted = f"{min_free_bytes / 1024**2:.0f} MiB"
        raise Unfit(f"{name} has {free / 1024**2:.0f} MiB left and {wanted} are needed; free some, or make it larger")
