"""ModelOptimizer: from a GPU, a model and the operator's wishes to a Plan. Pure, and without torch.

For each profile there is a ladder of ways to run a model, best first. The plan is the first rung that fits the device
with a margin; the rungs below it that need less are what `Plan.leaner` steps down to when memory runs out after all.

Rules that no profile and no wish breaks
- dynamic quantisation only together with compilation (130 s against 3.4 s for int8 on an H100 without it)
- bfloat16 from compute capability 8.0, fp8 from 8.9
- compilation only where the blocks stay on the device while they run: no group or sequential offload, and no model
  offload of quantised weights, which torch cannot move once they are compiled
- no quantisation in float16: weight-only int8, which every scheme may fall back to, is multiplied as integers and
  scaled afterwards, which overflows it
- a step cache only for models of 20 steps and more, only without offloading, whose hooks put the blocks' own forward
  back after the first picture, and then one picture a call, since it decides for all at once
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from flux_engine.models.planning import estimate
from flux_engine.models.planning.estimate import Way
from flux_engine.models.planning.gpus import GpuProperties
from flux_engine.models.planning.plan import DYNAMIC, MIN_CACHED_STEPS, DType, LoraMode, Plan, Preferences
from flux_engine.models.planning.reasons import reasons_of
from flux_engine.models.spec import ModelSpec
from flux_engine.settings import Offload, Profile, Quantisation
from flux_engine.units import GIB

Rung = tuple[Quantisation, Quantisation, Offload]

SMALL_MODEL: Final = 1_000_000_000  # parameters: below it a compilation costs more than a GPU ever gets back
TILE_SIDES: Final[dict[Profile, tuple[int, ...]]] = {
    "quality": (2048, 1024, 512),
    "balanced": (1024, 512),
    "speed": (1024, 512),
    "memory": (512,),
}
STEP_CACHE_THRESHOLDS: Final[dict[Profile, float | None]] = {
    "quality": None,
    "balanced": 0.08,
    "speed": 0.12,
    "memory": None,
}
LEANEST: Final[tuple[Rung, ...]] = (
    ("int8_weight_only", "int8_weight_only", "model"),
    ("int8_weight_only", "int8_weight_only", "group"),
    ("int8_weight_only", "int8_weight_only", "sequential"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptimizer:
    """Plans with a margin of the device's memory left free: a share of it, but at least some bytes."""

    margin_share: float = 0.05
    min_margin_bytes: int = 6 * GIB // 10

    def plan(self, gpu: GpuProperties, model: ModelSpec, preferences: Preferences | None = None) -> Plan:
        """The best plan that fits `gpu`; where nothing fits, the leanest one, with `fits` False."""
        wishes = preferences or Preferences()
        plans = [self._plan_of(way, gpu, model, wishes) for way in _ways(gpu, model, wishes)]
        fitting = [plan for plan in plans if plan.fits]
        if not fitting:
            return min(plans, key=lambda plan: plan.peak_bytes)
        return _linked(fitting)

    def _plan_of(self, way: Way, gpu: GpuProperties, model: ModelSpec, wishes: Preferences) -> Plan:
        dtype = _dtype(gpu, model)
        is_compiled = _is_compiled(gpu, model, way.offload, wishes, quantisation=way.transformer)
        threshold = _step_cache_threshold(gpu, model, way, wishes)
        parts = estimate.part_plans(model, way, dtype)
        slot = estimate.slot_bytes(model, dtype) if is_compiled else 0
        resident = estimate.resident_bytes(model, parts, way, gpu_count=gpu.count) + slot
        limit = gpu.free_bytes - max(int(gpu.total_bytes * self.margin_share), self.min_margin_bytes)
        most = 1 if threshold or gpu.is_cpu else wishes.max_batch
        largest_batch = _largest_batch(model, way, dtype, limit - resident, most=most, is_cpu=gpu.is_cpu)
        activations = _activation_bytes(model, way, dtype, batch=1, is_cpu=gpu.is_cpu)
        host_bytes = estimate.host_bytes(parts, way.offload)
        steps = wishes.num_inference_steps or model.limits.num_inference_steps
        lora_mode: LoraMode = "slot" if is_compiled else "adapters"
        plan = Plan(
            model=model.name,
            gpu=gpu.name,
            profile=wishes.profile,
            fits=resident + activations <= limit and host_bytes <= gpu.host_bytes * 0.9,
            dtype=dtype,
            parts=parts,
            offload=way.offload,
            attention=_attention(gpu),
            compile=is_compiled,
            step_cache_threshold=threshold,
            vae_slicing=True,
            vae_tile_side=way.tile_side,
            lora_mode=lora_mode,
            largest_batch=largest_batch,
            lora_bytes=slot,
            activation_bytes=activations,
            peak_bytes=resident + activations,
            limit_bytes=limit,
            host_bytes=host_bytes,
            seconds=estimate.image_seconds(
                model,
                gpu,
                parts,
                way,
                dtype=dtype,
                is_compiled=is_compiled,
                steps=steps,
                has_step_cache=threshold is not None and steps >= MIN_CACHED_STEPS,
            ),
            reasons={},
        )
        return replace(plan, reasons=reasons_of(plan, gpu, model, wishes))


