"""ModelOptimizer: from a GPU, a model and the operator's wishes to a Plan. Pure, and without torch.

It tries every way that the profile allows (way.py) and takes the one that is expected to be quickest of those that fit
the device with a margin; under `memory` the one that needs least. Of ways that cost the same the simplest wins. The
others, by memory, are what `Plan.leaner` steps down to when memory runs out after all.

- `quality` gives up no precision where any way without loss fits: its ways are ordered by loss first
- `balanced` may use 8-bit weights and a careful step cache, `speed` a bolder one: each allows all that the one before
  does, so none is slower
- `memory` avoids moving layer by layer as long as anything else fits: a picture would take minutes
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

from flux_engine.models.planning import estimate, seconds
from flux_engine.models.planning.anchors import has_run_of
from flux_engine.models.planning.gpus import NOMINAL_SPEED, GpuProperties
from flux_engine.models.planning.plan import Alternative, LoraMode, PartPlan, Plan, Preferences
from flux_engine.models.planning.reasons import reasons_of
from flux_engine.models.planning.way import Way, steps_of, ways
from flux_engine.models.spec import ModelSpec
from flux_engine.units import GIB

LEAST_STEP: Final = 0.05  # of the memory: a leaner plan that needs nearly as much would run out of it as well
HOST_SHARE: Final = 0.9  # the share of the host's memory that may be taken
CHOICES: Final[dict[str, Callable[[Way], object]]] = {
    "quantisation": lambda way: way.transformer,
    "text_quantisation": lambda way: way.text,
    "offload": lambda way: way.offload,
    "compile": lambda way: "yes" if way.is_compiled else "no",
    "step_cache": lambda way: "no" if way.threshold is None else f"{way.threshold:g}",
    "vae": lambda way: f"tiles of {way.tile_side}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptimizer:
    """Plans with a margin of the device's memory left free: a share of it, but at least some bytes."""

    margin_share: float = 0.05
    min_margin_bytes: int = 6 * GIB // 10

    def plan(self, gpu: GpuProperties, model: ModelSpec, preferences: Preferences | None = None) -> Plan:
        """The best plan that fits `gpu`; where nothing fits, the leanest one, with `fits` False."""
        wishes = preferences or Preferences()
        limit = gpu.free_bytes - max(int(gpu.total_bytes * self.margin_share), self.min_margin_bytes)
        asked = _Asked(gpu, model, wishes, limit)
        candidates = [_Candidate(way, asked) for way in ways(gpu, model, wishes)]
        fitting = sorted((one for one in candidates if one.fits), key=_order(wishes))
        if not fitting:
            return min(candidates, key=lambda one: one.peak_bytes).plan([])
        below: Plan | None = None
        for one in reversed(_ladder(fitting)):
            below = replace(one.plan(fitting), next_leaner=below)
        assert below is not None  # noqa: S101 - `fitting` is not empty
        return below


def _order(wishes: Preferences) -> Callable[[_Candidate], Any]:
    """What the profile wants least of first."""
    match wishes.profile:
        case "quality":
            return lambda one: (one.way.loss, one.seconds, one.way.complexity)
        case "memory":
            return lambda one: (one.way.offload == "sequential", one.peak_bytes, one.seconds, one.way.complexity)
        case _:
            return lambda one: (one.seconds, one.way.complexity)


def _ladder(fitting: list[_Candidate]) -> list[_Candidate]:
    """The first of `fitting`, and for each the next one that needs clearly less memory."""
    ladder = [fitting[0]]
    for one in fitting[1:]:
        if one.peak_bytes <= ladder[-1].peak_bytes * (1 - LEAST_STEP):
            ladder.append(one)
    return ladder


@dataclass(frozen=True, slots=True)
class _Asked:
    gpu: GpuProperties
    model: ModelSpec
    wishes: Preferences
    limit_bytes: int


