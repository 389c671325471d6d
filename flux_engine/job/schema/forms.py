"""What JSON Schema says of the fields that have forms of their own, and an example of every field.

pydantic's declarations say `Any` of these: sizes, LoRAs, keyframes, motion and schedules are parsed apart.
"""

from __future__ import annotations

from typing import Any, Final

from flux_engine.job.edits.control import MAX_CONTROLS, ControlFields
from flux_engine.job.edits.expand import ExpandFields
from flux_engine.job.fields import MAX_LORAS, SIDE_BOUNDS, LoraItem
from flux_engine.job.size import IMAGE_SIZE_PRESETS
from flux_engine.job.video_fields import MAX_KEYFRAMES, MAX_SCHEDULE_POINTS, SCHEDULE_BOUNDS, KeyframeFields
from flux_engine.job.written.loras import ITEM_ALIASES

JsonSchema = dict[str, Any]

PICTURE: Final = (  # 8x8 pixels, blue above green
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAG0lEQVR42mPUiFrAgA0w"
    "MeAAVJRgETGaQyWjACdrAhaM9WZ3AAAAAElFTkSuQmCC"
)
MASK: Final = (  # 8x8 pixels, white on the right
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAAFklEQVR42mNkYGBg+M/A"
    "wMDEAAXkMQBFRQEPJug6iwAAAABJRU5ErkJggg=="
)
EXAMPLES: Final[dict[str, list[Any]]] = {
    "type": ["image"],
    "prompt": ["a red sun on the left over purple mountains, a lake, dusk"],
    "negative_prompt": ["trees"],
    "true_cfg_scale": [2.5],
    "width": [192],
    "height": [128],
    "aspect_ratio": ["16:9"],
    "seed": [7, -1],
    "lora_scale": [0.8],
    "image": [PICTURE],
    "mask": [MASK],
    "images": [[PICTURE], [PICTURE, MASK]],
    "mask_feather": [4],
    "mask_crop": [32],
    "expand": [{"right": 64}, {"left": 32, "right": 32, "top": 16, "bottom": 0}],
    "upscale": [2],
    "enhance_prompt": [False],
    "boxes": [[{"prompt": "a red sun", "x": 0.1, "y": 0.1, "width": 0.2, "height": 0.2}]],
    "control": [
        {"type": "canny", "image": PICTURE},
        [{"type": "depth", "image": PICTURE, "strength": 0.5, "end": 0.6}],
    ],
    "strength": [0.6],
    "output_format": ["webp"],
    "output_quality": [80],
    "preview": [True],
    "cache": [False],
    "metadata": [{"order": 5}],
    "num_images": [2],
    "num_frames": [24],
    "fps": [12],
    "duration": [1.5],
    "keyframes": [
        [{"frame": 0, "prompt": "a red sun on the left"}, {"frame": 12, "prompt": "a red sun on the right", "seed": 8}],
        {"0": "a red sun, dawn", "12": "a white moon, night"},
    ],
    "mode": ["feedback"],
    "motion": [{"zoom": 1.02, "rotate": [[0, 0], [12, 3]]}],
    "generated_fps": [6],
    "loop": [True],
}
OF_VIDEOS: Final[dict[str, list[Any]]] = {  # where a video's form is another
    "type": ["video"],
    "strength": [0.5, [[0, 0.3], [12, 0.6]]],
    "output_format": ["webm"],
}


def schedule(name: str) -> JsonSchema:
    """A number, or a list of `[frame, value]`."""
    low, high = SCHEDULE_BOUNDS[name]
    least = {"exclusiveMinimum": low} if name == "strength" else {"minimum": low}
    value = {"type": "number", **least, "maximum": high}
    point = {"type": "array", "prefixItems": [{"type": "integer", "minimum": 0}, value], "items": False, "minItems": 2}
    return {"anyOf": [value, {"type": "array", "items": point, "minItems": 1, "maxItems": MAX_SCHEDULE_POINTS}]}


def forms_of_images() -> dict[str, JsonSchema]:
    """The fields of a picture that are parsed apart."""
    expand, control = (_undescribed(fields.model_json_schema()) for fields in (ExpandFields, ControlFields))
    listed = {"type": "array", "items": control, "minItems": 1, "maxItems": MAX_CONTROLS}
    return {"expand": expand | {"minProperties": 1}, "control": {"anyOf": [control, listed]}}


def _undescribed(schema: JsonSchema) -> JsonSchema:
    """Without what the declaration says of itself: the field has a description of its own."""
    return {name: part for name, part in schema.items() if name != "description"}


def forms_of_videos() -> dict[str, JsonSchema]:
    """The fields of a video that are parsed apart."""
    keyframe = KeyframeFields.model_json_schema()
    by_frame = {"type": "object", "propertyNames": {"pattern": "^[0-9]{1,4}$"}, "additionalProperties": _prompt()}
    return {
        "keyframes": {
            "anyOf": [
                {"type": "array", "items": keyframe, "minItems": 1, "maxItems": MAX_KEYFRAMES},
                {**by_frame, "required": ["0"], "maxProperties": MAX_KEYFRAMES},
            ]
        },
        "motion": {
            "type": "object",
            "properties": {name: schedule(name) for name in SCHEDULE_BOUNDS if name != "strength"},
            "additionalProperties": False,
        },
        "strength": schedule("strength"),
    }


def loras() -> JsonSchema:
    """One LoRA or a list, each a path or an object."""
    declared = LoraItem.model_json_schema()["properties"]
    named = {**declared, **{alias: declared[name] for alias, name in ITEM_ALIASES.items()}}
    paths = [{"required": [name]} for name in ("path", *(alias for alias, of in ITEM_ALIASES.items() if of == "path"))]
    item = {
        "anyOf": [
            declared["path"],
            {"type": "object", "properties": named, "additionalProperties": False, "anyOf": paths},
        ]
    }
    return {"anyOf": [{"type": "array", "items": item, "maxItems": MAX_LORAS}, item]}


def size(max_pixels: int) -> JsonSchema:
    """`size` and `image_size`: width and height in one."""
    presets = [name for name, (width, height) in IMAGE_SIZE_PRESETS.items() if width * height <= max_pixels]
    side = {"type": "integer", "minimum": SIDE_BOUNDS[0], "maximum": SIDE_BOUNDS[1]}
    sides = {"type": "object", "properties": {"width": side, "height": side}, "additionalProperties": False}
    return {
        "anyOf": [
            {"type": "string", "pattern": r"^\s*[0-9]{1,8}\s*[xX*]\s*[0-9]{1,8}\s*$"},
            {"enum": presets},
            {**sides, "minProperties": 1},
        ],
        "description": '"WIDTHxHEIGHT", an object of both, or a preset; in place of `width` and `height`',
        "examples": ["192x128", {"width": 128, "height": 192}],
    }


def _prompt() -> JsonSchema:
    prompt: JsonSchema = KeyframeFields.model_json_schema()["properties"]["prompt"]
    return prompt
