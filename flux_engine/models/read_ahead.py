"""Weight files read into the page cache by several threads, while the interpreter is still importing libraries.

Loading maps the files and touches them page by page, which a network volume answers slowly; sequential blocks on
several threads are what it is fast at. Nothing is kept: the bytes go to the kernel's cache, which gives them back when
memory is wanted. No torch here, so that reading can begin before it is imported.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flux_engine.models.planning.host_memory import available_memory
from flux_engine.units import MIB

BLOCK_BYTES: Final = 16 * MIB
THREADS: Final = 12
MEMORY_SHARE: Final = 0.5  # of what is free: the other half is for the weights themselves where they stay on the host


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadReport:
    """What was read: bytes of how many there are, and the seconds until the last of them."""

    read_bytes: int
    total_bytes: int
    seconds: float


class ReadAhead:
    """Reads the safetensors files of a folder in the background, in the order in which loading wants them."""

    def __init__(self, folder: Path, *, max_bytes: int | None = None, threads: int = THREADS) -> None:
        self._files = [(path, path.stat().st_size) for path in sorted(folder.rglob("*.safetensors"))]
        self._max_bytes = available_memory() * MEMORY_SHARE if max_bytes is None else max_bytes
        self._threads = threads
        self._stopped = threading.Event()
        self._pool: ThreadPoolExecutor | None = None
        self._reads: list[Future[int]] = []
        self._began = 0.0

    def start(self) -> ReadAhead:
        """Begin to read; returns at once."""
        self._began = time.perf_counter()
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="read-ahead")
        self._reads = [self._pool.submit(self._read, *block) for block in self._blocks()]
        return self

    def wait(self) -> ReadReport:
        """Until everything is read, or `stop` was called. Raises OSError where a file cannot be read."""
        read_bytes = sum(read.result() for read in self._reads)
        if self._pool is not None:
            self._pool.shutdown()
        return ReadReport(
            read_bytes=read_bytes,
            total_bytes=sum(size for _, size in self._files),
            seconds=time.perf_counter() - self._began,
        )

    def stop(self) -> None:
        """Read no further block: the loader has overtaken the readers, or the worker ends."""
        self._stopped.set()

    def _blocks(self) -> Iterator[tuple[Path, int, int]]:
        """File, offset and length of each block, up to the bound on memory."""
        left = int(self._max_bytes)
        for path, size in self._files:
            for offset in range(0, size, BLOCK_BYTES):
                length = min(BLOCK_BYTES, size - offset)
                if length > left:
                    return
                left -= length
                yield path, offset, length

    def _read(self, path: Path, offset: int, length: int) -> int:
        if self._stopped.is_set():
            return 0
        buffer = _buffer()
        with path.open("rb", buffering=0) as file:
            return os.preadv(file.fileno(), [memoryview(buffer)[:length]], offset)


_local: Final = threading.local()


def _buffer() -> bytearray:
    """One block for each thread, used again and again."""
    if not hasattr(_local, "buffer"):
        _local.buffer = bytearray(BLOCK_BYTES)
    buffer: bytearray = _local.buffer
    return buffer
