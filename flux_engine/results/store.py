"""Where finished files go, and how a client reaches them.

`ResultStore` has two implementations: `BucketStore` (bucket.py) and `FolderStore`, here. Keys are made of the content
(`object_key`), so that storing a file again is harmless and two jobs never write different bytes under one key. A
store that cannot do its work raises StorageFailed after its own retries. It knows nothing of jobs or of the cache.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

from flux_engine.errors import StorageFailed
from flux_engine.job.fingerprint import SHA256
from flux_engine.units import GIB

INLINE_CACHE_BYTES: Final = 2 * GIB  # pictures kept for reuse by a worker that hands its results over inline
PRUNE_EVERY_S: Final = 60.0
PARTIAL_MAX_AGE_S: Final = 3600.0

_SHA256 = re.compile(SHA256)
_EXTENSION = re.compile(r"[a-z0-9]{1,8}")
_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")


@dataclass(frozen=True, slots=True)
class Link:
    """Where a client finds a file; `expires_at` is None where the URL lasts as long as the file."""

    url: str
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file about to be stored."""

    key: str
    data: bytes
    content_type: str


class ResultStore(Protocol):
    """Files under content-addressed keys that all begin with `prefix`."""

    @property
    def prefix(self) -> str:
        """What every key begins with, without a slash at its ends; may be empty."""
        ...

    @property
    def has_urls(self) -> bool:
        """Whether `url` gives something that a client can open."""
        ...

    async def place(self) -> str:
        """Which store this is, as 16 hexadecimal digits: the same for every worker that sees the same files."""
        ...

    async def warm(self) -> None:
        """Get ready for the first file, without contacting anything; refuse what can never be used.

        Raises StorageFailed, and InvalidInput for what a client named.
        """
        ...

    async def put(self, data: bytes, *, key: str, content_type: str) -> None:
        """Store one file whole, or raise StorageFailed."""
        ...

    async def url(self, key: str) -> Link:
        """A URL for `key`, made now; whether the file is there is not asked."""
        ...

    async def exists(self, key: str, *, size: int) -> bool | None:
        """Whether `key` is there with `size` bytes; None where the store does not say so to whoever asks.

        Raises StorageFailed where it does not answer.
        """
        ...

    async def get(self, key: str, *, size: int, sha256: str) -> bytes:
        """The file's bytes; StorageFailed where it is gone, cannot be read, or is not what was stored."""
        ...

    def close(self) -> None:
        """Give threads and connections back."""
        ...


def object_key(prefix: str, sha256: str, extension: str) -> str:
    """The key of a file by its content, such as `flux/9f86d0...0a08.png`. Raises ValueError for anything else."""
    if not _SHA256.fullmatch(sha256) or not _EXTENSION.fullmatch(extension):
        raise ValueError("an object key is made of a SHA-256 in hexadecimal and a short extension")
    name = f"{sha256}.{extension}"
    return f"{prefix}/{name}" if prefix else name


