"""A Plan: how one model runs on one GPU, as data, with a reason for each choice and what the next best would cost.

`optimizer.py`, which is pure, makes it; `apply.py` carries it out and says what really took effect.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal, get_args

from flux_engine.settings import Offload, Profile, Quantisation
from flux_engine.units import GIB

DType = Literal["bfloat16", "float16", "float32"]
LoraMode = Literal["slot", "adapters"]

FP8: Final[tuple[Quantisation, ...]] = ("fp8_tensor", "fp8_dynamic")  # one scale a tensor, one a row
DYNAMIC: Final[tuple[Quantisation, ...]] = ("int8_dynamic", *FP8)
PROFILES: Final[tuple[Profile, ...]] = get_args(Profile)
MIN_CACHED_STEPS: Final = 20
SLOT_RANK: Final = 64  # of the LoRA slot around a compiled transformer's layers


@dataclass(frozen=True, slots=True, kw_only=True)
class Preferences:
    """What the operator wishes. None leaves a choice to the plan; a wish that breaks a rule is declined, with a reason.

    `max_batch` in images; `num_inference_steps` is what seconds are estimated for, by default the model's own. A worker
    that `is_kept_warm` makes enough pictures to win back any compilation.
    """

    profile: Profile = "balanced"
    attention_slicing: bool = False
    compile: bool | None = None
    step_cache: bool | None = None
    quantisation: Quantisation | None = None
    text_quantisation: Quantisation | None = None
    offload: Offload | None = None
    max_batch: int = 4
    num_inference_steps: int | None = None
    is_kept_warm: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PartPlan:
    """One component: how its weights are kept, and their bytes."""

    component: str
    quantisation: Quantisation
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """The best way to run the model with another value of one choice, and what it would have cost."""

    value: str
    seconds: float | None
    peak_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a model runs. Bytes are of device memory, seconds of one image at the model's own size."""

    model: str
    gpu: str
    profile: Profile
    fits: bool  # False: this is the leanest plan, and still more than the device has
    dtype: DType
    parts: tuple[PartPlan, ...]
    offload: Offload
    attention: tuple[str, ...]  # tried in this order
    compile: bool
    step_cache_threshold: float | None  # None: every step is computed
    vae_slicing: bool
    vae_tile_side: int  # pixels; larger pictures are decoded in tiles of that side
    lora_mode: LoraMode
    largest_batch: int  # images of the model's own size in one call
    lora_bytes: int  # of the slot that a compiled transformer is given; other LoRAs come and go
    activation_bytes: int  # of one picture, the largest that the model makes
    peak_bytes: int
    limit_bytes: int  # what the plan may use: the device's free memory less a margin
    host_bytes: int  # of the host's memory, while the model runs
    seconds: float | None  # None: the card's rates are not known
    lora_seconds: float | None  # what a job with LoRAs takes beyond
    origin: str | None  # which runs of this card the seconds rest on; None: they are interpolated between other cards
    reasons: dict[str, str] = field(hash=False)
    alternatives: dict[str, Alternative] = field(default_factory=dict, hash=False)  # by choice; none where nothing fits
    next_leaner: Plan | None = field(default=None, repr=False, compare=False)

    def leaner(self) -> Plan | None:
        """The best plan that needs less memory, for when it ran out under this one; None where there is none."""
        return self.next_leaner

    def uncompiled(self, why: str) -> Plan:
        """This plan, and all leaner ones, for a machine that cannot run compiled code."""
        below = self.next_leaner and self.next_leaner.uncompiled(why)
        parts = tuple(
            replace(part, quantisation="int8_weight_only") if part.quantisation in DYNAMIC else part
            for part in self.parts
        )
        reasons = self.reasons | {"compile": why} if self.compile else self.reasons
        return replace(
            self, compile=False, parts=parts, lora_mode="adapters", lora_bytes=0, reasons=reasons, next_leaner=below
        )

    def quantisation_of(self, component: str) -> Quantisation:
        return next((part.quantisation for part in self.parts if part.component == component), "none")

    @property
    def transformer_quantisation(self) -> Quantisation:
        return self.quantisation_of("transformer")

    @property
    def is_quantised(self) -> bool:
        return any(part.quantisation != "none" for part in self.parts)

    @property
    def precision(self) -> str:
        """Dtype and quantisation in one word: `bfloat16`, `bfloat16+fp8_dynamic`."""
        return precision_of(self.dtype, self._quantisations())

    @property
    def pixel_way(self) -> str:
        return pixel_way_of(self._quantisations(), self.step_cache_threshold, self.vae_tile_side)

    def _quantisations(self) -> dict[str, Quantisation]:
        return {part.component: part.quantisation for part in self.parts}

    def to_dict(self) -> dict[str, Any]:
        """The plan for a log, a file or a script, without the leaner ones."""
        values = asdict(replace(self, next_leaner=None))
        del values["next_leaner"]
        return values

    def line(self) -> str:
        """The plan in one line for a reader."""
        quantised = {part.quantisation for part in self.parts if part.quantisation != "none"}
        words = [
            self.dtype + (f" with {' and '.join(sorted(quantised))}" if quantised else ""),
            f"offload {self.offload}" if self.offload != "none" else "",
            "compiled" if self.compile else "",
            "step cache" if self.step_cache_threshold else "",
            f"{self.peak_bytes / GIB:.1f} of {self.limit_bytes / GIB:.1f} GiB",
        ]
        return ", ".join(word for word in words if word) + ("" if self.fits else " - does not fit")


def precision_of(dtype: str, quantisations: Mapping[str, Quantisation]) -> str:
    """See Plan.precision."""
    return "+".join([dtype, *sorted({scheme for scheme in quantisations.values() if scheme != "none"})])


def pixel_way_of(
    quantisations: Mapping[str, Quantisation], step_cache_threshold: float | None, vae_tile_side: int
) -> str:
    """The choices that can be seen in a picture, beside the dtype; part of a result's fingerprint.

    The card, the attention kernel, compilation and offload only move the last bits of a number and are left out, so
    that the cards of one endpoint share their results.
    """
    schemes = ",".join(f"{part}:{scheme}" for part, scheme in sorted(quantisations.items()) if scheme != "none")
    return f"{schemes or 'plain'} step-cache:{step_cache_threshold or 0:g} tile:{vae_tile_side}"


def fit_together(plans: Iterable[Plan]) -> bool:
    """Whether the models of `plans` fit one device at the same time, while one of them works.

    A plan that offloads has the device to itself: it offloads because memory is short.
    """
    standing = list(plans)
    if len(standing) < 2:
        return True
    if any(plan.offload != "none" for plan in standing):
        return False
    weights = sum(plan.peak_bytes - plan.activation_bytes for plan in standing)
    working = max(plan.activation_bytes for plan in standing)
    return weights + working <= min(plan.limit_bytes for plan in standing)
