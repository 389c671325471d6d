"""Timing a picture: warm, the median of several, with the peak of the device's memory."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import torch

from benchmarks.gpu_sections.random_flux import embeddings
from benchmarks.gpu_sections.scale import Scale
from flux_engine.generate.gpu import settle
from flux_engine.models.loading import release_memory

Result = TypeVar("Result")
STATUS: Final = Path("/proc/self/status")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """One picture, the median of several."""

    step_ms: float
    decode_ms: float
    peak_bytes: int
    reserved_bytes: int

    def picture_seconds(self, steps: int) -> float:
        """Of a picture of that many steps."""
        return (self.step_ms * steps + self.decode_ms) / 1000


@dataclass(slots=True)
class Peak:
    """Bytes at the peak: allocated and reserved on a GPU; on a CPU what the process has grown by."""

    allocated: int = 0
    reserved: int = 0


@contextmanager
def compiler_of(scale: Scale) -> Iterator[None]:
    """On a CPU Inductor traces, keys, caches and calls as ever, and leaves each operator to PyTorch: its own kernels
    would take a C++ compiler minutes."""
    import torch._inductor.config

    options = torch._inductor.lite_mode_options if scale.device == "cpu" else {}
    with torch._inductor.config.patch(options):
        yield


def timed_picture(scale: Scale, pipeline: Any, *, side: int | None = None, settles: bool = True) -> Timed:
    """A picture of `scale.steps` steps. The pipeline is warm: what it has to compile is compiled."""
    steps, decodes = [], []
    with peak_memory(scale) as peak:
        for _ in range(scale.repeats):
            marks, total = painted(scale, pipeline, side=side or scale.side, steps=scale.steps, settles=settles)
            steps.append((marks[-1] - marks[0]) / (len(marks) - 1))
            decodes.append(total - marks[-1])
    return Timed(
        step_ms=statistics.median(steps) * 1000,
        decode_ms=statistics.median(decodes) * 1000,
        peak_bytes=peak.allocated,
        reserved_bytes=peak.reserved,
    )


def painted(
    scale: Scale, pipeline: Any, *, side: int, steps: int, settles: bool = True, output_type: str = "pt"
) -> tuple[tuple[float, ...], float]:
    """Seconds from the start to the end of each step, and to the end. Raises ValueError where pixels are not finite."""
    marks: list[float] = []

    def on_step_end(_pipeline: Any, step: int, _timestep: Any, _tensors: dict[str, Any]) -> dict[str, Any]:
        if settles or step in (0, steps - 1):
            settle()
        marks.append(time.perf_counter())
        return {}

    began = time.perf_counter()
    picture = pipeline(
        **embeddings(scale, pipeline.transformer),
        width=side,
        height=side,
        num_inference_steps=steps,
        generator=torch.Generator("cpu").manual_seed(7),
        callback_on_step_end=on_step_end,
        output_type=output_type,
    ).images
    settle()
    ended = time.perf_counter()
    if not bool(torch.isfinite(picture).all()):
        raise ValueError("the picture has pixels that are no numbers")
    return tuple(mark - began for mark in marks), ended - began


def seconds_of(work: Callable[[], Result], *, repeats: int = 1) -> tuple[float, Result]:
    """The median seconds of `work`, until the device is done, and what it returned last."""
    taken = []
    for _ in range(repeats):
        settle()
        began = time.perf_counter()
        result = work()
        settle()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken), result


@contextmanager
def peak_memory(scale: Scale) -> Iterator[Peak]:
    """The peak of what happens within."""
    gc.collect()
    peak = Peak()
    if scale.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        yield peak
        peak.allocated, peak.reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
        return
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    before = _resident("VmRSS")
    yield peak
    peak.allocated = max(0, _resident("VmHWM") - before)
    peak.reserved = peak.allocated


def fresh_start() -> None:
    """Forget compiled code and free memory between two ways."""
    torch._dynamo.reset()
    release_memory()


def _resident(name: str) -> int:
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return int(lines[name].split()[0]) * 1024
