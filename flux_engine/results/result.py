"""The result of a job as a value, and its size on the way to the platform."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from flux_engine.errors import ContentFiltered
from flux_engine.job.base import JsonObject
from flux_engine.job.fingerprint import ModelIdentity
from flux_engine.job.image import ImageJob
from flux_engine.job.video import VideoJob
from flux_engine.job.work import work_of
from flux_engine.results.delivery import Delivery
from flux_engine.results.entry import CacheEntry
from flux_engine.results.files import ResultFiles
from flux_engine.timings import Clock

EXECUTION_TIMEOUT_S: Final = 600.0  # the platform's default; what a job's policy says instead is not seen here
NEAR_TIMEOUT: Final = 0.6
ENVELOPE_BYTES: Final = 16_384  # what the SDK and the platform put around a result
SMALL_BYTES: Final = 128 * 1024  # base64 of that many takes 0.15 ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a client gets: `facts` is the contract's JSON with each `b64_json` empty, and `inline` holds the bytes that
    belong there, in order. Bytes become base64 once, in `to_json`; the size is known without it."""

    facts: JsonObject
    inline: tuple[bytes, ...] = ()

    def size_bytes(self) -> int:
        """Bytes of the result on its way to the platform. Raises ValueError for what JSON cannot hold."""
        text = json.dumps(self.facts, allow_nan=False, ensure_ascii=False)
        return len(text.encode()) + sum(-(-len(data) // 3) * 4 for data in self.inline) + ENVELOPE_BYTES

    def is_small(self) -> bool:
        """Whether `to_json` takes no longer than the way to a thread and back."""
        return sum(len(data) for data in self.inline) <= SMALL_BYTES

    def delivered_as(self, delivery: Delivery, *, parameters: JsonObject, warning: str) -> Result:
        """The same job's files handed over in another way, with the parameters that changed and why."""
        changed = {
            **self.facts,
            **delivery.said,
            "parameters": self.facts["parameters"] | parameters,
            "warnings": [*self.facts["warnings"], warning],
        }
        return Result(facts=changed | _expiry(delivery), inline=delivery.inline)

    def to_json(self) -> JsonObject:
        """A fresh dictionary for the platform. Base64 of megabytes takes time: call it on a thread unless the result
        is small."""
        texts = (base64.b64encode(data).decode() for data in self.inline)
        if "images" in self.facts:
            return self.facts | {"images": [_filled(image, texts) for image in self.facts["images"]]}
        return self.facts | {name: _filled(self.facts[name], texts) for name in ("video", "thumbnail")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A job's files, the result's description of what made them, and what is to be said to this client alone."""

    files: ResultFiles
    model: JsonObject
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reuse:
    """What the cache did for a job."""

    cached: bool
    warning: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What a result tells of how it came about."""

    model: JsonObject
    cached: bool
    timings: JsonObject
    usage: JsonObject
    warnings: tuple[str, ...]
    enhanced_prompt: str | None = None
    withheld: tuple[JsonObject, ...] = ()


def account_of(
    job: ImageJob | VideoJob, finished: Finished, clock: Clock, *, reuse: Reuse, gpu_price_per_hour: float | None
) -> Account:
    """`clock` stops here."""
    timings, cold_start = clock.timings(), clock.cold_start()
    said = [*job.warnings, *finished.files.entry.warnings, *finished.notes]
    if reuse.warning is not None:
        said.append(reuse.warning)
    if isinstance(job, VideoJob):
        said += timeout_warning(timings["total_ms"] / 1000)
    return Account(
        model=finished.model | ({"cold_start": cold_start} if cold_start else {}),
        cached=reuse.cached,
        timings=timings,
        usage=_usage(work_of(job) if clock.gpu_s else 0, clock.gpu_s, gpu_price_per_hour),
        warnings=tuple(said),
        enhanced_prompt=finished.files.entry.enhanced_prompt,
        withheld=withheld_of(finished.files.entry),
    )


def result_of(job: ImageJob | VideoJob, delivery: Delivery, account: Account) -> Result:
    """The contract's result."""
    facts: JsonObject = {
        **delivery.said,
        "seed": job.seed,
        "model": account.model,
        "parameters": job.parameters(),
        "cached": account.cached,
        "timings": account.timings,
        "usage": account.usage,
        "warnings": list(account.warnings),
    }
    if account.enhanced_prompt is not None:
        facts["enhanced_prompt"] = account.enhanced_prompt
    if account.withheld:
        facts["withheld"] = list(account.withheld)
    if job.metadata is not None:
        facts["metadata"] = job.metadata
    return Result(facts=facts | _expiry(delivery), inline=delivery.inline)


def withheld_of(entry: CacheEntry) -> tuple[JsonObject, ...]:
    """What the result says of each picture that is not among its images."""
    return tuple({**each.model_dump(), "reason": ContentFiltered.code} for each in entry.withheld)


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


def _usage(work: float, gpu_s: float, gpu_price_per_hour: float | None) -> JsonObject:
    """The result's `usage`: what was generated for this job, and the time that it held the GPU."""
    usage: JsonObject = {"work": work, "gpu_seconds": round(gpu_s, 3)}
    if gpu_price_per_hour is not None:
        usage["cost_usd"] = round(gpu_s / 3600 * gpu_price_per_hour, 8)
    return usage


def _filled(file: JsonObject, texts: Iterator[str]) -> JsonObject:
    return file | {"b64_json": next(texts)} if "b64_json" in file else file


def _expiry(delivery: Delivery) -> dict[str, Any]:
    if delivery.expires_at is None:
        return {}
    return {"expires_at": _as_utc(delivery.expires_at)}


def _as_utc(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
