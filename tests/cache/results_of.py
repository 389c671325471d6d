"""Entries for files that the tests make up."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from flux_engine.results.entry import CacheEntry, StoredFile
from flux_engine.results.files import ResultFiles
from flux_engine.results.store import NewFile, ResultStore, object_key, put_all


def entry_of(fingerprint: str, data: bytes, *, prefix: str = "", created_at: datetime | None = None) -> CacheEntry:
    """What a worker would say of one picture of 16 x 16 pixels whose file is `data`."""
    sha256 = hashlib.sha256(data).hexdigest()
    stored = StoredFile(
        key=object_key(prefix, sha256, "png"),
        sha256=sha256,
        bytes=len(data),
        content_type="image/png",
        width=16,
        height=16,
        seed=7,
    )
    return CacheEntry(fingerprint=fingerprint, files=(stored,), created_at=created_at or datetime.now(UTC))


def files_of(entry: CacheEntry, data: bytes) -> list[NewFile]:
    return [NewFile(stored.key, data, stored.content_type) for stored in entry.objects()]


def held(entry: CacheEntry, data: bytes) -> ResultFiles:
    """The same with its bytes, as a job has it when it has just been made."""
    return ResultFiles(entry, tuple(files_of(entry, data)))


async def read_back(store: ResultStore, data: bytes, key: str) -> bytes:
    """What `store` has under `key`, where `data` was put."""
    return await store.get(key, size=len(data), sha256=hashlib.sha256(data).hexdigest())


async def stored(store: ResultStore, fingerprint: str, data: bytes) -> CacheEntry:
    """`data` in `store`, and its entry."""
    entry = entry_of(fingerprint, data, prefix=store.prefix)
    await put_all(store, files_of(entry, data))
    return entry
