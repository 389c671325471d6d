"""Defaults and bounds that belong to a model, and a field's effective value within them.

Nothing of a model is known here but its ModelLimits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flux_engine.errors import InvalidInput
from flux_engine.fields import SharedFields
from flux_engine.validation import shown

ImageUse = Literal["start", "reference", "canvas"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLimits:
    """Defaults and bounds that belong to a model, and what it can do. Sizes in pixels, text lengths in tokens.

    What a given image is to the model: the first state, redrawn at `strength`; a reference that it looks at; or a
    canvas of which the mask's part is painted.
    """

    id: str
    num_inference_steps: int
    num_inference_steps_bounds: tuple[int, int]
    guidance_scale: float | None  # None: the model takes none
    guidance_scale_bounds: tuple[float, float] = (0.0, 20.0)  # equal bounds: fixed
    true_cfg_scale: float = 1.0
    max_sequence_length: int
    max_sequence_length_limit: int
    side: int = 1024
    max_pixels: int
    takes_true_cfg: bool = True  # classifier-free guidance, with a negative prompt
    image_use: ImageUse = "start"
    takes_mask: bool = True


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
    low, high = limits.guidance_scale_bounds
    is_fixed = limits.guidance_scale is None or low == high
    if value is None or is_fixed:
        if value is not None and value != limits.guidance_scale:
            warnings.append(f"`guidance_scale` has no effect with {limits.id}")
        return limits.guidance_scale
    if not low <= value <= high:
        raise InvalidInput(
            f"`guidance_scale` must be a number from {low:g} to {high:g} for {limits.id}; got {value:g}",
            field="guidance_scale",
        )
    return value


def within(name: str, value: int | None, default: int, bounds: tuple[int, int], limits: ModelLimits) -> int:
    if value is None:
        return default
    if not bounds[0] <= value <= bounds[1]:
        raise InvalidInput(
            f"`{name}` must be an integer from {bounds[0]} to {bounds[1]} for {limits.id}; got {shown(value)}",
            field=name,
        )
    return value
