"""What a job would cost, as the answer to `op: estimate`: effective parameters, work, seconds, money. Makes nothing.

Seconds come from what such jobs took, where there were any, and from the plan's arithmetic elsewhere; the answer says
which. They are of the job itself, without a wait for other jobs or for a worker to start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from flux_engine.ask.speed import Expected, Speeds
from flux_engine.job.base import JsonObject
from flux_engine.job.image import ImageJob
from flux_engine.job.validation import shown_source
from flux_engine.job.video import VideoJob
from flux_engine.job.work import passes_of, steps_of, work_of
from flux_engine.models.planning.plan import Plan
from flux_engine.models.spec import ModelSpec

VOLUME_BYTES_PER_S: Final = 3e8  # docs/facts.md: 200 to 400 MB/s from a network volume
IMPORTS_S: Final = 10.0  # torch, diffusers, and the context on the card

Presence = Literal["here", "missing", "to_be_fetched"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A model's plan, and what its arithmetic expects of one picture of the model's own size with the job's steps."""

    spec: ModelSpec
    plan: Plan
    picture_s: float | None = None

    def expected(self, job: ImageJob | VideoJob) -> Expected | None:
        """Seconds by arithmetic, in proportion to pixels and steps; None where the card's rates are not known."""
        if self.picture_s is None:
            return None
        share = job.width * job.height / self.spec.limits.side**2
        steps = steps_of(job) * passes_of(job) / job.num_inference_steps
        return Expected(steps * share * self.picture_s, "planned", 0)

    def loading_s(self) -> float:
        return sum(part.bytes for part in self.plan.parts) / VOLUME_BYTES_PER_S + IMPORTS_S


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What is known of a job without making or fetching anything.

    `cached` is None where that cannot be known: the fingerprint needs a picture or LoRA that would have to be fetched.
    """

    is_on_volume: bool
    is_loaded: bool
    cached: bool | None
    loras: Sequence[Presence]


def estimate(
    job: ImageJob | VideoJob,
    state: State,
    *,
    speeds: Speeds,
    planned: Planned | None,
    price_per_hour: float | None = None,
) -> JsonObject:
    """The answer."""
    warm = speeds.expected(job) or (planned.expected(job) if planned is not None else None)
    loading_s = speeds.loading_s()
    if loading_s is None and planned is not None:
        loading_s = planned.loading_s()
    cold_s = warm.seconds + loading_s if warm is not None and loading_s is not None else None
    answer: JsonObject = {
        "op": "estimate",
        "parameters": job.parameters(),
        "warnings": [*job.warnings, *_said(job, state, warm)],
        "model": {"id": job.model, "is_on_volume": state.is_on_volume, "is_loaded": state.is_loaded},
        "work": work_of(job),
        "seconds": {
            "warm": _rounded(warm.seconds if warm is not None else None),
            "cold": _rounded(cold_s),
            "source": warm.source if warm is not None else None,
            "samples": warm.samples if warm is not None else 0,
        },
        "plan": planned_in_short(planned.plan) if planned is not None else None,
        "cached": state.cached,
        "loras": [
            {"path": shown_source(lora.path), "state": presence}
            for lora, presence in zip(job.loras, state.loras, strict=True)
        ],
    }
    if price_per_hour is not None:
        price = price_per_hour / 3600
        answer["cost_usd"] = {
            "warm": 0.0 if state.cached else _rounded(warm.seconds * price if warm is not None else None, 8),
            "cold": 0.0 if state.cached else _rounded(cold_s * price if cold_s is not None else None, 8),
        }
    return answer


def planned_in_short(plan: Plan) -> JsonObject:
    """A plan in a few words: the card, how the model runs on it, and the seconds of one picture by arithmetic."""
    return {
        "model": plan.model,
        "gpu": plan.gpu,
        "profile": plan.profile,
        "fits": plan.fits,
        "summary": plan.line(),
        "seconds": plan.seconds,
    }


def _said(job: ImageJob | VideoJob, state: State, warm: Expected | None) -> list[str]:
    said = []
    for number, presence in enumerate(state.loras):
        if presence == "missing":
            said.append(f"`loras[{number}]` is not on the volume: the job would be refused")
    if not state.is_on_volume:
        said.append(f"{job.model} is not on the volume: the job would fail")
    if state.cached is None and job.cache:
        said.append("whether the cache has the result is not known before its pictures and LoRAs are fetched")
    if warm is None:
        said.append("no job of this model was measured yet, and the card's rates are not known: no seconds are given")
    return said


def _rounded(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)
