"""Where a job's time goes, in milliseconds by the parts that its result names."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

PARTS: Final = ("total", "load", "lora", "text", "denoise", "decode", "encode", "upload")


@dataclass(slots=True)
class Clock:
    """The parts of one job, measured on whichever thread does them."""

    began: float = field(default_factory=time.perf_counter)
    spent_ms: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    gpu_s: float = 0.0  # time on the GPU thread, whatever the job did there
    cold_start_ms: dict[str, float] = field(default_factory=dict)  # only of the job that the model is loaded for

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.spent_ms[part] += (time.perf_counter() - began) * 1000

    @contextmanager
    def holding_gpu(self) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.gpu_s += time.perf_counter() - began

    def total_ms(self) -> int:
        return round((time.perf_counter() - self.began) * 1000)

    def timings(self) -> dict[str, Any]:
        """The result's `timings`, up to this moment."""
        self.spent_ms["total"] = (time.perf_counter() - self.began) * 1000
        return _rounded(self.spent_ms)

    def cold_start(self) -> dict[str, Any]:
        """The result's `model.cold_start`; empty where the model was warm."""
        return _rounded(self.cold_start_ms)


def _rounded(parts: dict[str, float]) -> dict[str, Any]:
    return {f"{part}_ms": round(ms, 1) for part, ms in parts.items()}