@dataclass(frozen=True)
class _Candidate:
    """A way with what it takes."""

    way: Way
    asked: _Asked

    @cached_property
    def parts(self) -> tuple[PartPlan, ...]:
        return estimate.part_plans(self.asked.model, self.way)

    @cached_property
    def slot_bytes(self) -> int:
        return estimate.slot_bytes(self.asked.model, self.way.dtype) if self.way.is_compiled else 0

    @cached_property
    def resident_bytes(self) -> int:
        asked = self.asked
        weights = estimate.resident_bytes(asked.model, self.parts, self.way, gpu_count=asked.gpu.count)
        return weights + self.slot_bytes

    @cached_property
    def working_bytes(self) -> int:
        """Of the largest picture."""
        return self._working_bytes(pixels=self.asked.model.limits.max_pixels, batch=1)

    @property
    def peak_bytes(self) -> int:
        return self.resident_bytes + self.working_bytes

    @cached_property
    def host_bytes(self) -> int:
        return estimate.host_bytes(self.parts, self.way)

    @property
    def fits(self) -> bool:
        asked = self.asked
        return self.peak_bytes <= asked.limit_bytes and self.host_bytes <= asked.gpu.host_bytes * HOST_SHARE

    @cached_property
    def time(self) -> seconds.PictureTime:
        asked = self.asked
        return seconds.picture_time(
            asked.model,
            asked.gpu.speed or NOMINAL_SPEED,
            self.parts,
            replace(self.way, offload="none") if asked.gpu.is_cpu else self.way,  # nothing moves within one memory
            steps=steps_of(asked.model, asked.wishes),
            pixels=asked.model.limits.side**2,
        )

    @cached_property
    def seconds(self) -> float:
        return self.time.total

    def largest_batch(self) -> int:
        """Images of the model's own size in one call: as many as fit beside the weights."""
        asked = self.asked
        if self.way.threshold is not None or asked.gpu.is_cpu:
            return 1
        own = asked.model.limits.side**2
        left = asked.limit_bytes - self.resident_bytes
        counts = range(2, asked.wishes.max_batch + 1)
        return max((n for n in counts if self._working_bytes(pixels=own, batch=n) <= left), default=1)

    def alternatives(self, fitting: Iterable[_Candidate]) -> dict[str, Alternative]:
        """For each choice the best of `fitting` that makes it otherwise."""
        found: dict[str, Alternative] = {}
        for one in fitting:
            for choice, value_of in CHOICES.items():
                if choice not in found and value_of(one.way) != value_of(self.way):
                    found[choice] = Alternative(
                        value=str(value_of(one.way)),
                        seconds=one.seconds if self.asked.gpu.speed else None,
                        peak_bytes=one.peak_bytes,
                    )
        return found

    def plan(self, fitting: Iterable[_Candidate]) -> Plan:
        asked, way = self.asked, self.way
        lora_mode: LoraMode = "slot" if way.is_compiled else "adapters"
        speed = asked.gpu.speed
        plan = Plan(
            model=asked.model.name,
            gpu=asked.gpu.name,
            profile=asked.wishes.profile,
            fits=self.fits,
            dtype=way.dtype,
            parts=self.parts,
            offload=way.offload,
            attention=attention_backends(asked.gpu),
            compile=way.is_compiled,
            step_cache_threshold=way.threshold,
            vae_slicing=True,
            vae_tile_side=way.tile_side,
            lora_mode=lora_mode,
            largest_batch=self.largest_batch(),
            lora_bytes=self.slot_bytes,
            activation_bytes=self.working_bytes,
            peak_bytes=self.peak_bytes,
            limit_bytes=asked.limit_bytes,
            host_bytes=self.host_bytes,
            seconds=self.seconds if speed else None,
            lora_seconds=(self.time.slot if way.is_compiled else 0.0) if speed else None,
            origin=speed.shares.origin if speed and has_run_of(asked.model, way.offload) else None,
            reasons={},
            alternatives=self.alternatives(fitting),
        )
        return replace(plan, reasons=reasons_of(plan, asked.gpu, asked.model, asked.wishes))

    def _working_bytes(self, *, pixels: int, batch: int) -> int:
        asked = self.asked
        is_cpu = asked.gpu.is_cpu
        return estimate.working_bytes(asked.model, self.parts, self.way, pixels=pixels, batch=batch, is_cpu=is_cpu)


def attention_backends(gpu: GpuProperties) -> tuple[str, ...]:
    """diffusers' names of attention backends, fastest first; `native` is PyTorch's memory-efficient attention.

    Flash attention 3 and 4 from the hub are left out: they are code that a worker would download as it starts.
    """
    is_fast_in_cudnn = gpu.has_capability(9, 0) and not gpu.has_capability(11, 0)
    return ("_native_cudnn", "native") if is_fast_in_cudnn else ("native",)
