"""Defaults and bounds that belong to a model, and a field's effective value within them.

Of a model only its ModelLimits are known here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from flux_engine.errors import InvalidInput
from flux_engine.job.fields import MIN_SEQUENCE_LENGTH, SharedFields
from flux_engine.job.validation import shown

ImageUse = Literal["start", "reference", "canvas"]

PIXELS_PER_MEGAPIXEL: Final = 1024 * 1024
MIN_MEGAPIXELS: Final = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLimits:
    """Defaults and bounds that belong to a model, and its abilities. Sizes in pixels, text lengths in tokens.

    `image_use` is how the model uses an image: `start` redraws it at `strength`, `reference` looks at it, `canvas`
    paints its masked part.
    """

    id: str
    num_inference_steps: int
    num_inference_steps_bounds: tuple[int, int]
    guidance_scale: float | None  # None: the model takes none
    guidance_scale_bounds: tuple[float, float] = (0.0, 20.0)
    trained_guidance: tuple[float, float] | None = None  # values outside are clamped; equal ends: fixed
    true_cfg_scale: float = 1.0
    max_sequence_length: int
    max_sequence_length_limit: int
    side: int = 1024
    max_pixels: int
    takes_true_cfg: bool = True  # classifier-free guidance, with a negative prompt
    image_use: ImageUse = "start"
    takes_mask: bool = True
    takes_control: bool = False  # of ControlNets, which are made for one architecture
    max_references: int = 0  # pictures in `images`
    enhances_prompt: bool | None = None  # whether it does by default; None: it cannot
    takes_boxes: bool = False

    @property
    def mask_feather(self) -> int:
        """Pixels over which a seam is blended unless the job says otherwise: 16 at 1024x1024."""
        return self.side // 64

    @property
    def max_megapixels(self) -> float:
        return self.max_pixels / PIXELS_PER_MEGAPIXEL

    def bounds(self) -> dict[str, tuple[float, float]]:
        """The least and the most of the fields whose bounds are this model's."""
        return {
            "num_inference_steps": self.num_inference_steps_bounds,
            "guidance_scale": self.guidance_scale_bounds,
            "max_sequence_length": (MIN_SEQUENCE_LENGTH, self.max_sequence_length_limit),
            "megapixels": (MIN_MEGAPIXELS, self.max_megapixels),
        }

    def takes(self) -> dict[str, str]:
        """What the fields with bounds of this model take, in words."""
        return {
            name: f"{'an integer' if isinstance(low, int) else 'a number'} from {low:g} to {high:g} for {self.id}"
            for name, (low, high) in self.bounds().items()
        }


def guided_by(given: SharedFields, limits: ModelLimits, warnings: list[str]) -> tuple[str | None, float]:
    """The effective `negative_prompt` and `true_cfg_scale`."""
    scale = given.true_cfg_scale if given.true_cfg_scale is not None else limits.true_cfg_scale
    negative = given.negative_prompt or None
    if not limits.takes_true_cfg:
        unused = [("true_cfg_scale", scale > 1), ("negative_prompt", negative is not None)]
        warnings += [f"`{name}` has no effect with {limits.id}" for name, is_given in unused if is_given]
        return negative, 1.0
    if negative and scale <= 1:
        warnings.append("`negative_prompt` has no effect unless `true_cfg_scale` is above 1")
    return negative, scale


def guidance_scale(value: float | None, limits: ModelLimits, warnings: list[str]) -> float | None:
    if value is None:
        return limits.guidance_scale
    low, high = limits.guidance_scale_bounds
    if not low <= value <= high:
        raise _outside("guidance_scale", value, limits)
    low, high = limits.trained_guidance or (low, high)
    if limits.guidance_scale is None or low == high:
        if value != limits.guidance_scale:
            warnings.append(f"`guidance_scale` has no effect with {limits.id}")
        return limits.guidance_scale
    effective = min(max(value, low), high)
    if effective != value:
        warnings.append(
            f"`guidance_scale` clamped from {value:g} to {effective:g}: {limits.id} knows {low:g} to {high:g}"
        )
    return effective


def within(name: str, value: int | None, default: int, bounds: tuple[int, int], limits: ModelLimits) -> int:
    if value is None:
        return default
    if not bounds[0] <= value <= bounds[1]:
        raise _outside(name, value, limits)
    return value


def _outside(name: str, value: float, limits: ModelLimits) -> InvalidInput:
    return InvalidInput(f"`{name}` must be {limits.takes()[name]}; got {shown(value)}", field=name)
