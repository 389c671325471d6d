"""Files handed to the client: as links, or as bytes beside the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from flux_engine.job.base import JsonObject, ResponseFormat
from flux_engine.results.entry import StoredFile
from flux_engine.results.files import ResultFiles
from flux_engine.results.store import ResultStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """Files as a client gets them. `said` is the part of the result that names them; where they come inline, each
    `b64_json` in it is empty and `inline` holds the bytes that belong there, in the same order."""

    said: JsonObject
    inline: tuple[bytes, ...] = ()
    expires_at: datetime | None = None


async def delivered(files: ResultFiles, store: ResultStore, response_format: ResponseFormat) -> Delivery:
    """`files` as links or inline; what is not at hand is read from `store`. Raises StorageFailed."""
    if response_format == "b64_json":
        pairs = [(facts, await _data(files, facts, store)) for facts in files.entry.objects()]
        return delivered_inline(pairs, has_thumbnail=files.entry.thumbnail is not None)
    links = [(facts, await store.url(facts.key)) for facts in files.entry.objects()]
    said = [{"url": link.url, **_facts(facts)} for facts, link in links]
    expiries = [link.expires_at for _, link in links if link.expires_at is not None]
    return Delivery(said=_named(said, files.entry.thumbnail is not None), expires_at=min(expiries, default=None))


def delivered_inline(pairs: Sequence[tuple[StoredFile, bytes]], *, has_thumbnail: bool = False) -> Delivery:
    """Files whose bytes are here; a thumbnail comes last."""
    said = [{"b64_json": "", **_facts(facts)} for facts, _ in pairs]
    return Delivery(said=_named(said, has_thumbnail), inline=tuple(data for _, data in pairs))


async def _data(files: ResultFiles, facts: StoredFile, store: ResultStore) -> bytes:
    data = files.data(facts.key)
    return data if data is not None else await store.get(facts.key, size=facts.bytes, sha256=facts.sha256)


def _named(said: list[JsonObject], has_thumbnail: bool) -> JsonObject:
    if not has_thumbnail:
        return {"images": said}
    video, thumbnail = said
    return {"video": video, "thumbnail": {name: thumbnail[name] for name in ("url", "b64_json") if name in thumbnail}}


def _facts(stored: StoredFile) -> JsonObject:
    return stored.model_dump(exclude={"key"}, exclude_none=True)
