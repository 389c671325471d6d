"""A pipeline loaded by a plan, and the next plan where memory ran out under it."""

from __future__ import annotations

import gc
import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError

from flux_engine.errors import OutOfMemory
from flux_engine.models.planning.plan import Plan
from flux_engine.models.spec import ModelSpec
from flux_engine.models.tuning.apply import AppliedPlan, apply
from flux_engine.models.tuning.fallback import is_out_of_memory
from flux_engine.models.tuning.libraries import import_diffusers
from flux_engine.models.tuning.quantisation import Loading, checkpoint_folder, loading, save_checkpoint

# What a broken folder makes loading raise; safetensors' own error is none of Python's.
BROKEN: Final = (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where weights come from: a diffusers folder of a known revision, and the volume that keeps what is made of it.

    `volume` None: quantised checkpoints are neither read nor written.
    """

    folder: Path
    revision: str
    volume: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """A pipeline and what took effect of its plan."""

    pipeline: Any
    applied: AppliedPlan
    checkpoint: Path | None  # the quantised one that it was loaded from, or that was made of it
    is_from_checkpoint: bool
    import_ms: float
    load_ms: float
    apply_ms: float

    def phases_ms(self) -> dict[str, float]:
        """How long each phase took, by its name in a result."""
        return {"imports": self.import_ms, "weights": self.load_ms, "apply": self.apply_ms}


def load_tuned(spec: ModelSpec, source: Source, plan: Plan, *, device: str) -> Tuned:
    """The pipeline of `plan`, loaded and with the plan applied.

    What `from_pretrained` raises for a broken folder passes through, and so does torch.OutOfMemoryError: whoever steps
    down to a leaner plan has to let go of the error first, whose traceback holds the half-loaded pipeline.
    """
    began = time.perf_counter()
    pipeline_class = getattr(import_diffusers(), spec.pipeline_class)
    imported = time.perf_counter()
    how = loading(plan, device=device)
    made = _checkpoint(spec, source, plan, how)
    pipeline = _from_checkpoint(pipeline_class, made, how) if made is not None and made.is_dir() else None
    is_from_checkpoint = pipeline is not None
    if pipeline is None:
        pipeline = pipeline_class.from_pretrained(source.folder, use_safetensors=True, **how.arguments)
        made = _saved(pipeline, made) if made is not None else None
    loaded = time.perf_counter()
    applied = apply(pipeline, plan, device=device, fallbacks=how.fallbacks)
    pipeline.set_progress_bar_config(disable=True)
    return Tuned(
        pipeline=pipeline,
        applied=applied,
        checkpoint=made,
        is_from_checkpoint=is_from_checkpoint,
        import_ms=(imported - began) * 1000,
        load_ms=(loaded - imported) * 1000,
        apply_ms=(time.perf_counter() - loaded) * 1000,
    )


def folder_to_read(spec: ModelSpec, source: Source, plan: Plan) -> Path:
    """Where `load_tuned` will find the weights, told without torch: the quantised checkpoint, once it was made."""
    schemes = {part.component: part.quantisation for part in plan.parts}
    if source.volume is None or not plan.is_quantised:
        return source.folder
    made = checkpoint_folder(
        source.volume, model_id=spec.id, revision=source.revision, dtype=plan.dtype, quantisations=schemes
    )
    return made if made.is_dir() else source.folder


def leaner(plan: Plan) -> Plan:
    """The plan to load next after memory ran out under `plan`. Raises OutOfMemory where there is none."""
    below = plan.leaner()
    if below is None:
        raise OutOfMemory("the job did not fit even at the leanest setting; ask for a smaller picture")
    return below


def release_memory() -> None:
    """Give freed device memory back, once no reference to the pipeline is left."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch._C._host_emptyCache()  # the pinned host memory of offloaded blocks, which torch keeps otherwise


def _from_checkpoint(pipeline_class: Any, folder: Path, how: Loading) -> Any | None:
    """The pipeline in a quantised checkpoint; one that cannot be read is removed, and None says to make it again."""
    import torch

    try:
        return pipeline_class.from_pretrained(folder, use_safetensors=True, **how.of_quantised())
    except torch.AcceleratorError:
        raise
    except BROKEN as error:
        if is_out_of_memory(error):
            raise
        log.warning("a quantised checkpoint could not be read and is made again", exc_info=True)
        shutil.rmtree(folder, ignore_errors=True)
        return None


def _saved(pipeline: Any, folder: Path) -> Path | None:
    """Keep a quantised pipeline for the next worker. A volume that does not take it costs no picture."""
    import torch

    try:
        save_checkpoint(pipeline, folder)
    except torch.AcceleratorError:
        raise
    except (OSError, SafetensorError, RuntimeError) as error:  # the last: no memory, or weights not to be moved
        log.warning("the quantised checkpoint could not be kept", extra={"detail": type(error).__name__}, exc_info=True)
        return None
    return folder


def _checkpoint(spec: ModelSpec, source: Source, plan: Plan, how: Loading) -> Path | None:
    """Where the quantised checkpoint is, or belongs; None where nothing is quantised or nothing is kept."""
    if source.volume is None or "quantization_config" not in how.arguments:
        return None
    return checkpoint_folder(
        source.volume,
        model_id=spec.id,
        revision=source.revision,
        dtype=plan.dtype,
        quantisations=how.quantisations,
    )
