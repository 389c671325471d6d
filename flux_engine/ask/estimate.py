"""What a job would cost, as the answer to `op: estimate`: effective parameters, work, seconds, money. Makes nothing.

Seconds come from what such jobs took, where there were any, and from the plan's arithmetic elsewhere; the answer says
which. They are of the job itself, without a wait for other jobs or for a worker to start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from flux_engine.ask.speed import Expected, Speeds
from flux_engine.job.base import JsonObject
from flux_engine.job.image import ImageJob
from flux_engine.job.video import VideoJob
from flux_engine.job.work import passes_of, pictures_of, steps_of, work_of
from flux_engine.models.planning.cold_start import cold_start
from flux_engine.models.planning.estimate import reference_pixels
from flux_engine.models.planning.gpus import Speed
from flux_engine.models.planning.plan import MIN_CACHED_STEPS, Plan
from flux_engine.models.planning.seconds import picture_time, way_of
from flux_engine.models.spec import ModelSpec

Presence = Literal["here", "missing", "to_be_fetched"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A model's plan, and the rates of the card that it runs on."""

    spec: ModelSpec
    plan: Plan
    speed: Speed | None = None

    def expected(self, job: ImageJob | VideoJob) -> Expected | None:
        """Seconds by the plan's arithmetic; None where the card's rates are not known.

        A prompt is encoded once, each picture denoised and decoded; references are seen in every step.
        """
        if self.speed is None:
            return None
        pictures, steps = pictures_of(job), steps_of(job) * passes_of(job)
        is_cached = job.num_inference_steps >= MIN_CACHED_STEPS and passes_of(job) == 1
        way = way_of(self.plan, self.spec, is_cached=is_cached)
        references = len(job.images) if isinstance(job, ImageJob) and job.images else int(job.image is not None)
        time = picture_time(
            self.spec,
            self.speed,
            self.plan.parts,
            way,
            steps=steps / pictures,
            pixels=job.width * job.height,
            seen_pixels=reference_pixels(self.spec, count=references),
        )
        slot = time.slot if job.loras and self.plan.compile else 0.0
        return Expected(time.text + pictures * (time.total - time.text + slot), "planned", 0)

    def loading_s(self) -> float:
        """Of a worker that starts with a network volume where others have run before."""
        return cold_start(self.plan, self.spec, storage="volume", is_first=False).total


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What is known of a job without making or fetching anything.

    `cached` is None where that cannot be known: the fingerprint needs a picture or LoRA that would have to be fetched.
    `has_pictures`: those that the job brings are here, so that it has the shape of the first.
    """

    is_on_volume: bool
    is_loaded: bool
    cached: bool | None
    loras: Sequence[Presence]
    has_pictures: bool = True


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
            {"path": lora.shown()["path"], "state": presence}
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
    gives_shape = job.image is not None or (isinstance(job, ImageJob) and job.images is not None)
    if job.is_size_open and gives_shape and not state.has_pictures:
        said.append(
            f"the size follows the shape of the job's picture, which was not looked at: {job.width}x{job.height} is "
            f"{job.model}'s own"
        )
    if state.cached is None and job.cache:
        said.append("whether the cache has the result is not known before its pictures and LoRAs are fetched")
    if warm is None:
        said.append("no job of this model was measured yet, and the card's rates are not known: no seconds are given")
    return said


def _rounded(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)
