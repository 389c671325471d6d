"""One job's way through the cache: a hit, a wait for a twin, or the claim to generate.

    async with cache.flight(Lookup(fingerprint, job_id=..., store=...)) as flight:
        entry = flight.hit
        if entry is None:
            ...                                  # generate and store; flight.share_progress(update) on the way
            await flight.complete(entry)

Of all jobs with one fingerprint one generates, the owner. The others wait inside `__aenter__`, are woken by the owner's
messages and report its progress as their own. When the owner fails, is cancelled or dies, one of them takes over, at
the latest when the lease lapses. Where the cache does not answer, the job generates, `warning` says so, and nothing is
raised.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Any, Final, TypeVar

from flux_engine.cache.late import LateWrites
from flux_engine.cache.lua import WAKE, CacheScripts, Claimed, Hit, Wait
from flux_engine.cache.redis_link import CacheAway
from flux_engine.errors import FluxError, StorageFailed
from flux_engine.progress import Update
from flux_engine.results.entry import CacheEntry, TaskState, TaskStatus
from flux_engine.results.store import ResultStore

AWAY: Final = "the result cache did not answer, so this result was made without it"
WAITED_TOO_LONG: Final = "an identical job did not finish in time, so this result was made beside it"
PROGRESS_EVERY_S: Final = 0.25

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Lookup:
    """What one job asks the cache.

    `store` is where its results go: entries of different stores never meet. A store that does not answer is raised as
    StorageFailed, or, without `needs_store`, taken for no cache. `use_cache=False` neither reads nor writes results and
    keeps the job's status alone. `on_progress` gets the owner's updates while this job waits for a twin.
    `before_waiting` is called when the job begins to wait: for a twin, or for the store to confirm a hit.
    """

    fingerprint: str
    job_id: str = field(kw_only=True)
    store: ResultStore = field(kw_only=True)
    use_cache: bool = field(default=True, kw_only=True)
    needs_store: bool = field(default=True, kw_only=True)
    on_progress: Callable[[Update], None] = field(default=lambda update: None, kw_only=True)
    before_waiting: Callable[[], None] = field(default=lambda: None, kw_only=True)


class Flight:
    """See the module. Made by CacheManager.flight; entered once, by one task."""

    def __init__(self, scripts: CacheScripts, lookup: Lookup, *, late: LateWrites) -> None:
        self.hit: CacheEntry | None = None
        self.warning: str | None = None
        self._scripts = scripts
        self._lookup = lookup
        self._late = late
        self._token = secrets.token_hex(16)
        self._started_at = datetime.now(UTC)
        self._slot = ""
        self._unseen = b""
        self._latest: Update | None = None
        self._reached = 0.0  # by the owner that this job waits for
        self._news = asyncio.Event()
        self._renewal: asyncio.Task[None] | None = None
        self._call: asyncio.Future[Any] | None = None  # the last one of those that go in order
        self._ended: TaskStatus | None = None  # what the job's answer says
        self._is_closed = False

    async def __aenter__(self) -> Flight:
        try:
            await self._enter()
        except CacheAway:
            self._go_without()
            self._renewed()
        except TimeoutError:
            self.warning = WAITED_TOO_LONG
            self._renewed()
        except (FluxError, asyncio.CancelledError) as error:
            await self._fail(_code(error))
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            await self._fail(_code(error))
        elif not self._is_closed and self.hit is None:
            await self._close(self._task("completed"))

    def share_progress(self, update: Update) -> None:
        """Tell the waiters how far this job is. Returns at once; the latest update wins."""
        self._latest = update
        self._news.set()

    async def complete(self, entry: CacheEntry) -> bool:
        """Remember the files of `entry`, which are stored, and wake the waiters. False where the cache does not answer:
        then `warning` is set, and the cache is told once it is back."""
        await self._stop_renewal()
        self._ended = self._task("completed", result=entry)
        is_remembered = bool(self._slot) or not self._lookup.use_cache
        try:
            await self._in_order(partial(self._tell, entry))
        except CacheAway:
            self._go_without()
            self._late.insist(partial(self._tell, entry))
            is_remembered = False
        self._is_closed = True  # not before: a cancellation meanwhile has to free the lease
        return is_remembered

    async def _tell(self, entry: CacheEntry) -> None:
        """The entry, and what the job's answer says by now."""
        assert self._ended is not None  # noqa: S101 - set before each call
        if self._lookup.use_cache and self._slot:
            await self._scripts.complete(self._slot, self._token, entry=entry, task=self._ended)
            return
        await self._late.settled()  # that the job has begun was said before
        await self._scripts.set_task(self._ended)

    async def _enter(self) -> None:
        if not self._lookup.use_cache:
            self._say(self._task("processing"))
            return
        self._slot = self._scripts.slot(await self._store_identity(), self._lookup.fingerprint)
        outcome = await self._acquire()
        if isinstance(outcome, Wait):
            log.info("waiting for a twin")
            self._lookup.before_waiting()
            async with asyncio.timeout(self._scripts.terms.wait_limit_s) as limit:
                outcome = await self._wait(limit)
        if isinstance(outcome, Claimed):
            self._renewed()

    def _renewed(self) -> None:
        """Keep the lease from now on, also where it is unknown whether this job has it: the answer may have been lost.
        Another's stays what it is."""
        if self._slot:
            self._renewal = asyncio.create_task(self._renew(), name=f"lease of {self._lookup.job_id}")

    async def _store_identity(self) -> str:
        try:
            return await self._lookup.store.identity()
        except StorageFailed as error:  # delivery decides whether the job can do without the store
            raise CacheAway("the result store cannot be identified") from error

    async def _acquire(self) -> Hit | Claimed | Wait:
        """Look until the entry found is usable: one that is not is removed, so that the next look is a miss.

        An entry whose files the store will not show stays: it may be usable to others, and `complete` overwrites it.
        """
        while True:
            outcome = await self._in_order(
                partial(
                    self._scripts.acquire,
                    self._slot,
                    self._token,
                    task=self._task("processing"),
                    done=self._task("completed"),
                    except_for=self._unseen,
                )
            )
            if not isinstance(outcome, Hit):
                return outcome
            entry = CacheEntry.parse(
                outcome.raw, fingerprint=self._lookup.fingerprint, prefix=self._lookup.store.prefix
            )
            is_stored = entry is not None and await self._is_stored(entry)
            if is_stored:
                self.hit = entry
                return outcome
            if is_stored is None:
                self._unseen = outcome.raw
            else:
                await self._scripts.discard(self._slot, outcome.raw)

    async def _is_stored(self, entry: CacheEntry) -> bool | None:
        """None where the store does not say so."""
        self._lookup.before_waiting()
        try:
            return await are_stored(entry, self._lookup.store)
        except StorageFailed as error:
            if self._lookup.needs_store:
                raise
            raise CacheAway("the result store does not answer") from error

    async def _wait(self, limit: asyncio.Timeout) -> Hit | Claimed | Wait:
        """Sleep until the owner sends a message, its lease lapses or messages may be lost, then look again. The end of
        the wait lifts its `limit`."""
        async with self._scripts.link.subscription(self._scripts.channel(self._slot)) as messages:
            outcome = await self._acquire()  # the owner may have finished before the subscription began
            while isinstance(outcome, Wait):
                self._pass_on(outcome.progress)
                lease_s = outcome.lease_s
                while (message := await messages.next(lease_s)) is not None and message != WAKE:
                    self._pass_on(message)
                    lease_s = self._scripts.terms.lease_s  # progress comes with a renewal
                self._reached = 0.0  # another owner begins anew
                outcome = await self._acquire()
            limit.reschedule(None)  # what was found is not lost while the subscription is closed
        return outcome

    def _pass_on(self, message: bytes) -> None:
        """But not what is older than a look: messages that were sent before it arrive after it."""
        with suppress(ValueError, RecursionError):  # another version's message, or none yet
            update = json.loads(message)
            if not isinstance(update, dict):
                return
            reached = update.get("progress")
            if isinstance(reached, int | float):
                if reached < self._reached:
                    return
                self._reached = reached
            self._lookup.on_progress(update)

    async def _renew(self) -> None:
        """Keep the lease while the work goes on; each renewal carries the latest progress."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._scripts.terms.renew_s):
                    await self._news.wait()
            self._news.clear()
            update, self._latest = self._latest, None
            with suppress(CacheAway):  # tried again at the next renewal
                await self._in_order(partial(self._scripts.renew, self._slot, self._token, progress=update))
            await asyncio.sleep(min(PROGRESS_EVERY_S, self._scripts.terms.renew_s))

    async def _stop_renewal(self) -> None:
        renewal, self._renewal = self._renewal, None
        while renewal is not None and not renewal.done():
            renewal.cancel()  # more than once: a library may swallow a cancellation
            await asyncio.wait([renewal], timeout=0.1)

    async def _fail(self, code: str) -> None:
        task = self._ended = self._task("failed", error=code)
        if not self._is_closed:
            await self._close(task)
            return
        self._say(task)  # the result is stored and shared, but this job could not deliver it

    async def _close(self, task: TaskStatus) -> None:
        """Free the lease, even if the job is cancelled once more meanwhile."""
        self._is_closed = True
        if not self._lookup.use_cache:
            self._say(task)
            return
        await asyncio.shield(asyncio.ensure_future(self._let_go(task)))

    def _say(self, task: TaskStatus) -> None:
        """Write a status that nobody waits for, nor does the job."""
        self._late.soon(partial(self._scripts.set_task, task), is_insisted=task.finished_at is not None)

    async def _let_go(self, task: TaskStatus) -> None:
        await self._stop_renewal()
        if not self._slot:
            let_go = partial(self._scripts.set_task, task)
        else:
            let_go = partial(self._scripts.release, self._slot, self._token, task=task)
        try:
            await self._in_order(let_go)
        except CacheAway:
            self._go_without()
            self._late.insist(let_go)  # else the lease stays until it lapses

    async def _in_order(self, call: Callable[[], Awaitable[T]]) -> T:
        """`call`, after the one before it has ended, and to its end: of a call that was cancelled the server may read
        the bytes after those of the next one, on another connection, and give a lease that nobody frees."""
        if self._call is not None and not self._call.done():
            await asyncio.wait([self._call])
        self._call = asyncio.ensure_future(call())
        self._call.add_done_callback(_known)
        return await asyncio.shield(self._call)

    def _go_without(self) -> None:
        if self._lookup.use_cache:
            self.warning = AWAY

    def _task(self, state: TaskState, *, error: str | None = None, result: CacheEntry | None = None) -> TaskStatus:
        return TaskStatus(
            job_id=self._lookup.job_id.encode(errors="backslashreplace").decode(),  # JSON has no lone surrogates
            fingerprint=self._lookup.fingerprint,
            status=state,
            started_at=self._started_at,
            finished_at=None if state == "processing" else datetime.now(UTC),
            error=error,
            result=result,
        )


def _known(call: asyncio.Future[Any]) -> None:
    """What came of `call` is known, also where its job was cancelled and asks no more."""
    if not call.cancelled():
        call.exception()


async def are_stored(entry: CacheEntry, store: ResultStore) -> bool | None:
    """Whether `store` has every file of `entry`; None where it does not say so. Raises StorageFailed."""
    found = await asyncio.gather(*(store.exists(stored.key, size=stored.bytes) for stored in entry.objects()))
    return False if False in found else None if None in found else True


def _code(error: BaseException) -> str:
    if isinstance(error, FluxError):
        return error.code
    return "cancelled" if isinstance(error, asyncio.CancelledError) else "internal"
