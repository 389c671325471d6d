"""ImageJob: a valid image job with every parameter at its effective value, and how it is parsed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

from flux_engine.errors import InvalidInput
from flux_engine.job.base import DEFAULT_QUALITY, Job, JsonObject, Parsing, model_limits, shared_values
from flux_engine.job.edits.control import Control, controls_of
from flux_engine.job.edits.expand import Expand, expand_of
from flux_engine.job.edits.upscale import check_result
from flux_engine.job.fields import MAX_SEED, BoxItem, ImageFields, allowed_values
from flux_engine.job.formats import ONLY_OF_VIDEOS, ImageFormat
from flux_engine.job.limits import ModelLimits
from flux_engine.job.validation import shown
from flux_engine.job.written.prompt_syntax import syntax_warnings

DEFAULT_STRENGTH: Final = 0.8
DEFAULT_FORMAT: Final[ImageFormat] = "png"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageJob(Job):
    """A valid image job."""

    num_images: int
    images: tuple[str, ...] | None  # as `image`, each; references in the prompt's order
    enhance_prompt: bool  # before the model reads it
    is_enhancing_open: bool  # the client did not say whether
    boxes: tuple[BoxItem, ...] | None
    mask: str | None  # as `image`
    mask_feather: int | None  # pixels; None where nothing is put back into a picture
    mask_crop: int | None
    expand: Expand | None
    upscale: int | None  # 2 or 4
    control: tuple[Control, ...] | None
    strength: float | None  # above 0 to 1; None where the model does not redraw `image`
    output_format: ImageFormat

    def parameters(self) -> JsonObject:
        """The effective parameters as they are echoed to the client."""
        return (
            {"type": "image"}
            | self.echoed()
            | {
                "expand": self.expand and asdict(self.expand),
                "boxes": self.boxes and [box.model_dump() for box in self.boxes],
            }
        )

    def seeds(self) -> list[int]:
        """The seed of each image: `seed` + i, wrapped into 0 to MAX_SEED."""
        return [(self.seed + i) % (MAX_SEED + 1) for i in range(self.num_images)]


def image_job(parsing: Parsing) -> ImageJob:
    """Parse an image job. Raises InvalidInput."""
    _check_output_format(parsing.written.values.get("output_format"))
    given, warnings = parsing.fields(ImageFields), parsing.warnings
    if given.output_quality not in (None, DEFAULT_QUALITY) and (given.output_format or DEFAULT_FORMAT) == "png":
        warnings.append("`output_quality` has no effect on png")
    shared = shared_values(given, parsing)
    limits = model_limits(given.model, parsing.context)
    _check_references(given, limits)
    expand, control = expand_of(given.expand), controls_of(given.control)
    _check_control(given, limits, is_guided=shared["true_cfg_scale"] > 1)
    _check_images(given, limits)
    if given.image is None or not shared["is_size_open"]:
        check_result((shared["width"], shared["height"]), given.upscale)
    return ImageJob(
        num_images=given.num_images,
        images=given.images,
        enhance_prompt=_enhances(given, limits, warnings),
        is_enhancing_open=given.enhance_prompt is None,
        boxes=_boxes(given, limits, warnings),
        mask=given.mask,
        mask_feather=_mask_feather(given, limits),
        mask_crop=given.mask_crop,
        expand=expand,
        upscale=given.upscale,
        control=control,
        strength=_strength(given, limits, warnings),
        output_format=given.output_format or DEFAULT_FORMAT,
        is_format_open=given.output_format is None,
        **shared,
        warnings=tuple(warnings),
    )


def _check_output_format(value: object) -> None:
    if value in ONLY_OF_VIDEOS:
        raise InvalidInput(
            f"`output_format` must be {allowed_values(ImageFields, 'output_format')} for an image; got {shown(value)}, "
            'so for a video send `"type": "video"` as well',
            field="output_format",
        )


def _check_images(given: ImageFields, limits: ModelLimits) -> None:
    """Raise InvalidInput where a picture is missing or the model cannot use it."""
    for name in ("mask", "expand", "strength"):
        if getattr(given, name) is not None and given.image is None:
            raise InvalidInput(f"`{name}` needs `image`; send one, or leave `{name}` out", field=name)
    for name in ("mask", "expand"):
        if getattr(given, name) is not None and not limits.takes_mask:
            raise InvalidInput(f"{limits.id} takes no `{name}`; leave it out or send another `model`", field=name)
    if given.mask_crop is not None and given.mask is None:
        raise InvalidInput("`mask_crop` needs `mask`; send one, or leave `mask_crop` out", field="mask_crop")
    if given.mask_feather is not None and not _is_put_back(given):
        raise InvalidInput("`mask_feather` needs `mask` or `expand`; leave it out", field="mask_feather")
    if limits.image_use == "canvas":
        for name, is_there in (("image", given.image is not None), ("mask", _is_put_back(given))):
            if not is_there:
                raise InvalidInput(
                    f"{limits.id} paints the masked part of a picture; send `{name}` as well", field=name
                )


def _check_references(given: ImageFields, limits: ModelLimits) -> None:
    """Raise InvalidInput where `images` stands beside what it excludes, or has more pictures than the model takes."""
    if given.images is None:
        return
    for name in ("image", "mask", "expand"):
        if getattr(given, name) is not None:
            raise InvalidInput(f"`images` and `{name}` exclude one another; send one of them", field=name)
    if not limits.max_references:
        raise InvalidInput(
            f"{limits.id} takes no `images`; send one picture as `image`, or a `model` that looks at references",
            field="images",
        )
    if len(given.images) > limits.max_references:
        raise InvalidInput(
            f"{limits.id} takes up to {limits.max_references} `images`; got {len(given.images)}", field="images"
        )


def _check_control(given: ImageFields, limits: ModelLimits, *, is_guided: bool) -> None:
    """Raise InvalidInput where `control` stands beside what it excludes, or the model follows no maps."""
    if given.control is None:
        return
    if not limits.takes_control:
        raise InvalidInput(f"{limits.id} takes no `control`; leave it out or send another `model`", field="control")
    for name in ("mask", "expand"):
        if getattr(given, name) is not None:
            raise InvalidInput(
                f"`control` and `{name}` exclude one another; leave `{name}` out and all of `image` is redrawn along "
                "the map, or leave `control` out",
                field=name,
            )
    if given.image is not None and is_guided:  # diffusers' pipeline of both has no second, negative pass
        raise InvalidInput(
            "`true_cfg_scale` above 1 does not go with `control` and `image` together; leave one of the three out",
            field="true_cfg_scale",
        )


def _is_put_back(given: ImageFields) -> bool:
    """Whether what is painted is put back into the picture that came."""
    return given.mask is not None or given.expand is not None


def _mask_feather(given: ImageFields, limits: ModelLimits) -> int | None:
    if not _is_put_back(given):
        return None
    return limits.mask_feather if given.mask_feather is None else given.mask_feather


def _enhances(given: ImageFields, limits: ModelLimits, warnings: list[str]) -> bool:
    if limits.enhances_prompt is None:
        if given.enhance_prompt:
            warnings.append(f"`enhance_prompt` has no effect with {limits.id}, which has no prompt upsampler")
        return False
    return limits.enhances_prompt if given.enhance_prompt is None else given.enhance_prompt


def _boxes(given: ImageFields, limits: ModelLimits, warnings: list[str]) -> tuple[BoxItem, ...] | None:
    if given.boxes is not None and not limits.takes_boxes:
        raise InvalidInput(f"{limits.id} takes no `boxes`; leave them out or send another `model`", field="boxes")
    for index, box in enumerate(given.boxes or ()):
        warnings += syntax_warnings(f"boxes[{index}].prompt", box.prompt)
    return given.boxes


def _strength(given: ImageFields, limits: ModelLimits, warnings: list[str]) -> float | None:
    if given.image is None:
        return None
    if limits.image_use == "reference" and not _is_put_back(given):
        if given.strength is not None:
            warnings.append(f"`strength` has no effect with {limits.id}, which uses the image as a reference")
        return None
    if given.strength is not None:
        return given.strength
    return 1.0 if limits.image_use == "canvas" or given.expand is not None else DEFAULT_STRENGTH
