"""Writing a quantised checkpoint beside the jobs: after the first one, in the background, where it is of use.

It waits for a job to succeed, since that is what the worker was started for; it leaves the checkpoint to another worker
that writes it; it is not written where no later worker would find it (a container's own disk) nor where the host's
memory is short.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from flux_engine.models.checkpoint import SHARD_BYTES, Snapshot, write_checkpoint
from flux_engine.models.planning.host_memory import available_memory

SHARDS_OF_ROOM: Final = 4  # one copied, flattened and serialised, and as much again for the jobs

log = logging.getLogger(__name__)


def is_on_a_mount(path: Path) -> bool:
    """Whether `path` lies on a volume of its own, and not on the container's disk, which no other worker sees."""

    return any(os.path.ismount(parent) for parent in (path.absolute(), *path.absolute().parents[:-1]))


class CheckpointKeeper:
    """Writes at most one checkpoint at a time. `stop` before the weights go: the writer holds them."""

    def __init__(self, *, free_bytes: Callable[[], int] = available_memory) -> None:
        self._free_bytes = free_bytes
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, folder: Path, snapshot: Snapshot) -> None:
        """Write in the background; returns at once. A failure costs nothing but the checkpoint."""
        if self._free_bytes() < SHARDS_OF_ROOM * min(SHARD_BYTES, snapshot.num_bytes()):
            log.warning("quantised checkpoint not kept: the host's memory is short")
            return
        self.stop()
        self._stopped.clear()
        self._thread = threading.Thread(target=self._write, args=(folder, snapshot), name="checkpoint", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until the writer is done, if one writes."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def stop(self) -> None:
        """Leave off after the shard that is being written, and wait for that."""
        self._stopped.set()
        self.wait()

    def _write(self, folder: Path, snapshot: Snapshot) -> None:
        from safetensors import SafetensorError

        began = time.perf_counter()
        try:
            is_written = write_checkpoint(folder, snapshot, go_on=lambda: not self._stopped.is_set())
        except (OSError, SafetensorError, RuntimeError, ValueError):  # a full volume, no memory, weights not to be read
            log.warning("quantised checkpoint could not be kept", exc_info=True)
            return
        if is_written:
            ms = round((time.perf_counter() - began) * 1000)
            log.info("quantised checkpoint kept", extra={"ms": ms, "detail": folder.name})
