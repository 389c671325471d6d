"""Sections that make pictures: `plain` diffusers, `ours` by its plans, and what single choices of ours cost or gain.

Plans are made for the card at hand, as a worker makes them, and carried out by `apply`; text encoders are left out and
measured by the section `offload`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any, Final

import torch

from benchmarks.gpu_sections.bench import Bench
from benchmarks.gpu_sections.clock import Timed, painted, seconds_of, timed_picture
from benchmarks.gpu_sections.random_flux import pipeline_of, transformer, velocity
from flux_engine.models.lora.manager import LoRAManager
from flux_engine.models.planning.estimate import part_plans
from flux_engine.models.planning.optimizer import ModelOptimizer
from flux_engine.models.planning.plan import MIN_CACHED_STEPS, Plan, Preferences
from flux_engine.models.planning.seconds import PICTURE_S, picture_time
from flux_engine.models.planning.way import Way
from flux_engine.models.tuning.apply import AppliedPlan, apply
from flux_engine.models.tuning.quantisation import loading
from flux_engine.models.tuning.step_cache import WARMUP_STEPS, cached_steps
from flux_engine.settings import Quantisation

MOST_ERROR: Final = 0.1  # of a velocity, relative, by 8 bits
ALWAYS_CACHED: Final = 1e9  # a threshold that no change exceeds


def plain(bench: Bench) -> None:
    """diffusers as its documentation has it: the pipeline, then its recipe for compilation."""
    bench.attempt("plain, eager", lambda: _plain(bench, is_compiled=False))
    bench.attempt("plain, compiled", lambda: _plain(bench, is_compiled=True))


def _plain(bench: Bench, *, is_compiled: bool) -> None:
    scale = bench.scale
    pipeline = pipeline_of(scale)
    name = "diffusers, compiled" if is_compiled else "diffusers"
    if is_compiled:
        pipeline.transformer.compile_repeated_blocks(fullgraph=True)
    seconds, _ = seconds_of(lambda: painted(scale, pipeline, side=scale.side, steps=2))
    if is_compiled:
        bench.row(f"{name}: first picture", seconds, "s")
    way = _way(bench, "none", is_compiled=is_compiled)
    _picture_rows(bench, name, timed_picture(scale, pipeline), way)


def ours(bench: Bench) -> None:
    """The plans, each with the LoRA slot acting and bypassed; other sizes must not compile anything."""
    for name, wishes in bench.scale.ways:
        bench.attempt(name, partial(_ours, bench, name, wishes))


def _ours(bench: Bench, name: str, wishes: Preferences) -> None:
    scale = bench.scale
    pipeline, applied = tuned_pipeline(bench, wishes)
    scheme = applied.quantisations["transformer"]
    way = _way(bench, scheme, is_compiled=applied.is_compiled)
    label = f"ours, {name} ({scheme if scheme != 'none' else applied.dtype})"
    loras = LoRAManager(mode="slot")
    loras.reserve(pipeline)
    for has_slot, _ in zip((True, False), loras.variants(pipeline), strict=True):
        seconds, _ = seconds_of(partial(warm_up, bench, pipeline))
        suffix = ", with a LoRA" if has_slot else ""
        bench.row(f"{label}{suffix}: warm-up", seconds, "s")
        timed = timed_picture(scale, pipeline)
        _picture_rows(bench, label + suffix, timed, way, has_slot=has_slot)
        with torch.compiler.set_stance("fail_on_recompile"):
            for side in scale.other_sides:
                other = timed_picture(scale, pipeline, side=side)
                bench.row(f"{label}{suffix}: {side}x{side}", other.step_ms, "ms a step", reckoned=None)
    bench.figures[f"fallbacks of {name}"] = "; ".join(f"{one.wanted}: {one.why}" for one in applied.fallbacks)


def settle(bench: Bench) -> None:
    """What a look at the clock in each step costs, and what guards cost that torch evaluates for each block."""
    scale = bench.scale
    pipeline, applied = tuned_pipeline(bench, scale.step_way)
    warm_up(bench, pipeline)
    for name, settles in (("settled each step", True), ("settled at the end", False)):
        bench.row(name, timed_picture(scale, pipeline, settles=settles).step_ms, "ms a step")
    if applied.is_compiled:
        with torch.compiler.set_stance(skip_guard_eval_unsafe=True):
            bench.row("guards skipped", timed_picture(scale, pipeline).step_ms, "ms a step")


def gemm(bench: Bench) -> None:
    """8 bits as they are compiled, and with Triton's matrix products among the candidates, which may scale in place."""
    for scheme, wishes in dict(bench.scale.ways).items():
        if scheme != "quality":
            for name, options in (("cuBLAS", {}), ("GEMM tuned", {"max_autotune_gemm": True})):
                bench.attempt(name, partial(_with_products, bench, f"{scheme}, {name}", wishes, options))


def _with_products(bench: Bench, way: str, wishes: Preferences, options: dict[str, Any]) -> None:
    import torch._inductor.config

    with torch._inductor.config.patch(options):
        pipeline, _ = tuned_pipeline(bench, wishes)
        seconds, _ = seconds_of(lambda: warm_up(bench, pipeline))
    bench.row(f"{way}: warm-up", seconds, "s")
    bench.row(way, timed_picture(bench.scale, pipeline).step_ms, "ms a step")


