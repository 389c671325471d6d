"""The result cache: workers that share a Redis server make no picture twice.

`CacheManager.flight` takes one job through the cache (flight.py); `task_status` tells how far a job is. Values are JSON
with a version (results/entry.py), and atomic steps are Lua (lua.py). Without an answer from the server a job goes on
without the cache and does not fail (redis_link.py). Without REDIS_URL an embedded server is used (embedded.py). Nothing
here needs a model or torch.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

from flux_engine.cache.embedded import EmbeddedServer
from flux_engine.cache.flight import Flight, Lookup, are_stored
from flux_engine.cache.late import LateWrites
from flux_engine.cache.lua import CacheScripts, Terms
from flux_engine.cache.measurements import Measurements
from flux_engine.cache.notices import Notices
from flux_engine.cache.redis_link import (
    CALL_TIMEOUT_S,
    RETRY_AFTER_S,
    CacheAway,
    RedisLink,
    RedisServer,
    RemoteServer,
)
from flux_engine.errors import StorageFailed
from flux_engine.results.entry import CacheEntry, TaskStatus
from flux_engine.results.store import ResultStore
from flux_engine.settings import Settings


class CacheManager:
    """Results by fingerprint, and jobs by id, of one endpoint. For one event loop; connects at the first use."""

    def __init__(
        self,
        server: RedisServer,
        *,
        namespace: str,
        terms: Terms | None = None,
        call_timeout_s: float = CALL_TIMEOUT_S,
        retry_after_s: float = RETRY_AFTER_S,
    ) -> None:
        self._link = RedisLink(server, call_timeout_s=call_timeout_s, retry_after_s=retry_after_s)
        self._scripts = CacheScripts(self._link, namespace=namespace, terms=terms or Terms())
        self._late = LateWrites()
        self.measurements: Final = Measurements(self._link, namespace=namespace)
        self.notices: Final = Notices(self._link, namespace=namespace)

    @classmethod
    def from_settings(cls, settings: Settings, *, cache_folder: Path) -> CacheManager:
        """REDIS_URL, or an embedded server whose socket and data lie in `cache_folder`, on this machine."""
        terms = Terms(entry_s=settings.cache_ttl_seconds)
        server = server_of(settings, cache_folder=cache_folder)
        return cls(server, namespace=settings.cache_namespace or "local", terms=terms)

    def flight(self, lookup: Lookup) -> Flight:
        """An async context manager; see flight.py."""
        return Flight(self._scripts, lookup, late=self._late)

    async def find(self, fingerprint: str, *, store: ResultStore) -> CacheEntry | None:
        """What was finished for `fingerprint`, without a claim to make it; whether its files are there is not asked.
        None also where the cache or the store is away."""
        with suppress(CacheAway, StorageFailed):
            raw = await self._scripts.entry(self._scripts.slot(await store.identity(), fingerprint))
            if raw is not None:
                return CacheEntry.parse(raw, fingerprint=fingerprint, prefix=store.prefix)
        return None

    async def remember(self, entry: CacheEntry, *, store: ResultStore) -> None:
        """The files of `entry` are in `store`: the next one who asks finds them. Nothing where the cache is away."""
        with suppress(CacheAway, StorageFailed):
            await self._scripts.set_entry(self._scripts.slot(await store.identity(), entry.fingerprint), entry)

    async def find_stored(self, fingerprint: str, *, store: ResultStore) -> CacheEntry | None:
        """As `find`, and only where its files are in `store`."""
        entry = await self.find(fingerprint, store=store)
        with suppress(CacheAway, StorageFailed):
            if entry is not None and await are_stored(entry, store):
                return entry
        return None

    async def task_status(self, job_id: str) -> TaskStatus | None:
        """How far a job is; None where that is unknown, forgotten, or the server does not answer."""
        await self._late.settled()
        try:
            return await self._scripts.task(job_id)
        except CacheAway:
            return None

    async def close(self) -> None:
        """Leave the server; an embedded one ends with its last worker."""
        await self._late.close()
        await self.measurements.close()
        await self._link.close()


def server_of(settings: Settings, *, cache_folder: Path) -> RedisServer:
    """REDIS_URL, or the embedded server of `cache_folder`, which is started at its first use."""
    if settings.redis_url is not None:
        return RemoteServer(settings.redis_url.get_secret_value())
    return EmbeddedServer(cache_folder / "redis")
