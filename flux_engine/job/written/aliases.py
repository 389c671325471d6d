"""The names that clients give to the fields of a job: canonical names, aliases, and a guess for an unknown name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from flux_engine.errors import InvalidInput
from flux_engine.job.fields import ImageFields, cleaned
from flux_engine.job.formats import SPELLINGS
from flux_engine.job.size import SIZE_ALIASES, require_both_sides, written_size
from flux_engine.job.timeline import written_keyframes
from flux_engine.job.validation import is_same, shown, shown_name
from flux_engine.job.video_fields import VideoFields
from flux_engine.job.written.boxes import box_items
from flux_engine.job.written.loras import lora_items
from flux_engine.job.written.misplaced import DISTINCT, depth_fault
from flux_engine.job.written.pictures import ONE_PICTURE, one_picture, reference_pictures, with_numbered_pictures

ALIASES: Final[dict[str, str]] = {
    "task": "type",
    "text": "prompt",
    "inputs": "prompt",
    "true_cfg": "true_cfg_scale",
    "model_id": "model",
    "steps": "num_inference_steps",
    "num_steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "num_outputs": "num_images",
    "num_images_per_prompt": "num_images",
    "n": "num_images",
    "image_format": "output_format",
    "format": "output_format",
    "quality": "output_quality",
    "use_cache": "cache",
    "lora": "loras",
    "lora_weights": "loras",
    "max_frames": "num_frames",
    "frames_per_second": "fps",
    "animation_prompts": "keyframes",
    "strength_schedule": "strength",
    "video_format": "output_format",
    "prompt_strength": "strength",
    "image_url": "image",
    "input_image": "image",
    "init_image": "image",
    "mask_image": "mask",
    "mask_url": "mask",
    "input_images": "images",
    "image_urls": "images",
    "reference_images": "images",
    "image[]": "images",
    "mask_blur": "mask_feather",
    "padding_mask_crop": "mask_crop",
    "outpaint": "expand",
    "prompt_upsampling": "enhance_prompt",
    "controlnets": "control",
}
WITHOUT_EFFECT: Final = ("go_fast", "acceleration", "scheduler")
ONLY_VIDEOS_HAVE: Final = frozenset(VideoFields.model_fields) - frozenset(ImageFields.model_fields)
VIDEO_SPELLINGS: Final = frozenset({"strength_schedule", "video_format"})  # spellings of fields that pictures have too
MEANS_VIDEO: Final = (
    ONLY_VIDEOS_HAVE | VIDEO_SPELLINGS | {alias for alias, name in ALIASES.items() if name in ONLY_VIDEOS_HAVE}
)
OTHER_NAMES: Final = frozenset(ALIASES) | frozenset(SIZE_ALIASES)
DISTINCT_ALIASES: Final = (  # those that no platform puts beside `input` for something else
    {name for name, field in ALIASES.items() if field in DISTINCT} - {"n", "text", "inputs", "format", "quality"}
) | {*SIZE_ALIASES}
CANONICAL: Final = frozenset(ImageFields.model_fields) | ONLY_VIDEOS_HAVE


@dataclass(frozen=True, slots=True)
class Written:
    """What a client wrote: clean values without nulls under canonical names, and the names as they were sent."""

    values: Mapping[str, object]
    names: tuple[str, ...]

    @property
    def is_video(self) -> bool:
        """Whether `type` says so or a field is present that only videos have. Raises InvalidInput."""
        kind = self.values.get("type")
        if kind not in (None, "image", "video"):
            raise InvalidInput(f"`type` must be `image` or `video`; got {shown(kind)}", field="type")
        video = next((name for name in self.names if name in MEANS_VIDEO), None)
        if video is not None and kind == "image":
            raise InvalidInput(f"`{video}` belongs to a video job; leave it out or send `type`: `video`", field=video)
        return video is not None or kind == "video"

    @property
    def size_name(self) -> str:
        """The name under which the width was sent."""
        return next((name for name in SIZE_ALIASES if name in self.names and "width" not in self.names), "width")


def canonical_fields(raw: Mapping[object, object], warnings: list[str]) -> Written:
    """The sent fields under their canonical names. Raises InvalidInput."""
    given: dict[str, object] = {}
    source: dict[str, str] = {}
    raw = with_numbered_pictures(raw)
    for name, value in raw.items():
        if not isinstance(name, str):
            raise InvalidInput("the name of every field of `input` must be a string", field="input")
        if value is None:
            continue
        if name in WITHOUT_EFFECT:
            warnings.append(f"`{name}` has no effect here")
            continue
        for target, part in _targets(name, value):
            if target in given and not is_same(given[target], part):
                both = f"`{source[target]}` and `{name}`" if source[target] != name else f"`{name}`"
                raise InvalidInput(f"{both} give `{target}` different values; send one of them", field=name)
            given[target], source[target] = part, name
    names = tuple(name for name, value in raw.items() if isinstance(name, str) and value is not None)
    for name in SIZE_ALIASES:
        if name in names:
            require_both_sides(name, raw[name], given)
    return Written(given, names)


def _targets(name: str, value: object) -> list[tuple[str, object]]:
    """The canonical fields that one sent field sets, with their values."""
    canonical = ALIASES.get(name, name)
    if canonical not in (*CANONICAL, *SIZE_ALIASES):
        if (fault := depth_fault(name, value, OTHER_NAMES)) is not None:
            raise InvalidInput(fault, field=shown_name(name))
        raise InvalidInput(f"`{shown_name(name)}` is not a field of a job{_did_you_mean(name)}", field=shown_name(name))
    if canonical != "metadata":
        value = cleaned(value)
    if name in SIZE_ALIASES:
        return list(written_size(name, value).items())
    if canonical == "loras":
        value = lora_items(name, value)
    if canonical == "images" and (value := reference_pictures(name, value)) is None:
        return []
    if canonical == "boxes" and (value := box_items(name, value)) is None:
        return []
    if canonical in ONE_PICTURE:
        value = one_picture(name, value)
    if canonical == "keyframes":
        value = written_keyframes(name, value)
    if canonical == "output_format" and isinstance(value, str):
        value = SPELLINGS.get(value, value)
    return [(canonical, value)]


def _did_you_mean(name: str) -> str:
    known = [*ImageFields.model_fields, *VideoFields.model_fields, *ALIASES, *SIZE_ALIASES]
    near = difflib.get_close_matches(name[:64].lower(), known, n=1, cutoff=0.7)
    return f"; did you mean `{near[0]}`?" if near else "; leave it out"