def _linked(plans: list[Plan]) -> Plan:
    """The first of `plans`, linked to those after it that need less memory than the one before."""
    ladder = [plans[0]]
    for plan in plans[1:]:
        if plan.peak_bytes < ladder[-1].peak_bytes:
            ladder.append(plan)
    below: Plan | None = None
    for plan in reversed(ladder):
        below = replace(plan, next_leaner=below)
    assert below is not None  # noqa: S101 - `plans` is not empty
    return below


# ------------------------------------------------------------------------------------------------ the ladder


def _ways(gpu: GpuProperties, model: ModelSpec, wishes: Preferences) -> list[Way]:
    """All ways to try, best first, with the operator's wishes in place of the ladder's choices."""
    rungs = _cpu_rungs(wishes.profile) if gpu.is_cpu else _gpu_rungs(gpu, model, wishes)
    dtype = _dtype(gpu, model)
    ways: dict[Way, None] = {}
    for transformer, text, offload in rungs:
        wished_offload = _wished_offload(gpu, wishes) or offload
        wanted = wishes.quantisation or transformer
        is_compiled = _is_compiled(gpu, model, wished_offload, wishes, quantisation=wanted)
        scheme = allowed_quantisation(wanted, gpu, dtype, is_compiled=is_compiled)
        # A text encoder is not compiled, so only weight-only quantisation is open to it.
        text_scheme = allowed_quantisation(wishes.text_quantisation or text, gpu, dtype, is_compiled=False)
        for tile_side in TILE_SIDES[wishes.profile]:
            way = Way(transformer=scheme, text=text_scheme, offload=wished_offload, tile_side=tile_side)
            ways[way] = None
    return list(ways)


def _cpu_rungs(profile: Profile) -> tuple[Rung, ...]:
    plain: Rung = ("none", "none", "none")
    small: Rung = ("int8_weight_only", "int8_weight_only", "none")
    return (small,) if profile == "memory" else (plain, small)


def _gpu_rungs(gpu: GpuProperties, model: ModelSpec, wishes: Preferences) -> tuple[Rung, ...]:
    fast = _fast_quantisation(gpu)
    small: Quantisation = "int8_weight_only"
    if model.transformer.parameters < SMALL_MODEL:
        return (("none", "none", "none"), *LEANEST)
    over_cards: tuple[Rung, ...] = (("none", "none", "balanced"),) if gpu.count > 1 else ()
    match wishes.profile:
        case "quality":
            whole: tuple[Rung, ...] = (("none", "none", "none"), ("none", small, "none"))
            offloaded: tuple[Rung, ...] = (("none", "none", "model"), ("none", small, "model"))
            return (*whole, *over_cards, *offloaded, (small, small, "none"), ("none", "none", "group"), *LEANEST)
        case "balanced":
            whole = (("none", "none", "none"), ("none", small, "none"))
            return (*whole, *over_cards, (fast, small, "none"), (fast, small, "model"), *LEANEST)
        case "speed":
            return ((fast, "none", "none"), (fast, small, "none"), *over_cards, (fast, small, "model"), *LEANEST)
        case "memory":
            return LEANEST


