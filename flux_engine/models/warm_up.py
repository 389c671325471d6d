"""Compiling a model before its first job, with the compiled code that an earlier worker left on the volume."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from flux_engine.models.loading import Tuned
from flux_engine.models.lora.manager import LoRAManager
from flux_engine.models.spec import ModelSpec
from flux_engine.models.tuning.compilation import graphs_missed, load_compiled, save_compiled
from flux_engine.models.tuning.fallback import Fallback, FallbackNoted

WARM_UP_STEPS: Final = 2

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUp:
    """How long the warm-up took, and why compiled code does not run here, where it does not."""

    ms: float
    failure: str | None = None


def warm_up(spec: ModelSpec, tuned: Tuned, loras: LoRAManager, file: Path) -> WarmUp:
    """Compile for every size, with the LoRA slot and without. `file` keeps compiled code for the next worker, and is
    written again where something in it was not found. A plan without compilation needs no warm-up."""
    began = time.perf_counter()
    fallbacks: list[Fallback] = []
    if tuned.applied.is_compiled:
        with FallbackNoted(fallbacks, choice="compile", wanted="repeated blocks"):
            is_known = load_compiled(file)
            before = graphs_missed()
            for _ in loras.variants(tuned.pipeline):
                for width, height in spec.warm_up_sizes:
                    tuned.pipeline(**_call(spec, width, height))
            if not is_known or graphs_missed() > before:
                _keep(file)
    failure = fallbacks[0].why if fallbacks else None
    return WarmUp(ms=(time.perf_counter() - began) * 1000, failure=failure)


def _call(spec: ModelSpec, width: int, height: int) -> dict[str, Any]:
    from PIL import Image

    call = {"prompt": "a picture", "width": width, "height": height, "num_inference_steps": WARM_UP_STEPS}
    if spec.limits.image_use != "canvas":
        return call
    canvas, everywhere = Image.new("RGB", (width, height)), Image.new("L", (width, height), 255)
    return call | {"image": canvas, "mask_image": everywhere}


def _keep(file: Path) -> None:
    """A volume that cannot be written to costs no picture."""
    try:
        save_compiled(file)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        log.warning("compiled code could not be kept", extra={"detail": reason})
