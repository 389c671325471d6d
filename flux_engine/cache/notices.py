"""What workers tell of themselves and of their jobs, for whoever shares their Redis: the gateway.

    offer                what this endpoint serves: its default model, the bounds of each, whether results have URLs
    identities:MODEL     which weights make the results of MODEL, for fingerprints without a worker; each with its time
    notices              channel: `{"task", "progress"}` as it happens, `{"task"}` at its end

All under `flux:NAMESPACE:`. A server that is away costs nothing but the notice: nothing here raises CacheAway to a job.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from typing import Any, Final
from urllib.parse import quote

from flux_engine.cache.redis_link import CacheAway, RedisLink
from flux_engine.job.fingerprint import ModelIdentity
from flux_engine.job.limits import ModelLimits
from flux_engine.progress import Send, Update

IDENTITY_LASTS_S: Final = 30 * 86_400
RETOLD_AFTER_S: Final = 60.0
IDENTITIES_KEPT: Final = 4  # for each model: different cards run it in different ways

TELL: Final = "return redis.call('PUBLISH', ARGV[1], ARGV[2])"
SET_OFFER: Final = "return redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])"
SET_IDENTITY: Final = """
for _, other in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if not string.find(other, ARGV[5], 1, true) then redis.call('ZREM', KEYS[1], other) end
end
redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -ARGV[3] - 1)
redis.call('EXPIRE', KEYS[1], ARGV[4])
return 1
"""
GET_IDENTITIES: Final = "return redis.call('ZREVRANGE', KEYS[1], 0, -1)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What the workers of an endpoint serve."""

    default_model: str
    models: tuple[ModelLimits, ...]
    has_urls: bool
    max_video_work: float
    marks: str = ""  # on the files of their results; unknown of an older worker's
    filter: str = ""  # that every picture passes; none where empty

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str | bytes) -> Offer | None:
        """The offer in `text`, or None where another version wrote it."""
        try:
            held = json.loads(text)
            models = tuple(_limits(item) for item in held["models"])
            return cls(
                default_model=str(held["default_model"]),
                models=models,
                has_urls=bool(held["has_urls"]),
                max_video_work=float(held["max_video_work"]),
                marks=str(held.get("marks", "")),
                filter=str(held.get("filter", "")),
            )
        except (ValueError, KeyError, TypeError):
            return None


class Notices:
    """Both ends of it. Every method returns at once where the server is away."""

    def __init__(self, link: RedisLink, *, namespace: str) -> None:
        self._link = link
        self._root = f"flux:{quote(namespace, safe='', errors='backslashreplace')}"
        self._told_at: dict[Offer | ModelIdentity, float] = {}
        self.channel: Final = f"{self._root}:notices"

    # ------------------------------------------------------------------------------------- workers

    def sender(self, task_id: str, send: Send | None) -> Send:
        """`send`, and a notice beside it."""

        async def send_both(update: Update) -> None:
            await self.progress(task_id, update)
            if send is not None:
                await send(update)

        return send_both

    async def progress(self, task_id: str, update: Update) -> None:
        with suppress(CacheAway, ValueError):
            notice = json.dumps({"task": task_id, "progress": update}, allow_nan=False)
            await self._link.eval(TELL, [], [self.channel, notice])

    async def ended(self, task_id: str) -> None:
        """The job is over and its result on its way through the queue."""
        with suppress(CacheAway):
            await self._link.eval(TELL, [], [self.channel, json.dumps({"task": task_id})])

    async def offer(self, offer: Offer) -> None:
        if self._is_news(offer):
            with self._telling(offer):
                await self._link.eval(SET_OFFER, [f"{self._root}:offer"], [offer.to_json(), IDENTITY_LASTS_S])

    async def makes(self, identity: ModelIdentity) -> None:
        """This worker makes results by `identity`; what was told of other weights of that name is over."""
        if self._is_news(identity):
            text = json.dumps(asdict(identity), sort_keys=True)
            revision = json.dumps({"revision": identity.revision})[1:-1]
            bounds: tuple[int, ...] = (IDENTITIES_KEPT, IDENTITY_LASTS_S)
            with self._telling(identity):
                arguments: list[str | bytes | int] = [round(time.time()), text, *bounds, revision]
                await self._link.eval(SET_IDENTITY, [self._identities(identity.id)], arguments)

    # ------------------------------------------------------------------------------------- readers

    async def current_offer(self) -> Offer | None:
        with suppress(CacheAway):
            text = await self._link.get(f"{self._root}:offer")
            return Offer.parse(text) if text is not None else None
        return None

    async def identities(self, model: str) -> list[ModelIdentity]:
        """By what results of `model` are made, the newest word first."""
        found: list[ModelIdentity] = []
        with suppress(CacheAway, ValueError, TypeError):
            for text in await self._link.eval(GET_IDENTITIES, [self._identities(model)], []):
                found.append(ModelIdentity(**json.loads(text)))
        return found

    def _is_news(self, fact: Offer | ModelIdentity) -> bool:
        """Asked for every job: so the fact itself is looked up, and written out only where it is told."""
        now = time.monotonic()
        if now - self._told_at.get(fact, -RETOLD_AFTER_S) < RETOLD_AFTER_S:
            return False
        self._told_at[fact] = now
        return True

    @contextmanager
    def _telling(self, fact: Offer | ModelIdentity) -> Iterator[None]:
        """What the server did not take is still news."""
        try:
            yield
        except CacheAway:
            self._told_at.pop(fact, None)

    def _identities(self, model: str) -> str:
        return f"{self._root}:identities:{quote(model, safe='', errors='backslashreplace')}"


def _limits(held: dict[str, Any]) -> ModelLimits:
    known = {f.name for f in fields(ModelLimits)}
    read: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in held.items() if name in known
    }
    return ModelLimits(**read)
