"""A job's progress, as the platform shows it while the job runs.

Each job has one sender: updates leave in order, at most one a second and one at each change of stage, the latest wins,
and none leaves after `close`. Sending cannot fail a job: an update that cannot be sent is dropped. `close` waits for an
update that is being sent, because one that reaches the platform after the result reopens the job for ever
(docs/facts.md). So a slow network may delay a result by seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal, TypeGuard

from flux_engine.logs import enter_stage

Stage = Literal["queued", "loading", "lora", "text", "denoising", "decoding", "encoding", "uploading"]
Update = dict[str, Any]
Send = Callable[[Update], Awaitable[None]]

SHARES: Final[dict[Stage, tuple[float, float]]] = {  # shares of the whole job, from and to
    "queued": (0.0, 0.0),
    "lora": (0.0, 0.04),  # fetching, before it is known whether the model is warm
    "loading": (0.04, 0.08),
    "text": (0.08, 0.10),
    "denoising": (0.10, 0.90),
    "decoding": (0.90, 0.93),
    "encoding": (0.93, 0.96),
    "uploading": (0.96, 0.99),
}
RELAYED: Final = ("step", "total_steps", "frame", "total_frames", "eta_seconds")
MIN_INTERVAL_S: Final = 1.0
QUIET_S: Final = 0.1  # `queued` waits that long: a job that the cache answers at once posts no progress
CLOSE_WITHIN_S: Final = 12.0  # longer than the sender's own time-out, which comes first

log = logging.getLogger(__name__)


class Progress:
    """How far one job is. `stage` and `step` may be called from any thread."""

    def __init__(
        self,
        send: Send | None,
        *,
        min_interval_s: float = MIN_INTERVAL_S,
        close_within_s: float = CLOSE_WITHIN_S,
        on_made: Callable[[], None] = lambda: None,
    ) -> None:
        self.preview_xmp = b""  # the marks that previews carry, known once the job is
        self.made: Final = on_made  # to be called once the GPU has done its part: what is left is delivery
        self._send = send
        self._min_interval_s = min_interval_s
        self._close_within_s = close_within_s
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._listener: Callable[[Update], None] | None = None
        self._waiting: list[Update] = []
        self._reached = 0.0
        self._seq = 0
        self._sent_at = float("-inf")
        self._preview_at = float("-inf")
        self._began_at = self._stage_began_at = time.monotonic()
        self._wake = asyncio.Event()
        self._closing = False
        self._sender = self._loop.create_task(self._send_all(send)) if send is not None else None

    def stage(self, stage: Stage) -> None:
        """Enter `stage`; the log names it too."""
        enter_stage(stage)
        self._stage_began_at = time.monotonic()
        self._put({"stage": stage}, SHARES[stage][0])

    def step(self, done: int, total: int, *, preview: str | None = None, **frames: int) -> None:
        """`done` of `total` denoising steps are done; `frames` may hold `frame` and `total_frames`."""
        low, high = SHARES["denoising"]
        elapsed_s = time.monotonic() - self._stage_began_at
        update: Update = {"stage": "denoising", "step": done, "total_steps": total, **frames}
        update["eta_seconds"] = round(elapsed_s / done * (total - done), 1) if done else None
        if preview is not None:
            update["preview"] = preview
            self._preview_at = time.monotonic()
        self._put({k: v for k, v in update.items() if v is not None}, low + (high - low) * done / total)

    def relay(self, update: Update) -> None:
        """Report a twin's progress as this job's own. It came through Redis: what is no progress is dropped."""
        stage, reached = update.get("stage"), update.get("progress")
        if isinstance(stage, str) and stage in SHARES and _is_number(reached) and 0 <= reached <= 1:
            counts = {name: update[name] for name in RELAYED if _is_number(update.get(name))}
            self._put({"stage": stage, **counts}, float(reached))

    def also_tell(self, listener: Callable[[Update], None]) -> None:
        """Pass every further update to `listener` too, without its preview, on the event loop."""
        self._listener = listener

    def wants_preview(self) -> bool:
        """Whether the last preview is old enough for another, which leaves with the next update."""
        return self._send is not None and time.monotonic() - self._preview_at >= self._min_interval_s

    async def close(self) -> None:
        """End the stream; no update leaves afterwards."""
        if self._sender is None:
            return
        self._closing = True
        self._wake.set()
        done, _ = await asyncio.wait({self._sender}, timeout=self._close_within_s)
        if not done:
            self._sender.cancel()
            await asyncio.wait({self._sender})

    def _put(self, update: Update, reached: float) -> None:
        with self._lock:
            self._reached = max(self._reached, reached)
            update["progress"] = round(self._reached, 4)
        if self._listener is not None:
            shared = {name: value for name, value in update.items() if name != "preview"}
            self._loop.call_soon_threadsafe(self._listener, shared)
        if self._send is None:
            return
        with self._lock:
            if self._waiting and self._waiting[-1]["stage"] == update["stage"]:
                unseen = {"preview": self._waiting[-1]["preview"]} if "preview" in self._waiting[-1] else {}
                self._waiting[-1] = unseen | update
            else:
                self._waiting.append(update)
        self._loop.call_soon_threadsafe(self._wake.set)

    async def _send_all(self, send: Send) -> None:
        last_stage: str | None = None
        while not self._closing:
            update, wait_s = self._take(last_stage)
            if update is None:
                await self._woken_within(wait_s)
            else:
                last_stage = update["stage"]
                await self._deliver(send, update)

    def _take(self, last_stage: str | None) -> tuple[Update | None, float | None]:
        """The next update that may leave now; or None and the seconds until the waiting one may leave."""
        with self._lock:
            while self._waiting:
                is_latest = len(self._waiting) == 1
                wait_s = self._due_at(self._waiting[0]["stage"], last_stage, is_latest=is_latest) - time.monotonic()
                if wait_s <= 0:
                    return self._waiting.pop(0), None
                if is_latest:
                    return None, wait_s
                self._waiting.pop(0)  # a later stage has begun
        return None, None

    def _due_at(self, stage: Stage, last_stage: str | None, *, is_latest: bool) -> float:
        if stage == last_stage:
            return self._sent_at + self._min_interval_s
        return self._began_at + QUIET_S if stage == "queued" and is_latest else float("-inf")

    async def _woken_within(self, wait_s: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._wake.wait()
        self._wake.clear()

    async def _deliver(self, send: Send, update: Update) -> None:
        self._sent_at = time.monotonic()
        self._seq += 1
        try:
            await send({**update, "seq": self._seq})
        except (OSError, TimeoutError, ValueError) as error:  # all that aiohttp raises for the network
            log.debug("progress update dropped", extra={"detail": type(error).__name__})


def _is_number(value: object) -> TypeGuard[int | float]:
    """Whether an update can hold it: JSON has no NaN and no infinity."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9