def numbers(bench: Bench) -> None:
    """The velocity in 8 bits against the velocity whole, of the same weights and input; and what random weights make of
    any rounding: bfloat16 against float32."""
    scale = bench.scale
    whole = velocity(scale, transformer(scale), side=scale.side).float().cpu()
    if scale.dtype != "float32":
        bench.attempt("float32", lambda: _rounding(bench, whole))
    for scheme in _schemes(bench):

        def measure(scheme: Quantisation = scheme) -> None:
            found = velocity(scale, transformer(scale, scheme), side=scale.side).float().cpu()
            error = float((found - whole).norm() / whole.norm())
            bench.row(f"{scheme}: relative error", error, "", reckoned=MOST_ERROR)
            if not error < MOST_ERROR:
                raise ValueError(f"{scheme} is off by {error:.2f}")

        bench.attempt(scheme, measure)


def _rounding(bench: Bench, whole: torch.Tensor) -> None:
    module = transformer(bench.scale).float()
    module.set_attention_backend("native")  # cuDNN's, which an earlier section may have left, is for 16 bits
    exact = velocity(bench.scale, module, side=bench.scale.side, dtype=torch.float32).cpu()
    bench.row(f"{bench.scale.dtype} against float32", float((whole - exact).norm() / exact.norm()), "")


def cache(bench: Bench) -> None:
    """A computed step beside one that is taken from the step cache. How many there are, random weights do not tell."""
    scale = bench.scale
    wishes = replace(scale.step_way, step_cache=True, num_inference_steps=MIN_CACHED_STEPS)
    plan = replace(plan_for(bench, wishes), step_cache_threshold=ALWAYS_CACHED)
    pipeline, applied = tuned_pipeline(bench, wishes, plan=plan)
    steps = WARMUP_STEPS + 4
    for _ in range(2):  # the first one compiles
        applied.begin_call(pipeline, num_inference_steps=MIN_CACHED_STEPS)
        marks, _ = painted(scale, pipeline, side=scale.side, steps=steps)
    taken = [(later - earlier) * 1000 for earlier, later in pairwise(marks)]
    computed, cached = taken[: WARMUP_STEPS - 1], taken[-2:]
    bench.row("computed step", min(computed), "ms a step")
    bench.row("cached step", min(cached), "ms a step")
    bench.figures["steps from the cache"] = cached_steps(pipeline)
    bench.figures["share of a cached step"] = min(cached) / min(computed)


def tuned_pipeline(bench: Bench, wishes: Preferences, *, plan: Plan | None = None) -> tuple[Any, AppliedPlan]:
    """A random pipeline with the plan of `wishes` carried out, as a worker does it after loading."""
    made = plan or plan_for(bench, wishes)
    how = loading(made, device=bench.scale.device)
    pipeline = pipeline_of(bench.scale, how.quantisations["transformer"])
    return pipeline, apply(pipeline, made, device=bench.scale.device, fallbacks=how.fallbacks)


def plan_for(bench: Bench, wishes: Preferences) -> Plan:
    """The plan of a worker on this card, of the parts that are here."""
    plan = ModelOptimizer().plan(bench.gpu, bench.scale.spec, wishes)
    parts = tuple(part for part in plan.parts if part.component in ("transformer", "vae"))
    return replace(plan, parts=parts, offload="none")


def warm_up(bench: Bench, pipeline: Any, sides: tuple[int, ...] = ()) -> None:
    """As a worker warms up: the second size makes shapes dynamic."""
    for side in sides or (bench.scale.side, bench.scale.other_sides[0]):
        painted(bench.scale, pipeline, side=side, steps=2)


def _schemes(bench: Bench) -> tuple[Quantisation, ...]:
    fast: tuple[Quantisation, ...] = ("fp8_dynamic", "fp8_tensor") if bench.gpu.has_capability(8, 9) else ()
    return (*fast, "int8_dynamic", "int8_weight_only")


def _way(bench: Bench, scheme: Quantisation, *, is_compiled: bool) -> Way:
    return Way(
        dtype=bench.scale.dtype,
        transformer=scheme,
        text="none",
        offload="none",
        tile_side=2048,
        is_compiled=is_compiled,
        threshold=None,
    )


def _picture_rows(bench: Bench, name: str, timed: Timed, way: Way, *, has_slot: bool = False) -> None:
    """The whole picture of the model's own steps, and its steps beside what the plan's arithmetic says."""
    spec, speed, scale = bench.scale.spec, bench.gpu.speed, bench.scale
    steps = spec.limits.num_inference_steps
    picture, step_ms = None, None
    if speed is not None:
        parts = part_plans(spec, way)
        time = picture_time(spec, speed, parts, way, steps=steps, pixels=scale.side**2)
        denoise = time.denoise + (time.slot if has_slot else 0.0)
        picture, step_ms = PICTURE_S + denoise + time.decode, denoise / steps * 1000
    bench.row(name, timed.picture_seconds(steps), "s", reckoned=picture, peak_bytes=timed.peak_bytes)
    bench.row(f"{name}: step", timed.step_ms, "ms a step", reckoned=step_ms)
    bench.figures[f"reserved bytes of {name}"] = timed.reserved_bytes
