"""What clients call the fields of a job: canonical names, aliases, and the one that an unknown name was meant to be."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Final

from flux_engine.errors import InvalidInput
from flux_engine.fields import ImageFields
from flux_engine.lora_request import lora_items
from flux_engine.size import SIZE_ALIASES, written_size
from flux_engine.validation import is_same, shown

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
}
WITHOUT_EFFECT: Final = ("go_fast", "acceleration", "scheduler")
VIDEO_FIELDS: Final = (
    *("num_frames", "max_frames", "fps", "frames_per_second", "duration", "keyframes", "animation_prompts", "mode"),
    *("motion", "strength_schedule", "generated_fps", "loop", "video_format"),
)
KNOWN: Final = (*ImageFields.model_fields, *VIDEO_FIELDS)


def is_video_job(raw: Mapping[object, object]) -> bool:
    """Whether this is a video job: it says so, or has a field that only a video has."""
    video = [name for name, value in raw.items() if name in VIDEO_FIELDS and value is not None]
    kinds = [raw[name] for name in ("type", "task") if raw.get(name) is not None]
    if video and "image" in kinds:
        raise InvalidInput(
            f"`{video[0]}` belongs to a video job; leave it out or send `type`: `video`", field=str(video[0])
        )
    return bool(video) or "video" in kinds


def canonical_fields(raw: Mapping[object, object], warnings: list[str]) -> dict[str, object]:
    """The given fields under their canonical names; null is absent. Raises InvalidInput."""
    given: dict[str, object] = {}
    source: dict[str, str] = {}
    for name, value in raw.items():
        if not isinstance(name, str):
            raise InvalidInput("every field of `input` must have a string as its name", field="input")
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
    return given


def _targets(name: str, value: object) -> list[tuple[str, object]]:
    """What one given field says, under canonical names."""
    if name in SIZE_ALIASES:
        width, height = written_size(name, value)
        return [("width", width), ("height", height)]
    canonical = ALIASES.get(name, name)
    if canonical not in KNOWN:
        raise InvalidInput(f"`{shown(name)}` is not a field of a job{_did_you_mean(name)}", field=shown(name))
    if canonical == "loras":
        value = lora_items(name, value)
    if canonical == "output_format" and value == "jpeg":
        value = "jpg"
    return [(canonical, value)]


def _did_you_mean(name: str) -> str:
    known = [*KNOWN, *ALIASES, *SIZE_ALIASES]
    near = difflib.get_close_matches(name[:64].lower(), known, n=1, cutoff=0.7)
    return f"; did you mean `{near[0]}`?" if near else ""
