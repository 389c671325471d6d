"""All ways to run a model on a device, and which of them a profile allows.

A way fixes every choice of a plan. `ways` lists those that no rule and no wish forbids; `optimizer.py` picks one.

Rules that no profile and no wish breaks
- dynamic quantisation only together with compilation (130 s against 3.4 s for int8 on an H100 without it)
- bfloat16 from compute capability 8.0, fp8 from 8.9
- compilation only where the blocks stay on the device while they run: no group or sequential offload, and no model
  offload of quantised weights, which torch cannot move once they are compiled
- no quantisation in float16: weight-only int8, which every scheme may fall back to, is multiplied as integers and
  scaled afterwards, which overflows it
- a step cache only for models of 20 steps and more, and only where the transformer stays on the device: the hooks of
  offloading put the blocks' own forward back after the first picture
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from flux_engine.models.planning.gpus import GpuProperties
from flux_engine.models.planning.plan import DYNAMIC, FP8, MIN_CACHED_STEPS, DType, Preferences
from flux_engine.models.spec import ModelSpec
from flux_engine.settings import Offload, Profile, Quantisation

SMALL_MODEL: Final = 1_000_000_000  # parameters: below it nothing is quantised, compiled or offloaded unasked
FEW_STEPS: Final = 8  # up to here a worker that scales to zero does not win back the seconds of a compilation
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
DEFAULT_THRESHOLD: Final = 0.08  # where the operator asks for a step cache and the profile has none
OFFLOADS: Final[tuple[Offload, ...]] = ("none", "text", "balanced", "model", "group", "sequential")  # simplest first
STAYING: Final[tuple[Offload, ...]] = ("none", "text")  # the transformer never leaves the device


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to run a model."""

    dtype: DType
    transformer: Quantisation
    text: Quantisation  # of the largest text encoder
    offload: Offload
    tile_side: int
    is_compiled: bool
    threshold: float | None  # of the step cache; None: every step is computed

    @property
    def loss(self) -> int:
        """How much precision is given up: none, the text encoder's, the transformer's."""
        return 2 if self.transformer != "none" else 1 if self.text != "none" else 0

    @property
    def complexity(self) -> tuple[int, ...]:
        """Orders ways that cost the same: the simpler first, and of tiles the larger, which have fewer seams."""
        return (
            OFFLOADS.index(self.offload),
            self.loss,
            int(self.transformer in DYNAMIC),
            int(self.is_compiled),
            int(self.threshold is not None),
            -self.tile_side,
        )


def ways(gpu: GpuProperties, model: ModelSpec, wishes: Preferences) -> list[Way]:
    """Every way that the rules, the profile and the operator's wishes allow; a wish that no rule allows is ignored."""
    axes = _Axes(gpu, model, wishes)
    return list(axes.ways())


@dataclass(frozen=True, slots=True)
class _Axes:
    """What each choice may be."""

    gpu: GpuProperties
    model: ModelSpec
    wishes: Preferences

    def ways(self) -> Iterator[Way]:
        dtype = dtype_for(self.gpu, self.model)
        choices = itertools.product(
            self._transformer(dtype), self._text(dtype), self._offloads(), TILE_SIDES[self.wishes.profile]
        )
        for transformer, text, offload, tile_side in choices:
            for is_compiled in self._compilations(transformer, offload):
                if transformer in DYNAMIC and not is_compiled:
                    continue
                for threshold in self._thresholds(offload):
                    yield Way(
                        dtype=dtype,
                        transformer=transformer,
                        text=text,
                        offload=offload,
                        tile_side=tile_side,
                        is_compiled=is_compiled,
                        threshold=threshold,
                    )

    @property
    def _is_small(self) -> bool:
        return self.model.transformer.parameters < SMALL_MODEL

    def _transformer(self, dtype: DType) -> tuple[Quantisation, ...]:
        if dtype == "float16":
            return ("none",)
        wish = self.wishes.quantisation
        if wish in DYNAMIC:
            # Weight-only is what is left of it where nothing may be compiled.
            return (_on_this_card(wish, self.gpu), "int8_weight_only")
        if wish is not None:
            return (wish,)
        if self._is_small and not self.gpu.is_cpu:
            return ("none", "int8_weight_only")
        may_be_dynamic = self.wishes.profile != "memory" and self.gpu.has_capability(8, 0)
        return ("none", "int8_weight_only", *((_on_this_card("fp8_dynamic", self.gpu),) if may_be_dynamic else ()))

    def _text(self, dtype: DType) -> tuple[Quantisation, ...]:
        """A text encoder is not compiled, so it can only be quantised by its weights."""
        if dtype == "float16":
            return ("none",)
        wish = self.wishes.text_quantisation
        if wish is not None:
            return ("none" if wish == "none" else "int8_weight_only",)
        return ("none", "int8_weight_only")

    def _offloads(self) -> tuple[Offload, ...]:
        possible = [
            offload
            for offload in OFFLOADS
            if (offload != "balanced" or (self.gpu.count > 1 and not self._is_put_together))
            and (not self.gpu.is_cpu or offload in ("none", "text", "group"))
        ]
        if self.wishes.offload in possible:
            return (self.wishes.offload,)
        return ("none",) if self.gpu.is_cpu else tuple(possible)

    @property
    def _is_put_together(self) -> bool:
        """Whether the pipeline is made of parts, which diffusers cannot spread over several GPUs."""
        return self.model.is_single_file or self.model.is_modular

    def _compilations(self, transformer: Quantisation, offload: Offload) -> tuple[bool, ...]:
        if not self.gpu.is_cpu and not self.gpu.has_capability(7, 0):
            return (False,)
        if offload not in (*STAYING, "model") or (offload == "model" and transformer != "none"):
            return (False,)
        if self.wishes.compile is not None:
            return (self.wishes.compile,)
        if self._is_small or not self.gpu.has_capability(8, 0) or self.wishes.profile == "memory":
            return (False,)
        return (False, True) if transformer in DYNAMIC or self._is_worth_compiling else (False,)

    @property
    def _is_worth_compiling(self) -> bool:
        """Whether a picture's gain pays for the compilation of a worker that may stop after tens of pictures."""
        return self.wishes.is_kept_warm or steps_of(self.model, self.wishes) > FEW_STEPS

    def _thresholds(self, offload: Offload) -> tuple[float | None, ...]:
        if steps_of(self.model, self.wishes) < MIN_CACHED_STEPS or offload not in STAYING or self.model.is_modular:
            return (None,)
        usual = STEP_CACHE_THRESHOLDS[self.wishes.profile]
        if self.wishes.step_cache is None:
            return (None,) if usual is None or self.gpu.is_cpu else (None, usual)
        return ((usual or DEFAULT_THRESHOLD) if self.wishes.step_cache else None,)


def steps_of(model: ModelSpec, wishes: Preferences) -> int:
    """The denoising steps that a plan is made for."""
    return wishes.num_inference_steps or model.limits.num_inference_steps


def dtype_for(gpu: GpuProperties, model: ModelSpec) -> DType:
    """The widest-known type that the device computes at full rate."""
    if gpu.is_cpu:
        # Small models are exact in float32 and as quick; of large ones the memory counts.
        return "float32" if model.parameters < SMALL_MODEL else "bfloat16"
    if gpu.has_capability(8, 0):
        return "bfloat16"
    return "float16" if model.is_float16_safe else "float32"


def _on_this_card(wanted: Quantisation, gpu: GpuProperties) -> Quantisation:
    """`wanted`, or the dynamic scheme that the card has units for."""
    return "int8_dynamic" if wanted in FP8 and not gpu.has_capability(8, 9) else wanted
