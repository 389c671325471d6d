"""Weight files read into the page cache by several threads, while the interpreter is still importing libraries.

Loading maps the files and touches them page by page, which a network volume answers slowly; sequential blocks on
several threads are what it is fast at. Nothing is kept: the bytes go to the kernel's cache, which gives them back when
memory is wanted. The files are those that loading will open, in its order, and reading stays ahead of it by no more
than the memory that is free: more would push out what is not loaded yet. No torch here, so that reading can begin
before it is imported.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flux_engine.models.planning.host_memory import available_memory
from flux_engine.units import GIB, MIB

BLOCK_BYTES: Final = 16 * MIB
THREADS: Final = 12
RESERVE_BYTES: Final = 2 * GIB  # free memory left for libraries and what is not weights
STEMS: Final = ("diffusion_pytorch_model", "model")  # the stems of diffusers' and transformers' weight files


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadReport:
    """What was read: bytes of how many there are, and the seconds until the last of them."""

    read_bytes: int
    total_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """The files of one component, in the order in which loading opens them."""

    component: str
    paths: tuple[Path, ...]

    @property
    def num_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.paths)


def weight_files(folder: Path, component: str) -> WeightFiles:
    """What `from_pretrained` opens for `component` of the diffusers folder `folder`; nothing where that is unclear.

    A repository's root may hold the weights a second time, in one file, and a component's folder other variants.
    """
    place = folder / component
    for stem in STEMS:
        index = place / f"{stem}.safetensors.index.json"
        if index.is_file():
            try:
                names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
            except (OSError, ValueError, KeyError, AttributeError):
                return WeightFiles(component, ())
            return WeightFiles(component, tuple(place / name for name in names if (place / name).is_file()))
        if (whole := place / f"{stem}.safetensors").is_file():
            return WeightFiles(component, (whole,))
    return WeightFiles(component, ())


class ReadAhead:
    """Reads files in the background, ahead of a loader that says what it has consumed.

    reading = ReadAhead([weight_files(folder, name) for name in order]).start()
    ...                                  # import what takes seconds, load the first component
    reading.consumed(order[0])           # so reading may go on by as much
    """

    def __init__(
        self,
        files: Sequence[WeightFiles],
        *,
        free_bytes: Callable[[], int] = available_memory,
        threads: int = THREADS,
    ) -> None:
        self._files = files
        self._free_bytes = free_bytes
        self._threads = threads
        self._changed = threading.Condition()
        self._blocks = self._all_blocks()
        self._pending: tuple[str, Path, int, int] | None = None
        self._ahead_bytes = 0  # read and not consumed yet
        self._read_bytes: dict[str, int] = dict.fromkeys((one.component for one in files), 0)
        self._consumed: set[str] = set()
        self._is_stopped = False
        self._pool: ThreadPoolExecutor | None = None
        self._workers: list[Future[None]] = []
        self._began = 0.0

    def start(self) -> ReadAhead:
        """Begin to read; returns at once."""
        self._began = time.perf_counter()
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="read-ahead")
        self._workers = [self._pool.submit(self._read_on) for _ in range(self._threads)]
        return self

    def consumed(self, component: str) -> None:
        """Its files are loaded; what of them was not read yet is left out."""
        with self._changed:
            self._consumed.add(component)
            self._ahead_bytes -= self._read_bytes.get(component, 0)
            self._changed.notify_all()

    def wait(self) -> ReadReport:
        """Until everything is read, or `stop` was called. Raises OSError where a file cannot be read."""
        for worker in self._workers:
            worker.result()
        if self._pool is not None:
            self._pool.shutdown()
        return ReadReport(
            read_bytes=sum(self._read_bytes.values()),
            total_bytes=sum(one.num_bytes for one in self._files),
            seconds=time.perf_counter() - self._began,
        )

    def stop(self) -> None:
        """Read no further block: all is loaded, or the worker ends."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def _all_blocks(self) -> Iterator[tuple[str, Path, int, int]]:
        """Component, file, offset and length of each block."""
        for one in self._files:
            for path in one.paths:
                size = path.stat().st_size
                for offset in range(0, size, BLOCK_BYTES):
                    yield one.component, path, offset, min(BLOCK_BYTES, size - offset)

    def _read_on(self) -> None:
        buffer = bytearray(BLOCK_BYTES)
        while (block := self._next_block()) is not None:
            _, path, offset, length = block
            with path.open("rb", buffering=0) as file:
                os.preadv(file.fileno(), [memoryview(buffer)[:length]], offset)

    def _next_block(self) -> tuple[str, Path, int, int] | None:
        """The next block as soon as there is memory for it; None at the end or after `stop`."""
        with self._changed:
            while not self._is_stopped and (block := self._upcoming()) is not None:
                component, _, _, length = block
                if self._ahead_bytes + BLOCK_BYTES <= self._free_bytes() - RESERVE_BYTES:
                    self._pending = None
                    self._ahead_bytes += length
                    self._read_bytes[component] += length
                    return block
                self._changed.wait()
        return None

    def _upcoming(self) -> tuple[str, Path, int, int] | None:
        """The first block of what is not consumed yet; None at the end."""
        while self._pending is None or self._pending[0] in self._consumed:
            self._pending = next(self._blocks, None)
            if self._pending is None:
                return None
        return self._pending
