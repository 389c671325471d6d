"""An endpoint by simulation: jobs that arrive by chance, workers that start, idle and end, what is waited and paid.

    outcome = simulate(worker, fleet, load)      # each a frozen value; the same seed gives the same outcome

One event at a time, no clock, no process: an hour of 10,000 jobs a minute takes seconds. What it takes as given is
measured or published, and said beside each figure where it is used (scale.py). It knows one model, one kind of card and
jobs of one length; it leaves out what fails: lost workers, and limits of Redis, gateway and bucket.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

TakeWhen = Literal["slot free", "gpu free"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerKind:
    """How one worker works, in seconds. A worker with one slot delivers before it takes; with two it delivers beside
    the next job, which it takes as soon as a slot is free, or only when the GPU is."""

    name: str
    first_look_s: float  # from the process's start to its first look for a job
    load_s: float  # what the first job that is made waits for beyond: imports and weights that come late
    gpu_s: float  # a picture on the GPU
    deliver_s: float  # encoding, upload, posting
    idle_s: float = 0.0  # between a delivered job and the next look
    slots: int = 1
    takes_when: TakeWhen = "gpu free"
    hit_s: float | None = None  # a repeat that the cache answers; None: it is made again
    hits_need_no_worker: bool = False  # a gateway answers them


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The workers of an endpoint, and how they come and go. `min_workers` stay; `max_workers` of them, and
    `idle_timeout_s` of infinity: cards of one's own."""

    max_workers: int
    min_workers: int = 0
    scale_after_s: float = 4.0  # a job waits that long before another worker is started for it
    container_start_s: float = 8.0
    idle_timeout_s: float = 5.0
    flashboot_share: float = 0.0  # of the starts that wake a frozen worker, with its model loaded
    flashboot_s: float = 1.0
    price_per_hour: float = 0.0  # of one worker, from its container's start to its end


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is asked: jobs a minute at random moments, for so long, `burst` times as many in the first tenth of every
    `burst_every_s`."""

    jobs_per_minute: float
    minutes: float
    hit_share: float = 0.0
    burst: float = 1.0
    burst_every_s: float = 300.0
    seed: int = 7

    def arrivals(self) -> Iterator[tuple[float, bool]]:
        """Moments, and whether the job repeats an earlier one."""
        chance = random.Random(self.seed)
        rate = self.jobs_per_minute / 60
        calm = rate / (0.9 + 0.1 * self.burst)  # so that the mean stays the one asked for
        now, end = 0.0, self.minutes * 60
        while True:
            is_burst = now % self.burst_every_s < self.burst_every_s / 10
            now += chance.expovariate(calm * (self.burst if is_burst else 1.0))
            if now >= end:
                return
            yield now, chance.random() < self.hit_share


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of it. `waits_s`: from arrival to the delivered result."""

    waits_s: tuple[float, ...]
    made: int
    cold_starts: int
    most_workers: int
    gpu_busy_s: float
    worker_s: float
    price_per_hour: float

    @property
    def jobs(self) -> int:
        return len(self.waits_s)

    @property
    def gpu_share(self) -> float:
        """Of the paid time, how much the GPU was busy."""
        return self.gpu_busy_s / self.worker_s if self.worker_s else 0.0

    @property
    def paid_s_per_1000(self) -> float:
        """Worker seconds that 1,000 jobs took, idling and starting included."""
        return 1000 * self.worker_s / max(1, self.jobs)

    @property
    def money_per_1000(self) -> float:
        return self.paid_s_per_1000 / 3600 * self.price_per_hour

    def wait_s(self, share: float) -> float:
        """The wait that `share` of the jobs stay below; nearest rank."""
        ordered = sorted(self.waits_s)
        return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def simulate(kind: WorkerKind, fleet: Fleet, load: Load) -> Outcome:
    """Run `load` to its last result. Workers beyond `min_workers` are paid until they would have ended."""
    endpoint = _Endpoint(kind, fleet, random.Random(load.seed + 1))
    for _ in range(fleet.min_workers):
        endpoint.start(at=0.0, is_warm=True)
    for moment, is_repeat in load.arrivals():
        endpoint.at(moment, partial(endpoint.arrive, moment, is_repeat=is_repeat))
    return endpoint.run(until=load.minutes * 60)


@dataclass(slots=True)
class _Worker:
    number: int
    began: float
    is_loaded: bool
    is_up: bool = False
    is_listed: bool = False  # among those that may ask for a job
    in_flight: int = 0
    gpu_free_at: float = 0.0
    idle_since: float = 0.0
    ended: float | None = None


@dataclass(frozen=True, slots=True)
class _Job:
    arrived: float
    is_repeat: bool


