"""What a task was made from, in two parts: its words in Redis, and what is long, such as pictures, in the store.

    held = await kept.packed(task_id, job_input)     # what the ledger keeps
    job_input = await kept.unpacked(held)            # None where a part of it is gone for good
    await kept.forget(held)

Lone surrogates, which JSON can escape and no queue can send, are dropped, as a worker drops them.

So Redis holds a few kilobytes of a task however large its pictures are. A stored part belongs to one task alone and
can be deleted with it; a folder lets go of what was used longest ago, and a bucket by its own rules.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from typing import Any, Final

from flux_engine.results.store import ResultStore, object_key, read_unless_gone

LONG: Final = 16_384  # characters that Redis does not keep
DEPTH: Final = 4  # of a job's fields: control -> first -> image
GIVEN: Final = "given"
APART: Final = "apart"

Path = tuple[str | int, ...]
Note = Callable[[str, Iterable[str]], Awaitable[None]]


class KeptInputs:
    """See the module."""

    def __init__(self, store: ResultStore, *, note: Note) -> None:
        """`note` is told which files are about to be stored for a task that is not in the ledger yet."""
        self._store = store
        self._note = note

    async def packed(self, task_id: str, job_input: Mapping[str, Any]) -> dict[str, Any]:
        """Raises StorageFailed, and what `note` raises."""
        long = list(_long(job_input, ()))
        if not long:
            return {GIVEN: _encodable(job_input), APART: []}
        given = deepcopy(dict(job_input))
        apart: list[dict[str, Any]] = []
        for path, text in long:
            _put(given, path, None)
            apart.append({"at": list(path), **await self._named(task_id, text.encode(errors="ignore"))})
        await self._note(task_id, [part["key"] for part in apart])
        for part, (_, text) in zip(apart, long, strict=True):
            await self._store.put(text.encode(errors="ignore"), key=part["key"], content_type="text/plain")
        return {GIVEN: _encodable(given), APART: apart}

    async def unpacked(self, held: Mapping[str, Any]) -> dict[str, Any] | None:
        """The job's input as it was packed. Raises StorageFailed where the store does not answer."""
        given = _encodable(held.get(GIVEN, held))  # a version before this one kept it as it is
        for part in _apart(held):
            data = await read_unless_gone(self._store, part["key"], size=part["bytes"], sha256=part["sha256"])
            if data is None:
                return None
            _put(given, tuple(part["at"]), data.decode())
        return given

    async def forget(self, held: Mapping[str, Any]) -> None:
        """Raises StorageFailed."""
        for part in _apart(held):
            await self.forget_part(part["key"])

    async def forget_part(self, file_key: str) -> None:
        """Raises StorageFailed."""
        await self._store.delete(file_key)

    async def _named(self, task_id: str, data: bytes) -> dict[str, Any]:
        sha256 = (await asyncio.to_thread(hashlib.sha256, data)).hexdigest()
        own = hashlib.sha256(f"{task_id} {sha256}".encode()).hexdigest()
        key = object_key(self._store.prefix, own, "txt")
        return {"key": key, "bytes": len(data), "sha256": sha256}


def is_whole(held: Mapping[str, Any]) -> bool:
    """Whether nothing of it lies apart."""
    return not _apart(held)


def _encodable(given: Mapping[str, Any]) -> dict[str, Any]:
    text = json.dumps(given, ensure_ascii=False)
    encodable: dict[str, Any] = dict(given) if text.isascii() else json.loads(text.encode(errors="ignore"))
    return encodable


def _apart(held: Mapping[str, Any]) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = held.get(APART, [])
    return parts


def _long(value: object, path: Path) -> Iterator[tuple[Path, str]]:
    """The long texts within `value`, and where they stand."""
    if isinstance(value, str):
        if len(value) > LONG:
            yield path, value
    elif len(path) < DEPTH:
        items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
        for name, item in items:
            yield from _long(item, (*path, name))


def _put(within: Any, path: Path, value: str | None) -> None:
    for name in path[:-1]:
        within = within[name]
    within[path[-1]] = value
