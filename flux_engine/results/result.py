"""One job on its way: what belongs to it alone, where its time goes, and the result that it ends in."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from flux_engine.cache.flight import Flight
from flux_engine.inputs.fetcher import JobInputs
from flux_engine.job.base import JsonObject
from flux_engine.job.fingerprint import ModelIdentity
from flux_engine.job.image import ImageJob
from flux_engine.job.video import VideoJob
from flux_engine.progress import Progress
from flux_engine.results.delivery import as_utc
from flux_engine.results.entry import CacheEntry
from flux_engine.results.store import NewFile, ResultStore

TIMINGS: Final = ("total", "load", "lora", "text", "denoise", "decode", "encode", "upload")
EXECUTION_TIMEOUT_S: Final = 600.0  # the platform's default; what a job's policy says instead is not seen here
NEAR_TIMEOUT: Final = 0.6


@dataclass(slots=True)
class Clock:
    """Where a job's time went, in milliseconds by part."""

    began: float = field(default_factory=time.perf_counter)
    spent: dict[str, float] = field(default_factory=lambda: dict.fromkeys(TIMINGS, 0.0))
    cold_start: dict[str, float] = field(default_factory=dict)  # of the job that the model was loaded for

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.spent[part] += (time.perf_counter() - began) * 1000

    def total_ms(self) -> int:
        return round((time.perf_counter() - self.began) * 1000)

    def stop(self) -> JsonObject:
        """The result's `timings`."""
        self.spent["total"] = (time.perf_counter() - self.began) * 1000
        return {f"{part}_ms": round(ms, 1) for part, ms in self.spent.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One job on its way, with everything that belongs to it alone."""

    job: ImageJob | VideoJob
    inputs: JobInputs
    model: ModelIdentity  # by the plan; a leaner one makes it where memory runs out
    fingerprint: str
    store: ResultStore
    progress: Progress
    clock: Clock
    place: int  # in the line for the GPU
    said: list[str] = field(default_factory=list)  # warnings that are this job's alone, not its result's


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeBy:
    """What made a job's files, and how: the plan as it took effect."""

    identity: ModelIdentity
    plan: JsonObject
    can_preview: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A job's files, described and, where they were just made, at hand by their keys."""

    entry: CacheEntry
    model: JsonObject
    at_hand: Mapping[str, bytes] = field(default_factory=dict)

    def files(self) -> list[NewFile]:
        """Those that are at hand, to be stored."""
        objects = {stored.key: stored for stored in self.entry.objects()}
        return [NewFile(key, data, objects[key].content_type) for key, data in self.at_hand.items()]


def result_of(
    run: Run, finished: Finished, flight: Flight, *, files: JsonObject, expires_at: datetime | None
) -> JsonObject:
    """The contract's result: a fresh object."""
    job, timings = run.job, run.clock.stop()
    said = [*job.warnings, *finished.entry.warnings, *run.said, *([flight.warning] if flight.warning else [])]
    if isinstance(job, VideoJob):
        said += timeout_warning(timings["total_ms"] / 1000)
    phases = {f"{name}_ms": round(ms, 1) for name, ms in run.clock.cold_start.items()}
    result: JsonObject = {
        **files,
        "seed": job.seed,
        "model": finished.model | ({"cold_start": phases} if phases else {}),
        "parameters": job.parameters(),
        "cached": flight.hit is not None,
        "timings": timings,
        "warnings": said,
    }
    if job.metadata is not None:
        result["metadata"] = job.metadata
    if expires_at is not None:
        result["expires_at"] = as_utc(expires_at)
    return result


def described(model: ModelIdentity) -> JsonObject:
    return {"id": model.id, "revision": model.revision, "precision": model.precision}


def timeout_warning(took_s: float) -> list[str]:
    """What to say of a video that took long: the platform ends a job without asking how far it has come."""
    if took_s < NEAR_TIMEOUT * EXECUTION_TIMEOUT_S:
        return []
    return [
        f"this video took {took_s:.0f} s, and by default the platform ends a job after {EXECUTION_TIMEOUT_S:.0f}; for "
        "longer ones raise `executionTimeout` in the job's `policy`, or lower `generated_fps`"
    ]
