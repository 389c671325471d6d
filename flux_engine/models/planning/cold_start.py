"""How long a worker takes from its container's start until its first job can begin, since that is paid for as well.

Reading and importing overlap (read_ahead.py). What follows needs the weights: they are copied to the device, and the
blocks are compiled, with or without the code that an earlier worker left on the volume.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from flux_engine.models.planning.estimate import BYTES_OF_DTYPE
from flux_engine.models.planning.plan import Plan
from flux_engine.models.spec import ModelSpec

Storage = Literal["volume", "disk"]

# A network volume as deployed on RunPod, and a host's own NVMe disk as it holds cached models: both are estimates, so
# measure yours with `python -m benchmarks.read_ahead`.
READ_BYTES_PER_S: Final[dict[Storage, float]] = {"volume": 3.0e8, "disk": 2.0e9}
IMPORT_S: Final = 9.0  # torch 1.4, diffusers 5.5 and the platform's SDK 1.5 s, measured on a CPU
COPY_BYTES_PER_S: Final = 5.0e9  # mapped pages to the device: 24 GB in 4.9 s, diffusers
# Two pictures of two steps with the LoRA slot and two without, on an H100 with 16 CPUs (docs/measuring-gpus.md): 33 s
# in bfloat16, 54 s in fp8, and 36 s of those where compiled code is found: tracing remains.
COMPILE_S: Final = 33.0
COMPILE_8_BITS: Final = 1.65
COMPILED_BEFORE: Final = 0.65


@dataclass(frozen=True, slots=True, kw_only=True)
class ColdStart:
    """Seconds by phase."""

    imports: float
    read: float
    copy: float
    compile: float

    @property
    def total(self) -> float:
        return max(self.imports, self.read) + self.copy + self.compile


def cold_start(plan: Plan, model: ModelSpec, *, storage: Storage, is_first: bool) -> ColdStart:
    """The cold start under `plan`. The first worker finds neither a quantised checkpoint nor compiled code."""
    planned = sum(part.bytes for part in plan.parts)
    whole = model.parameters * BYTES_OF_DTYPE["bfloat16"]
    compiling = COMPILE_S * (COMPILE_8_BITS if plan.transformer_quantisation != "none" else 1.0)
    return ColdStart(
        imports=IMPORT_S,
        read=(whole if is_first or not plan.is_quantised else planned) / READ_BYTES_PER_S[storage],
        copy=planned / COPY_BYTES_PER_S,
        compile=compiling * (1.0 if is_first else COMPILED_BEFORE) if plan.compile else 0.0,
    )
