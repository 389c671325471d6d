"""What a plan promises, asked of a pipeline that was loaded by it: on a GPU of a 300 M FLUX, on a CPU of a tiny one.

A plan for a small model has nothing of what is asked here, so it is forced: quantisation, a checkpoint kept and loaded
again, compilation that no other size and no LoRA repeats, and a step cache.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch

from flux_engine.models.checkpoint import write_checkpoint
from flux_engine.models.loading import Source, Tuned, load_tuned, release_memory
from flux_engine.models.lora.holder import ScaledLora
from flux_engine.models.lora.manager import LoRAManager
from flux_engine.models.planning.gpus import GpuProperties
from flux_engine.models.planning.optimizer import ModelOptimizer
from flux_engine.models.planning.plan import Plan, Preferences
from flux_engine.models.spec import ModelSpec
from flux_engine.models.tuning.step_cache import cached_steps
from flux_engine.settings import Quantisation
from tests.models.tiny import random_lora
from tests.models.tiny_flux import Pixels, paint, psnr

STEPS: Final = 20  # from there on a step cache acts
THRESHOLD: Final = 0.5
LEAST_PSNR: Final = 20.0  # of 8 bits and random weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Bed:
    """A model on a device, and how large its pictures are."""

    spec: ModelSpec
    source: Source
    gpu: GpuProperties
    device: str
    side: int

    def forced(self, scheme: Quantisation, *, is_compiled: bool, has_step_cache: bool = True) -> Plan:
        """The plan of this device with these choices, whatever the model's size."""
        plan = ModelOptimizer().plan(self.gpu, self.spec, Preferences(offload="none", compile=is_compiled))
        parts = tuple(
            replace(part, quantisation=scheme if part.component == "transformer" else "none") for part in plan.parts
        )
        threshold = THRESHOLD if has_step_cache else None
        return replace(plan, parts=parts, compile=is_compiled, step_cache_threshold=threshold)

    def paint(self, tuned: Tuned, *, steps: int = 2, width: int | None = None) -> Pixels:
        tuned.applied.begin_call(tuned.pipeline, num_inference_steps=steps)
        return paint(tuned.pipeline, side=self.side, steps=steps, width=width)


def check(bed: Bed, scheme: Quantisation, *, is_compiled: bool) -> None:
    """Raises AssertionError where the forced plan is not what runs."""
    plain = bed.paint(_loaded(bed, bed.forced("none", is_compiled=False, has_step_cache=False)))
    release_memory()
    plan = bed.forced(scheme, is_compiled=is_compiled)
    first = _loaded(bed, plan)
    if scheme != "none":
        assert first.checkpoint is not None
        assert first.unsaved is not None
        assert write_checkpoint(first.checkpoint, first.unsaved)
    del first
    release_memory()
    tuned = _loaded(bed, plan)
    assert tuned.is_from_checkpoint is (scheme != "none")
    assert tuned.applied.fallbacks == ()
    assert tuned.applied.quantisations["transformer"] == scheme
    assert tuned.applied.is_compiled is is_compiled
    loras = LoRAManager(mode="slot" if is_compiled else "adapters")
    loras.reserve(tuned.pipeline)
    for _ in loras.variants(tuned.pipeline):
        for width in (bed.side, bed.side // 2):
            bed.paint(tuned, width=width)
    with torch.compiler.set_stance("fail_on_recompile" if is_compiled else "default"):
        picture = bed.paint(tuned)
        assert psnr(picture, plain) > LEAST_PSNR
        bed.paint(tuned, width=bed.side * 3 // 4)
        bed.paint(tuned, steps=STEPS)
        assert cached_steps(tuned.pipeline) > 0
        _check_loras(bed, tuned, loras, picture)


def _check_loras(bed: Bed, tuned: Tuned, loras: LoRAManager, picture: Pixels) -> None:
    """One acts in its own job and leaves nothing behind."""
    loras.apply(tuned.pipeline, [ScaledLora(random_lora(_plain(tuned.pipeline), seed=1), 1.0)])
    assert psnr(bed.paint(tuned), picture) < float("inf")
    loras.apply(tuned.pipeline)
    assert psnr(bed.paint(tuned), picture) == float("inf")


def _plain(pipeline: Any) -> Any:
    return pipeline.transformer


def _loaded(bed: Bed, plan: Plan) -> Tuned:
    return load_tuned(bed.spec, bed.source, plan, device=bed.device)


def source_on(folder: Path, volume: Path) -> Source:
    return Source(folder=folder, revision="1", volume=volume)
