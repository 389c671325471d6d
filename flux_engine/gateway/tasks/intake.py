"""From what a client sends to a task in the ledger: checked as a worker would, answered from the cache, or in line.

    made = await intake.accept(Wanted(principal=..., kind="image", body={...}, key=..., ...))
    made.task, made.is_replayed

Order matters: nothing is charged before it is known that the job is valid and new, and nothing is handed to the queue
before the ledger has it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from flux_engine.cache.redis_link import CacheAway
from flux_engine.errors import FluxError, StorageFailed
from flux_engine.gateway.offer import Offers
from flux_engine.gateway.problems import Gone, KeyReused, Problem, Refused, Unavailable
from flux_engine.gateway.seams import Limits, Line
from flux_engine.gateway.task import Kind, Task
from flux_engine.gateway.tasks.endings import Endings
from flux_engine.gateway.tasks.hits import Hits
from flux_engine.gateway.tasks.kept import KeptInputs
from flux_engine.gateway.tasks.ledger.ledger import Ledger
from flux_engine.gateway.tasks.ledger.news import Ending, Known, new_task
from flux_engine.gateway.tasks.named import NamedInputs
from flux_engine.gateway.tasks.submit import Dispatcher
from flux_engine.gateway.tasks.wanted import Accepted, Wanted
from flux_engine.job.image import ImageJob
from flux_engine.job.parse import Request, parse_job
from flux_engine.job.video import VideoJob
from flux_engine.job.work import work_of
from flux_engine.job.written.aliases import canonical_fields

SIZE_FIELDS: Final = ("width", "height", "aspect_ratio", "megapixels")
LARGE_BODY: Final = 100_000
UNANSWERED: Final = (
    "Redis was asked to begin this task and did not answer, so it may have begun; send the request again if it had an "
    "`Idempotency-Key`, which makes one task of both, and look at `/tasks` first if it had none"
)

log = logging.getLogger(__name__)


class Intake:
    """See the module."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        offers: Offers,
        hits: Hits,
        named: NamedInputs,
        kept: KeptInputs,
        limits: Limits,
        line: Line,
        dispatcher: Dispatcher,
        endings: Endings,
        store_has_urls: bool,
    ) -> None:
        """`store_has_urls`: results are read from a bucket, which workers may write to themselves."""
        self._ledger = ledger
        self._offers = offers
        self._hits = hits
        self._named = named
        self._kept = kept
        self._limits = limits
        self._line = line
        self._dispatcher = dispatcher
        self._endings = endings
        self._store_has_urls = store_has_urls

    async def accept(self, wanted: Wanted) -> Accepted:
        """The task that was made, or that the same request made before. Raises Problem."""
        user = wanted.principal.user
        body_hash = await self._hash(wanted)
        known = await self._known(wanted, body_hash)
        if known is not None:
            return await self._replayed(known, body_hash)
        task_id = str(uuid.uuid4())
        job = await self.parsed(wanted.body, wanted.kind, task_id=task_id)
        await self._check_named(job)
        ending = await self._hits.find(job)
        task = self._task(task_id, job, wanted)
        if ending is not None:
            return await self._answered(task, ending, job, wanted, body_hash)
        reservation = await self._limits.reserve(user, task_id, task.work)
        try:
            job_input = await self._job_input(task_id, wanted.body, job)
            known = await self._begun(task, job_input, wanted, body_hash)
        except BaseException:
            await self._give_back(task_id)  # the task may be there all the same: its end charges what it used
            raise
        if known is not None:
            await self._give_back(task_id)
            return await self._replayed(known, body_hash)
        try:
            await self._line.enter(user, task_id, task.priority)
        except CacheAway:
            log.warning("task not in line yet", extra={"job_id": task_id})  # the sweep's first look lets it enter
        except Problem:  # the line is full
            await self._discard(task, wanted, body_hash)
            await self._give_back(task_id)
            await self._forget(job_input)
            raise
        self._dispatcher.kick()
        return Accepted(task, headers=reservation.headers)

    async def parsed(self, body: Mapping[str, Any], kind: Kind | None, *, task_id: str) -> ImageJob | VideoJob:
        """The job of `body`, by the same code as a worker's. Raises Refused."""
        given = dict(body)
        if kind is not None:
            if given.get("type", kind) != kind:
                raise Refused(f"this route makes the type `{kind}`; leave `type` out", field="type")
            given["type"] = kind
        context = await self._offers.context()
        try:
            return await asyncio.to_thread(parse_job, Request(id=task_id, input=given), context)
        except FluxError as error:
            raise Refused.of(error) from None

    async def again(self, task: Task, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """The input that made `task`, with `overrides`. Raises Problem, and StorageFailed where the store does not
        answer."""
        held = await self._ledger.input(task.id)
        base = await self._kept.unpacked(held) if held is not None else None
        if base is None:
            raise Gone("what this task was made from has expired or was purged", code="expired")
        try:
            given, held = _canonical(overrides), _canonical(base)
        except FluxError as error:
            raise Refused.of(error) from None
        if any(name in given for name in SIZE_FIELDS):
            held = {name: value for name, value in held.items() if name not in SIZE_FIELDS}
        cleared = {"response_format", *(name for name, value in overrides.items() if value is None)}
        if given.get("seed") == -1 or "seed" in cleared:
            cleared.add("seed")
        return {name: value for name, value in held.items() if name not in cleared} | given

    # ------------------------------------------------------------------------------------- parts

    async def _check_named(self, job: ImageJob | VideoJob) -> None:
        try:
            await self._named.check(job)
        except FluxError as error:
            raise Refused.of(error) from None

    async def _give_back(self, task_id: str) -> None:
        """Where Redis does not answer, the sweep finds what was reserved for no task."""
        with suppress(CacheAway):
            await self._limits.give_back(task_id)

    async def _forget(self, job_input: Mapping[str, Any]) -> None:
        """What was stored for a task that is not made. Where the store does not answer, it is deleted later."""
        with suppress(StorageFailed):
            await self._kept.forget(job_input)

    async def _hash(self, wanted: Wanted) -> str:
        extras = wanted.extras
        said: list[object] = [wanted.route, dict(wanted.body), extras.priority, extras.webhook]
        said += [] if extras.deadline_seconds is None else [extras.deadline_seconds]
        text = json.dumps(said, sort_keys=True, separators=(",", ":"))
        if len(text) < LARGE_BODY:
            return hashlib.sha256(text.encode()).hexdigest()
        return await asyncio.to_thread(lambda: hashlib.sha256(text.encode()).hexdigest())

    async def _known(self, wanted: Wanted, body_hash: str) -> Known | None:
        user = wanted.principal.user
        if wanted.key is not None:
            return await self._ledger.beginnings.known_by_key(user, wanted.key)
        if wanted.is_repeat:
            task_id = await self._ledger.beginnings.known_by_body(user, body_hash)
            task = await self._ledger.get(task_id) if task_id is not None else None
            return Known(task.id, body_hash) if task is not None and not _may_succeed_again(task) else None
        return None

    async def _replayed(self, known: Known, body_hash: str) -> Accepted:
        if known.body_hash != body_hash:
            raise KeyReused(
                "this Idempotency-Key came with another body before; send a new key", field="Idempotency-Key"
            )
        task = await self._ledger.get(known.task_id)
        if task is None:
            raise Gone("the task of this Idempotency-Key has expired; send a new key", code="expired")
        return Accepted(task, is_replayed=True)

    async def _answered(
        self, task: Task, ending: Ending, job: ImageJob | VideoJob, wanted: Wanted, body_hash: str
    ) -> Accepted:
        """A hit: the task begins and ends here."""
        finished = ended(task, ending)
        job_input = await self._job_input(task.id, wanted.body, job)
        known = await self._begun(finished, job_input, wanted, body_hash)
        if known is not None:
            return await self._replayed(known, body_hash)
        with suppress(CacheAway, RedisError):  # the sweep settles it again
            await self._endings.settle_new(finished)
        return Accepted(finished)

    async def _begun(self, task: Task, job_input: Mapping[str, Any], wanted: Wanted, body_hash: str) -> Known | None:
        """Write `task` into the ledger; or what its key made before, and then nothing of this one is left. Raises
        Unavailable where it may be there or not."""
        try:
            known = await self._ledger.beginnings.create(task, job_input, body_hash=body_hash, key=wanted.key)
        except (RedisConnectionError, RedisTimeoutError) as error:
            raise Unavailable(UNANSWERED) from error
        if known is not None:
            await self._forget(job_input)
        return known

    async def _discard(self, task: Task, wanted: Wanted, body_hash: str) -> None:
        """A task that there is no room for. Raises Unavailable where it may be there all the same."""
        try:
            await self._ledger.beginnings.discard(task, body_hash=body_hash, key=wanted.key)
        except RedisError as error:
            raise Unavailable(UNANSWERED) from error

    def _task(self, task_id: str, job: ImageJob | VideoJob, wanted: Wanted) -> Task:
        now, extras = time.time(), wanted.extras
        return new_task(
            task_id,
            user=wanted.principal.user,
            kind="video" if isinstance(job, VideoJob) else "image",
            now=now,
            model=job.model,
            seed=job.seed,
            work=work_of(job),
            warnings=tuple(dict.fromkeys((*wanted.warnings, *job.warnings))),
            metadata=job.metadata,
            parameters=job.parameters() | {"response_format": "url"},
            priority=extras.priority,
            deadline_at=None if extras.deadline_seconds is None else now + extras.deadline_seconds,
            webhook=extras.webhook,
            request_id=wanted.request_id,
            traceparent=wanted.traceparent,
            key_id=wanted.principal.key_id,
            again_of=wanted.again_of,
        )

    async def _job_input(self, task_id: str, body: Mapping[str, Any], job: ImageJob | VideoJob) -> dict[str, Any]:
        """What the worker is sent, packed for the ledger: the client's words, with what must not change when the job is
        submitted again. Raises StorageFailed."""
        links = self._store_has_urls and await self._offers.has_urls()
        fixed = {
            "type": "video" if isinstance(job, VideoJob) else "image",
            "seed": job.seed,
            "response_format": "url" if links else "b64_json",
        }
        kept = {name: value for name, value in body.items() if value is not None and name not in ("task", *fixed)}
        return await self._kept.packed(task_id, kept | fixed)


def _may_succeed_again(task: Task) -> bool:
    """Whether its client was told to send it again, which then is another task."""
    return task.error is not None and task.error.retryable


def _canonical(fields: Mapping[Any, Any]) -> dict[str, Any]:
    """The fields of a job under their canonical names. Raises InvalidInput."""
    return dict(canonical_fields(fields, []).values)


def ended(task: Task, ending: Ending) -> Task:
    """`task` as it is after `ending`, which came at once."""
    return replace(
        task,
        status=ending.status,
        started_at=task.created_at,
        finished_at=time.time(),
        progress=1.0,
        result=ending.result,
        files=ending.files,
        work_used=ending.work_used,
        cached=ending.cached,
        fingerprint=ending.fingerprint,
        warnings=tuple(dict.fromkeys((*task.warnings, *ending.warnings))),
    )