def _fast_quantisation(gpu: GpuProperties) -> Quantisation:
    """What runs the card's fast 8-bit matrix units."""
    if gpu.has_capability(8, 9):
        return "fp8_dynamic"
    return "int8_dynamic" if gpu.has_capability(8, 0) else "int8_weight_only"


def allowed_quantisation(wanted: Quantisation, gpu: GpuProperties, dtype: DType, *, is_compiled: bool) -> Quantisation:
    """`wanted`, or the nearest that the hardware and the rules allow."""
    if wanted == "fp8_dynamic" and not gpu.has_capability(8, 9):
        wanted = "int8_dynamic"
    if dtype == "float16":
        return "none"
    return "int8_weight_only" if wanted in DYNAMIC and not is_compiled else wanted


def _wished_offload(gpu: GpuProperties, wishes: Preferences) -> Offload | None:
    """The offload asked for; `balanced` needs several cards, and a CPU can run group offload alone."""
    if wishes.offload == "balanced" and gpu.count < 2:
        return None
    if gpu.is_cpu and wishes.offload not in ("none", "group"):
        return None
    return wishes.offload


# ------------------------------------------------------------------------------------------- single choices


def _dtype(gpu: GpuProperties, model: ModelSpec) -> DType:
    if gpu.is_cpu:
        # Small models are exact in float32 and as quick; of large ones the memory counts.
        return "float32" if model.parameters < SMALL_MODEL else "bfloat16"
    if gpu.has_capability(8, 0):
        return "bfloat16"
    return "float16" if model.is_float16_safe else "float32"


def _is_compiled(
    gpu: GpuProperties, model: ModelSpec, offload: Offload, wishes: Preferences, *, quantisation: Quantisation
) -> bool:
    if offload not in ("none", "model") or (not gpu.is_cpu and not gpu.has_capability(7, 0)):
        return False
    if offload == "model" and quantisation != "none":
        return False  # the compiler keeps weak references to quantised weights, which then cannot be moved
    if wishes.compile is not None:
        return wishes.compile
    is_worth_it = model.transformer.parameters >= SMALL_MODEL and gpu.has_capability(8, 0)
    return is_worth_it and wishes.profile != "memory"


def _step_cache_threshold(gpu: GpuProperties, model: ModelSpec, way: Way, wishes: Preferences) -> float | None:
    """Share by which a block's output may change before it is computed anew; None: always computed."""
    steps = wishes.num_inference_steps or model.limits.num_inference_steps
    if steps < MIN_CACHED_STEPS or way.offload != "none" or model.is_modular:
        return None
    usual = STEP_CACHE_THRESHOLDS[wishes.profile]
    if wishes.step_cache is None:
        return None if gpu.is_cpu else usual
    return (usual or 0.08) if wishes.step_cache else None


def _attention(gpu: GpuProperties) -> tuple[str, ...]:
    """diffusers' names of attention backends, fastest first; `native` is PyTorch's memory-efficient attention.

    Not the kernels of the hub (flash attention 3 and 4): they are code that a worker would download as it starts.
    """
    is_fast_in_cudnn = gpu.has_capability(9, 0) and not gpu.has_capability(11, 0)
    return ("_native_cudnn", "native") if is_fast_in_cudnn else ("native",)


def _largest_batch(model: ModelSpec, way: Way, dtype: DType, left_bytes: int, *, most: int, is_cpu: bool) -> int:
    """Images of the model's own size in one call: as many as fit in `left_bytes` beside the weights."""
    sizes = {n: _activation_bytes(model, way, dtype, batch=n, is_cpu=is_cpu) for n in range(1, most + 1)}
    return max((n for n, size in sizes.items() if size <= left_bytes), default=1)


def _activation_bytes(model: ModelSpec, way: Way, dtype: DType, *, batch: int, is_cpu: bool) -> int:
    """For the largest picture by itself, or for `batch` of the model's own size."""
    largest, usual = model.limits.max_pixels, model.limits.side**2
    return max(
        estimate.activation_bytes(model, dtype, pixels=pixels, tile_side=way.tile_side, batch=n, is_cpu=is_cpu)
        for pixels, n in ((largest, 1), (usual, batch))
    )
