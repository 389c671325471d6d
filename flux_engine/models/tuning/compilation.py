"""torch.compile: whether this machine can, and its caches kept on the volume.

A cache is one blob of `torch.compiler.save_cache_artifacts`. It holds code, so only what this endpoint wrote on its own
volume is ever loaded, under a key of everything that the code depends on.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import uuid
from functools import cache
from pathlib import Path
from typing import Final

from flux_engine.models.planning.plan import Plan
from flux_engine.models.tuning.fallback import Fallback, FallbackNoted
from flux_engine.models.tuning.versions import version_of

KEY_PACKAGES: Final = ("torch", "triton", "diffusers", "torchao", "cache-dit")


@cache
def compile_failure(device: str) -> str | None:
    """Why `device` cannot run compiled code, found by compiling one line; None where it can."""
    import torch
    import torch._functorch.config

    def one_line(values: torch.Tensor) -> torch.Tensor:
        return values * 2 + 1

    fallbacks: list[Fallback] = []
    # Kept in no cache and not looked for in one, so that it is no graph that a worker missed.
    uncached = torch._functorch.config.patch(enable_autograd_cache=False)
    with FallbackNoted(fallbacks, choice="compile", wanted="one line"), uncached:
        torch.compile(one_line, fullgraph=True)(torch.ones(8, device=device))
    return fallbacks[0].why if fallbacks else None


def cache_file(volume: Path, plan: Plan, *, compute_capability: tuple[int, int] | None) -> Path:
    """Where the compiled code of `plan` belongs; another GPU, library or way to run is another file."""
    versions = {name: version_of(name) for name in KEY_PACKAGES}
    ways = [(part.component, part.quantisation) for part in plan.parts]
    identity = [
        plan.model,
        plan.gpu,
        list(compute_capability or ()),
        platform.machine(),
        versions,
        plan.dtype,
        ways,
        plan.offload,
        plan.attention,
        plan.step_cache_threshold is not None,
        plan.lora_mode,
    ]
    digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    return volume / "compiled" / f"{plan.model}-{digest}.bin"


def load_compiled(file: Path) -> bool:
    """Bring the blob at `file` into torch's caches, before the first call; False where there is none."""
    import torch

    if not file.is_file():
        return False
    return torch.compiler.load_cache_artifacts(file.read_bytes()) is not None


def graphs_missed() -> int:
    """How many graphs of this process were not found in a cache and had to be traced and compiled."""
    from torch._dynamo.utils import counters

    return int(counters["aot_autograd"]["autograd_cache_miss"])


def save_compiled(file: Path) -> int:
    """Write what was compiled so far, after the warm-up, atomically; returns its bytes, 0 where nothing was."""
    import torch

    saved = torch.compiler.save_cache_artifacts()
    if saved is None:
        return 0
    blob, _ = saved
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{uuid.uuid4().hex}.partial")  # Python is process 1 in each container
    try:
        with partial.open("wb") as output:
            output.write(blob)
            output.flush()
            os.fsync(output.fileno())
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    return len(blob)
