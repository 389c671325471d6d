"""Where finished files go, and how a client reaches them.

`ResultStore` has two implementations: `BucketStore` (bucket.py) and `FolderStore` (folder.py). Keys are made of the
content (`object_key`): storing a file again is harmless, and two jobs never write different bytes under one key. A
store that cannot do its work raises StorageFailed after its own retries. It knows nothing of jobs or of the cache.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from flux_engine.errors import StorageFailed
from flux_engine.job.fingerprint import SHA256

_SHA256: Final = re.compile(SHA256)
_EXTENSION: Final = re.compile(r"[a-z0-9]{1,8}")
OBJECT_KEY: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")


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
        """The beginning of every key, without slashes at its ends; may be empty."""
        ...

    @property
    def has_urls(self) -> bool:
        """Whether a client can open what `url` returns."""
        ...

    async def identity(self) -> str:
        """The store's name as 16 hexadecimal digits, the same for every worker that sees the same files."""
        ...

    async def warm(self) -> None:
        """Prepare for the first file, without contacting anything; refuse a store that can never be used.

        Raises StorageFailed, and InvalidInput for what a client named.
        """
        ...

    async def probe(self) -> None:
        """Whether a file could be stored now, without leaving one. Raises StorageFailed where none could."""
        ...

    async def put(self, data: bytes, *, key: str, content_type: str) -> None:
        """Store one file whole, or raise StorageFailed."""
        ...

    async def url(self, key: str) -> Link:
        """A URL for `key`, made now, without asking whether the file exists."""
        ...

    async def exists(self, key: str, *, size: int) -> bool | None:
        """Whether `key` exists with `size` bytes; None where the store does not tell this caller.

        Raises StorageFailed where it does not answer.
        """
        ...

    async def get(self, key: str, *, size: int, sha256: str) -> bytes:
        """The file's bytes. Raises StorageFailed where it is gone, unreadable, or not what was stored."""
        ...

    async def delete(self, key: str) -> None:
        """Remove a file; one that is not there is no error. Raises StorageFailed."""
        ...

    def close(self) -> None:
        """End threads and connections."""
        ...


def object_key(prefix: str, sha256: str, extension: str) -> str:
    """The key of a file by its content, such as `flux/9f86d0...0a08.png`. Raises ValueError for anything else."""
    if not _SHA256.fullmatch(sha256) or not _EXTENSION.fullmatch(extension):
        raise ValueError("an object key is made of a SHA-256 in hexadecimal and a short extension")
    name = f"{sha256}.{extension}"
    return f"{prefix}/{name}" if prefix else name


def identity_of(*parts: str) -> str:
    """A short name for a store, derived from what distinguishes it from others."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def is_content(data: bytes, *, size: int, sha256: str) -> bool:
    """Whether `data` is the file that was stored."""
    return len(data) == size and hashlib.sha256(data).hexdigest() == sha256


async def read_unless_gone(store: ResultStore, key: str, *, size: int, sha256: str) -> bytes | None:
    """The file's bytes, None where the store says that it has no such file. Raises StorageFailed where the store does
    not answer: the file may be there all the same."""
    try:
        return await store.get(key, size=size, sha256=sha256)
    except StorageFailed:
        if await store.exists(key, size=size) is not False:  # None: it is not shown, as with keys that were revoked
            raise
        return None


async def put_all(store: ResultStore, files: Sequence[NewFile]) -> None:
    """Store `files` side by side; the first failure is raised once all have ended."""
    puts = [store.put(file.data, key=file.key, content_type=file.content_type) for file in files]
    for outcome in await asyncio.gather(*puts, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