def place_of(*parts: str) -> str:
    """A short name for a store, made of what tells it from others."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def is_content(data: bytes, *, size: int, sha256: str) -> bool:
    """Whether `data` is the file that was stored."""
    return len(data) == size and hashlib.sha256(data).hexdigest() == sha256


async def put_all(store: ResultStore, files: Sequence[NewFile]) -> None:
    """Store `files` side by side; the first failure is raised once all have ended."""
    puts = [store.put(file.data, key=file.key, content_type=file.content_type) for file in files]
    for outcome in await asyncio.gather(*puts, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


class FolderStore:
    """Results as files of a folder: OUTPUT_DIR of a local run, or what an inline worker keeps for reuse.

    A file appears by rename, whole. With `max_bytes` the files used longest ago make room for new ones.
    """

    def __init__(self, folder: Path, *, has_urls: bool = True, prefix: str = "", max_bytes: int | None = None) -> None:
        self._folder = folder
        self._prefix = prefix
        self._has_urls = has_urls
        self._max_bytes = max_bytes
        self._pruned_at = -PRUNE_EVERY_S
        self._place: str | None = None

    @property
    def prefix(self) -> str:
        return self._prefix

    @property
    def has_urls(self) -> bool:
        return self._has_urls

    async def place(self) -> str:
        if self._place is None:
            self._place = place_of("folder", await asyncio.to_thread(self._mark), self._prefix)
        return self._place

    async def warm(self) -> None:
        """There is nothing to get ready."""

    async def put(self, data: bytes, *, key: str, content_type: str) -> None:
        await asyncio.to_thread(self._write, self._path(key), data)

    async def url(self, key: str) -> Link:
        return Link(self._path(key).absolute().as_uri())

    async def exists(self, key: str, *, size: int) -> bool | None:
        return await asyncio.to_thread(self._touch, self._path(key), size)

    async def get(self, key: str, *, size: int, sha256: str) -> bytes:
        try:
            return await asyncio.to_thread(self._read, self._path(key), size, sha256)
        except OSError as error:
            raise StorageFailed("the stored result could not be read; send the job again") from error

    def close(self) -> None:
        """Nothing is held."""

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError("not an object key")
        return self._folder / key

    def _mark(self) -> str:
        """An identity that lies in the folder: shared where the folder is shared, another on another disk."""
        mark = self._folder / ".store-id"
        try:
            if not mark.exists():
                self._folder.mkdir(parents=True, exist_ok=True)
                fresh = self._folder / f".{uuid.uuid4().hex}.partial"
                fresh.write_text(uuid.uuid4().hex)
                with suppress(FileExistsError):
                    os.link(fresh, mark)  # unlike a rename, it fails where another worker was first
                fresh.unlink()
            return mark.read_text()
        except OSError as error:
            raise _not_written(error) from error

    def _write(self, path: Path, data: bytes) -> None:
        partial = path.parent / f".{uuid.uuid4().hex}.partial"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_durably(partial, data)
            partial.replace(path)
        except OSError as error:
            with suppress(OSError):
                partial.unlink()
            raise _not_written(error) from error
        if self._max_bytes is not None and time.monotonic() - self._pruned_at >= PRUNE_EVERY_S:
            self._pruned_at = time.monotonic()
            make_room(self._folder, self._max_bytes)

    def _read(self, path: Path, size: int, sha256: str) -> bytes:
        with path.open("rb") as file:
            data = file.read(size + 1)
        if not is_content(data, size=size, sha256=sha256):
            path.unlink(missing_ok=True)  # so that the next job like it finds nothing, and makes it again
            raise StorageFailed("the stored result is damaged; send the job again")
        return data

    def _touch(self, path: Path, size: int) -> bool:
        try:
            is_whole = path.stat().st_size == size
            if is_whole:
                os.utime(path)  # used now: the last to make room
        except OSError:  # gone, or on a disk that cannot give it back: it is made again
            return False
        return is_whole


def write_durably(path: Path, data: bytes) -> None:
    """Write and flush to the disk, so that a rename after it never shows an empty file. Raises OSError."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def make_room(folder: Path, max_bytes: int) -> None:
    """Remove the files of `folder` used longest ago until at most `max_bytes` stay, and partial files left behind."""
    files = []
    for path in folder.rglob("*"):
        with suppress(OSError):  # another worker may have removed it
            facts = path.stat()
            if path.name.endswith(".partial") and time.time() - facts.st_mtime > PARTIAL_MAX_AGE_S:
                path.unlink()
            elif path.is_file() and not path.name.startswith("."):
                files.append((facts.st_mtime, facts.st_size, path))
    used = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if used <= max_bytes:
            return
        with suppress(OSError):
            path.unlink()
        used -= size


def _not_written(error: OSError) -> StorageFailed:
    reason = os.strerror(error.errno) if error.errno else "unknown reason"
    return StorageFailed(f"the result could not be written ({reason}); make room and send the job again")
