"""Results as files of a folder, for local runs and for reuse. Files appear whole or not at all."""

from __future__ import annotations

import asyncio
import os
import re
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Final

from flux_engine.errors import StorageFailed
from flux_engine.job.fingerprint import SHA256
from flux_engine.results.store import OBJECT_KEY, Link, identity_of, is_content

PRUNE_EVERY_S: Final = 60.0
PARTIAL_MAX_AGE_S: Final = 3600.0
PROBE_BYTES: Final = 1024**2  # a picture's size: a full disk may still take a few bytes
_PARTIAL: Final = re.compile(r"\.[0-9a-f]{32}\.partial")
_STORED: Final = re.compile(rf"{SHA256}\.[a-z0-9]{{1,8}}")  # object_key


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
        self._identity: str | None = None

    @property
    def prefix(self) -> str:
        return self._prefix

    @property
    def has_urls(self) -> bool:
        return self._has_urls

    async def identity(self) -> str:
        if self._identity is None:
            self._identity = identity_of("folder", await asyncio.to_thread(self._mark), self._prefix)
        return self._identity

    async def warm(self) -> None:
        """Nothing to prepare."""

    async def probe(self) -> None:
        await asyncio.to_thread(self._try)

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

    async def delete(self, key: str) -> None:
        try:
            await asyncio.to_thread(self._path(key).unlink, missing_ok=True)
        except OSError as error:
            raise StorageFailed("the stored file could not be deleted") from error

    def close(self) -> None:
        """Nothing to end."""

    def _path(self, key: str) -> Path:
        if not OBJECT_KEY.fullmatch(key):
            raise ValueError("not an object key")
        return self._folder / key

    def _mark(self) -> str:
        """The folder's own mark: the same for all who share the folder, another one on another disk."""
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

    def _try(self) -> None:
        partial = self._folder / f".{uuid.uuid4().hex}.partial"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_durably(partial, bytes(PROBE_BYTES))
        except OSError as error:
            raise _not_written(error) from error
        finally:
            with suppress(OSError):
                partial.unlink()

    def _read(self, path: Path, size: int, sha256: str) -> bytes:
        with path.open("rb") as file:
            data = file.read(size + 1)
        if not is_content(data, size=size, sha256=sha256):
            path.unlink(missing_ok=True)  # so that the next job like it makes the file again
            raise StorageFailed("the stored result is damaged; send the job again")
        return data

    def _touch(self, path: Path, size: int) -> bool:
        try:
            is_whole = path.stat().st_size == size
            if is_whole:
                os.utime(path)  # used now, so among the last to make room
        except OSError:  # gone or unreadable: the file is made again
            return False
        return is_whole


def write_durably(path: Path, data: bytes) -> None:
    """Write and flush to the disk, so that a file renamed afterwards is never empty. Raises OSError."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def make_room(folder: Path, max_bytes: int) -> None:
    """Remove the least recently used files of `folder` until at most `max_bytes` stay, and abandoned partial files.

    Only what a store wrote is looked at: an operator may keep models or pictures in the same folder.
    """
    files = []
    for path in folder.rglob("*"):
        with suppress(OSError):  # another worker may have removed it
            facts = path.stat()
            if _PARTIAL.fullmatch(path.name) and time.time() - facts.st_mtime > PARTIAL_MAX_AGE_S:
                path.unlink()
            elif _STORED.fullmatch(path.name) and path.is_file():
                files.append((facts.st_mtime, facts.st_size, path))
    used = sum(size for _, size, _ in files)
    for used_at, size, path in sorted(files):
        if used <= max_bytes:
            return
        with suppress(OSError):
            if path.stat().st_mtime > used_at:  # a job was told meanwhile that it is there
                continue
            path.unlink()
        used -= size


def _not_written(error: OSError) -> StorageFailed:
    reason = os.strerror(error.errno) if error.errno else "unknown reason"
    return StorageFailed(f"the result could not be written ({reason}); make room and send the job again")