@dataclass(slots=True)
class _Endpoint:
    kind: WorkerKind
    fleet: Fleet
    chance: random.Random
    now: float = 0.0
    waits_s: list[float] = field(default_factory=list)
    made: int = 0
    cold_starts: int = 0
    most_workers: int = 0
    gpu_busy_s: float = 0.0
    _events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _waiting: deque[_Job] = field(default_factory=deque)
    _workers: dict[int, _Worker] = field(default_factory=dict)  # by number, running or starting
    _asking: list[_Worker] = field(default_factory=list)
    _starting: int = 0
    _gone_s: float = 0.0

    def at(self, moment: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (moment, next(self._numbers), act))

    def run(self, *, until: float) -> Outcome:
        while self._events:
            self.now, _, act = heapq.heappop(self._events)
            act()
        end = max(self.now, until)
        return Outcome(
            waits_s=tuple(self.waits_s),
            made=self.made,
            cold_starts=self.cold_starts,
            most_workers=self.most_workers,
            gpu_busy_s=self.gpu_busy_s,
            worker_s=self._gone_s + sum(end - worker.began for worker in self._workers.values()),
            price_per_hour=self.fleet.price_per_hour,
        )

    def arrive(self, moment: float, *, is_repeat: bool) -> None:
        if is_repeat and self.kind.hits_need_no_worker and self.kind.hit_s is not None:
            self.waits_s.append(self.kind.hit_s)
            return
        job = _Job(moment, is_repeat)
        self._waiting.append(job)
        self._hand_out()
        if self._waiting:
            self.at(moment + self.fleet.scale_after_s, lambda: self._scale(job))

    def start(self, *, at: float, is_warm: bool = False) -> None:
        """A worker begins to be paid; it takes jobs once it has started."""
        is_woken = is_warm or self.chance.random() < self.fleet.flashboot_share
        worker = _Worker(number=next(self._numbers), began=at, is_loaded=is_woken)
        self._workers[worker.number] = worker
        self._starting += 1
        self.most_workers = max(self.most_workers, len(self._workers))
        self.cold_starts += not is_woken
        starting_s = self.fleet.container_start_s + self.kind.first_look_s
        ready_at = at if is_warm else at + (self.fleet.flashboot_s if is_woken else starting_s)
        self.at(ready_at, lambda: self._look(worker))

    def _scale(self, job: _Job) -> None:
        """`job` still waits after the delay: one more worker for it, unless enough are starting."""
        if not self._waiting or self._waiting[0].arrived > job.arrived or len(self._workers) >= self.fleet.max_workers:
            return
        starting = self._starting
        if (
            starting < len(self._waiting)
            and self.now - self._waiting[starting].arrived >= self.fleet.scale_after_s - 1e-9
        ):
            self.start(at=self.now)

    def _look(self, worker: _Worker) -> None:
        worker.is_up = True
        self._starting -= 1
        worker.idle_since = self.now
        self._offer(worker)
        self._idle(worker)

    def _offer(self, worker: _Worker) -> None:
        """`worker` may have room now."""
        if not worker.is_listed and worker.ended is None:
            worker.is_listed = True
            self._asking.append(worker)
        self._hand_out()

    def _hand_out(self) -> None:
        """Waiting jobs to workers that ask for one: all of them ask at once, so chance decides."""
        while self._waiting and self._asking:
            place = self.chance.randrange(len(self._asking))
            self._asking[place], self._asking[-1] = self._asking[-1], self._asking[place]
            worker = self._asking[-1]
            if self._has_room(worker):
                self._begin(worker, self._waiting.popleft())
            else:
                worker.is_listed = False
                self._asking.pop()

    def _has_room(self, worker: _Worker) -> bool:
        is_gpu_free = worker.gpu_free_at <= self.now or self.kind.takes_when == "slot free"
        return worker.ended is None and worker.in_flight < self.kind.slots and is_gpu_free

    def _begin(self, worker: _Worker, job: _Job) -> None:
        worker.in_flight += 1
        if job.is_repeat and self.kind.hit_s is not None:
            self.at(self.now + self.kind.hit_s, lambda: self._delivered(worker, job))
            return
        begins_at = max(self.now, worker.gpu_free_at)
        gpu_s = self.kind.gpu_s + (0.0 if worker.is_loaded else self.kind.load_s)
        worker.is_loaded = True
        worker.gpu_free_at = begins_at + gpu_s
        self.made += 1
        self.gpu_busy_s += self.kind.gpu_s
        if self.kind.slots > 1:
            self.at(worker.gpu_free_at, lambda: self._offer(worker))
        self.at(worker.gpu_free_at + self.kind.deliver_s, lambda: self._delivered(worker, job))

    def _delivered(self, worker: _Worker, job: _Job) -> None:
        self.waits_s.append(self.now - job.arrived)
        self.at(self.now + (self.kind.idle_s if self.kind.slots == 1 else 0.0), lambda: self._free(worker))

    def _free(self, worker: _Worker) -> None:
        worker.in_flight -= 1
        worker.idle_since = self.now
        self._offer(worker)
        self._idle(worker)

    def _idle(self, worker: _Worker) -> None:
        if worker.in_flight == 0 and math.isfinite(self.fleet.idle_timeout_s):
            since = worker.idle_since
            self.at(self.now + self.fleet.idle_timeout_s, lambda: self._end_if_idle(worker, since))

    def _end_if_idle(self, worker: _Worker, since: float) -> None:
        is_idle = worker.in_flight == 0 and worker.idle_since == since and worker.ended is None
        if is_idle and len(self._workers) > self.fleet.min_workers:
            worker.ended = self.now
            del self._workers[worker.number]
            self._gone_s += self.now - worker.began
