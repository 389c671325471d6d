"""Section `kernels`: where a step's milliseconds go on the device, and how long it waits for the host."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any, Final

from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu_sections.bench import Bench
from benchmarks.gpu_sections.clock import painted
from benchmarks.gpu_sections.pictures import tuned_pipeline, warm_up
from flux_engine.models.planning.plan import Preferences

STEPS: Final = 3
LISTED: Final = 12
# By what stands in a kernel's name; the first that fits.
KINDS: Final = {
    "attention": ("attention", "flash", "fmha", "sdpa"),
    "matrix products": ("gemm", "nvjet", "cutlass", "mm", "conv"),
    "fused by Inductor": ("triton",),
}


def kernels(bench: Bench) -> None:
    """A profile of each way without a LoRA, at the model's size and at a small one; on a CPU of the one that compiles
    nothing."""
    ways = (("eager", bench.scale.step_way),) if bench.gpu.is_cpu else bench.scale.ways
    for name, wishes in ways:
        bench.attempt(name, partial(_profiled, bench, name, wishes))


def _profiled(bench: Bench, name: str, wishes: Preferences) -> None:
    scale = bench.scale
    pipeline, _ = tuned_pipeline(bench, wishes)
    warm_up(bench, pipeline)
    for side in (scale.side, scale.other_sides[0]):
        found, step_ms = _milliseconds_of_kernels(bench, pipeline, side)
        kinds: Counter[str] = Counter()
        for kernel, taken_ms in found.items():
            kinds[_kind(kernel)] += taken_ms
        for kind, taken_ms in kinds.most_common():
            bench.row(f"{name}, {side}x{side}: {kind}", taken_ms, "ms a step")
        bench.row(f"{name}, {side}x{side}: device busy", sum(found.values()) / step_ms, "")
        for place, (kernel, taken_ms) in enumerate(found.most_common(LISTED), start=1):
            bench.figures[f"kernel {place} of {name}, {side}x{side}"] = f"{taken_ms:.2f} ms a step: {kernel[:120]}"


def _milliseconds_of_kernels(bench: Bench, pipeline: Any, side: int) -> tuple[Counter[str], float]:
    """Milliseconds a step by kernel, and those of the whole step; decoding is in neither."""
    is_cuda = bench.scale.device == "cuda"
    painted(bench.scale, pipeline, side=side, steps=STEPS)
    with profile(activities=[ProfilerActivity.CUDA if is_cuda else ProfilerActivity.CPU]) as profiled:
        marks, _ = painted(bench.scale, pipeline, side=side, steps=STEPS, output_type="latent")
    found: Counter[str] = Counter()
    for event in profiled.key_averages():
        taken_us = event.self_device_time_total if is_cuda else event.self_cpu_time_total
        found[event.key] += taken_us / 1000 / STEPS
    return found, marks[-1] / STEPS * 1000


def _kind(kernel: str) -> str:
    name = kernel.casefold()
    return next((kind for kind, words in KINDS.items() if any(word in name for word in words)), "others")
