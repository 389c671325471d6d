"""What a client may ask for: the fields of a job, their aliases and bounds, and the job that comes of them.

`parse_job` is a pure function from the platform's job dictionary to a frozen job in which every parameter has its
effective value. Anything else raises InvalidInput that names the field and what it takes. Nothing is fetched,
decoded or loaded here, and no model is known: what depends on the model comes in as `ModelLimits`.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from flux_engine.errors import InvalidInput
from flux_engine.fields import MAX_LORAS, ImageFields, LoraItem, SharedFields, allowed_values

if TYPE_CHECKING:
    from flux_engine.video_job import VideoJob

JsonObject = dict[str, Any]
OutputFormat = Literal["png", "jpg", "webp"]
ResponseFormat = Literal["url", "b64_json"]
Fields = TypeVar("Fields", bound=BaseModel)

MAX_SEED: Final = 2**53 - 1
PIXELS_PER_MEGAPIXEL: Final = 1024 * 1024
SIZE_MULTIPLE: Final = 16
SIDE_BOUNDS: Final = (64, 2048)
MIN_MEGAPIXELS: Final = 0.25
MAX_METADATA_BYTES: Final = 4096
LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")
MAX_SHOWN_PATH: Final = 256
DEFAULT_LORA_SCALE: Final = 1.0
MAX_VIDEO_WORK: Final = 2000.0  # frames x steps x megapixels
NOT_ECHOED: Final = ("id", "metadata", "is_format_open", "warnings")

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
}
LORA_ITEM_ALIASES: Final = {"url": "path", "weight": "scale"}
SIZE_ALIASES: Final = ("size", "image_size")
IMAGE_SIZE_PRESETS: Final = {  # fal's names
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
}
WITHOUT_EFFECT: Final = ("go_fast", "acceleration", "scheduler")
NOT_YET: Final = (
    *("image", "image_url", "input_image", "init_image", "mask", "mask_image", "mask_url"),
    *("strength", "prompt_strength"),
)
VIDEO_INPUTS: Final = ("image", "image_url", "input_image", "init_image", "strength", "prompt_strength")
VIDEO_FIELDS: Final = (
    *("num_frames", "max_frames", "fps", "frames_per_second", "duration", "keyframes", "animation_prompts", "mode"),
    *("motion", "strength_schedule", "generated_fps", "loop", "video_format"),
)
KNOWN: Final = (*ImageFields.model_fields, *VIDEO_FIELDS, "image", "strength")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLimits:
    """Defaults and bounds that belong to a model. Sizes in pixels, text lengths in tokens."""

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


@dataclass(frozen=True, slots=True)
class LoraRequest:
    """A LoRA that a job names: where it comes from, in a form of the contract, and how strongly it acts."""

    path: str
    scale: float

    def shown(self) -> JsonObject:
        """As it is echoed: without a URL's query, which may be a signature, and without the bytes of a file."""
        path = self.path.partition("?")[0] if "://" in self.path[:16] else self.path
        if path.startswith("data:") or len(path) > MAX_SHOWN_PATH:
            path = f"base64 of {len(self.path)} characters"
        return {"path": path, "scale": self.scale}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What every valid job holds, each field at its effective value."""

    id: str
    model: str
    prompt: str
    negative_prompt: str | None
    true_cfg_scale: float
    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float | None
    seed: int
    loras: tuple[LoraRequest, ...]
    output_quality: int
    response_format: ResponseFormat
    max_sequence_length: int
    preview: bool
    cache: bool
    metadata: JsonObject | None
    is_format_open: bool  # the client named no output format
    warnings: tuple[str, ...]

    def echoed(self) -> JsonObject:
        """Every parameter but the kind of job."""
        echoed = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in NOT_ECHOED}
        return echoed | {"loras": [lora.shown() for lora in self.loras]}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageJob(Job):
    """A valid image job."""

    num_images: int
    output_format: OutputFormat

    def parameters(self) -> JsonObject:
        """The effective parameters as they are echoed to the client."""
        return {"type": "image"} | self.echoed()

    def seeds(self) -> list[int]:
        """The seed of each image: image i has `seed` + i, wrapped into 0 to MAX_SEED."""
        return [(self.seed + i) % (MAX_SEED + 1) for i in range(self.num_images)]


@dataclass(frozen=True, slots=True)
class ParseContext:
    """What this worker offers: its default model, the others, and how results are handed over."""

    default_model: ModelLimits
    find_model: Callable[[str], ModelLimits | None]
    served_models: tuple[str, ...]
    default_response_format: ResponseFormat
    can_return_urls: bool
    max_video_work: float = MAX_VIDEO_WORK


def parse_job(job: object, context: ParseContext) -> ImageJob | VideoJob:
    """Check the platform's job dictionary and fill in every default.

    Raises InvalidInput.
    """
    if not isinstance(job, Mapping):
        raise InvalidInput("the job must be a JSON object with an `input` object", field="input")
    raw = job.get("input")
    if not isinstance(raw, Mapping):
        raise InvalidInput('`input` must be a JSON object such as {"prompt": "a red sun"}', field="input")
    warnings: list[str] = []
    is_video = _is_video(raw)
    given = _canonical(raw, warnings, is_video=is_video)
    if is_video:
        from flux_engine.video_job import video_job  # it builds on this module

        return video_job(job_id(job), given, context, warnings)
    return _image_job(job_id(job), validated(ImageFields, given), context, warnings)


def job_id(job: object) -> str:
    """The platform's id of `job`, or `unknown` where it has none."""
    identity = job.get("id") if isinstance(job, Mapping) else None
    return identity if isinstance(identity, str) and identity else "unknown"


def derived_seed(job_id: str) -> int:
    """The seed of a job that names none: the same whenever the platform runs this job again."""
    return int.from_bytes(hashlib.sha256(job_id.encode("utf-8", "surrogatepass")).digest()[:8], "big") & MAX_SEED


# ------------------------------------------------------------------------------------- names and aliases


def _is_video(raw: Mapping[object, object]) -> bool:
    """Whether this is a video job: it says so, or has a field that only a video has."""
    video = [name for name, value in raw.items() if name in VIDEO_FIELDS and value is not None]
    kinds = [raw[name] for name in ("type", "task") if raw.get(name) is not None]
    if video and "image" in kinds:
        raise InvalidInput(
            f"`{video[0]}` belongs to a video job; leave it out or send `type`: `video`", field=str(video[0])
        )
    return bool(video) or "video" in kinds


def _canonical(raw: Mapping[object, object], warnings: list[str], *, is_video: bool) -> dict[str, object]:
    """The given fields under their canonical names; null is absent."""
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
        if name in NOT_YET and not (is_video and name in VIDEO_INPUTS):
            raise InvalidInput(f"`{name}` is not supported by this version of the worker; leave it out", field=name)
        for target, part in _targets(name, value):
            if target in given and not _same(given[target], part):
                both = f"`{source[target]}` and `{name}`" if source[target] != name else f"`{name}`"
                raise InvalidInput(f"{both} give `{target}` different values; send one of them", field=name)
            given[target], source[target] = part, name
    return given


def _targets(name: str, value: object) -> list[tuple[str, object]]:
    """What one given field says, under canonical names."""
    if name in SIZE_ALIASES:
        width, height = _size(name, value)
        return [("width", width), ("height", height)]
    canonical = ALIASES.get(name, name)
    if canonical not in KNOWN:
        raise InvalidInput(f"`{shown(name)}` is not a field of a job{_did_you_mean(name)}", field=shown(name))
    if canonical == "loras":
        value = _lora_items(name, value)
    if canonical == "output_format" and value == "jpeg":
        value = "jpg"
    return [(canonical, value)]


def _lora_items(name: str, value: object) -> tuple[LoraItem, ...]:
    """What `loras` or an alias of it says: one LoRA or a list, each a string or an object."""
    items = value if isinstance(value, list) else [value]
    if len(items) > MAX_LORAS:
        raise InvalidInput(f"`{name}` must be a list of up to {MAX_LORAS} LoRAs; got {len(items)}", field=name)
    return tuple(_lora_item(f"{name}[{index}]", item) for index, item in enumerate(items))


def _lora_item(name: str, item: object) -> LoraItem:
    written = item if isinstance(item, Mapping) else {"path": item}
    given: dict[str, object] = {}
    for key, value in written.items():
        canonical = LORA_ITEM_ALIASES.get(key, key)
        if value is None:
            continue
        if canonical not in LoraItem.model_fields:
            raise InvalidInput(f"`{shown(key)}` is not a field of `{name}`, which has `path` and `scale`", field=name)
        if canonical in given and not _same(given[canonical], value):
            raise InvalidInput(f"`{name}` gives `{canonical}` two different values; send one of them", field=name)
        given[canonical] = value
    try:
        return LoraItem.model_validate(given)
    except ValidationError as error:
        field = str(error.errors()[0]["loc"][0])
        allowed = "a string" if field == "path" else allowed_values(LoraItem, field)
        raise InvalidInput(f"`{name}.{field}` must be {allowed}", field=name) from None


def _size(name: str, value: object) -> tuple[object, object]:
    """Width and height of `size` or `image_size`; their bounds are checked later, as those of the fields."""
    if isinstance(value, str) and value in IMAGE_SIZE_PRESETS:
        return IMAGE_SIZE_PRESETS[value]
    if isinstance(value, str):
        parts = value.lower().replace("*", "x").split("x")
        if len(parts) == 2 and all(p.strip().isascii() and p.strip().isdigit() and len(p) < 9 for p in parts):
            return int(parts[0]), int(parts[1])
    if isinstance(value, Mapping) and set(value) == {"width", "height"}:
        return value["width"], value["height"]
    presets = ", ".join(IMAGE_SIZE_PRESETS)
    raise InvalidInput(f'`{name}` must be "WIDTHxHEIGHT", {{"width", "height"}} or one of {presets}', field=name)


def _same(one: object, other: object) -> bool:
    return type(one) is type(other) and one == other


def _did_you_mean(name: str) -> str:
    known = [*KNOWN, *ALIASES, *SIZE_ALIASES]
    near = difflib.get_close_matches(name[:64].lower(), known, n=1, cutoff=0.7)
    return f"; did you mean `{near[0]}`?" if near else ""


# ------------------------------------------------------------------------------------------------ values


def validated(model: type[Fields], given: Mapping[str, object]) -> Fields:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise _invalid(model, error.errors()[0]) from None


def _invalid(model: type[BaseModel], detail: ErrorDetails) -> InvalidInput:
    name = str(detail["loc"][0])
    if detail["type"] == "missing":
        return InvalidInput(f"`{name}` is required: {allowed_values(model, name)}", field=name)
    return InvalidInput(f"`{name}` must be {allowed_values(model, name)}; got {shown(detail['input'])}", field=name)


def shown(value: object) -> str:
    """`value` for a message: short, and free of what JSON cannot carry."""
    text = value if isinstance(value, str) else repr(value)[:200] if _is_small(value) else type(value).__name__
    clean = "".join(c if c.isprintable() else "?" for c in text)
    return clean if len(clean) <= 60 else clean[:57] + "..."


def _is_small(value: object) -> bool:
    if isinstance(value, int):
        return value.bit_length() < 600
    return value is None or isinstance(value, float)


def _image_job(identity: str, given: ImageFields, context: ParseContext, warnings: list[str]) -> ImageJob:
    if given.output_quality is not None and (given.output_format or "png") == "png":
        warnings.append("`output_quality` has no effect on png")
    return ImageJob(
        num_images=given.num_images,
        output_format=given.output_format or "png",
        is_format_open=given.output_format is None,
        **shared_values(identity, given, context, warnings),
        warnings=tuple(warnings),
    )


def shared_values(identity: str, given: SharedFields, context: ParseContext, warnings: list[str]) -> dict[str, Any]:
    """The fields of Job at their effective values, but for `is_format_open` and `warnings`; adds to `warnings`."""
    limits = _limits(given.model, context)
    width, height = _pixel_size(given, limits, warnings)
    negative_prompt, true_cfg_scale = _guided_by(given, limits, warnings)
    steps_bounds, length_bounds = limits.num_inference_steps_bounds, (16, limits.max_sequence_length_limit)
    steps, length = given.num_inference_steps, given.max_sequence_length
    return {
        "id": identity,
        "model": limits.id,
        "prompt": given.prompt,
        "negative_prompt": negative_prompt,
        "true_cfg_scale": true_cfg_scale,
        "width": width,
        "height": height,
        "num_inference_steps": _within("num_inference_steps", steps, limits.num_inference_steps, steps_bounds, limits),
        "guidance_scale": _guidance_scale(given.guidance_scale, limits, warnings),
        "seed": derived_seed(identity) if given.seed in (None, -1) else given.seed,
        "loras": _loras(given),
        "output_quality": given.output_quality or 90,
        "response_format": _response_format(given.response_format, context),
        "max_sequence_length": _within(
            "max_sequence_length", length, limits.max_sequence_length, length_bounds, limits
        ),
        "preview": given.preview,
        "cache": given.cache,
        "metadata": _metadata(given.metadata),
    }


def _loras(given: SharedFields) -> tuple[LoraRequest, ...]:
    if given.lora_scale is not None and not given.loras:
        raise InvalidInput("`lora_scale` needs a LoRA; name one in `loras`", field="lora_scale")
    default = DEFAULT_LORA_SCALE if given.lora_scale is None else given.lora_scale
    return tuple(LoraRequest(item.path, default if item.scale is None else item.scale) for item in given.loras)


def _limits(name: str | None, context: ParseContext) -> ModelLimits:
    if name is None:
        return context.default_model
    limits = context.find_model(name)
    if limits is None:
        served = ", ".join(context.served_models)
        raise InvalidInput(f"`model` must be one that this worker serves ({served}); got {shown(name)}", field="model")
    return limits


def _pixel_size(given: SharedFields, limits: ModelLimits, warnings: list[str]) -> tuple[int, int]:
    if given.aspect_ratio is not None:
        if given.width is not None or given.height is not None:
            raise InvalidInput(
                "`aspect_ratio` excludes `width` and `height`; send one or the other", field="aspect_ratio"
            )
        return _size_of_ratio(given.aspect_ratio, given.megapixels, limits)
    if given.megapixels is not None:
        raise InvalidInput(
            "`megapixels` needs `aspect_ratio`; with `width` and `height` leave it out", field="megapixels"
        )
    width, height = given.width or limits.side, given.height or limits.side
    rounded = _to_multiple(width), _to_multiple(height)
    if rounded != (width, height):
        warnings.append(
            f"size rounded from {width}x{height} to {rounded[0]}x{rounded[1]}, multiples of {SIZE_MULTIPLE}"
        )
    if rounded[0] * rounded[1] > limits.max_pixels:
        raise InvalidInput(
            f"`width` x `height` is {rounded[0] * rounded[1]} pixels; {limits.id} makes at most {limits.max_pixels}",
            field="width" if given.width is not None else "height",
        )
    return rounded


def _size_of_ratio(ratio: str, megapixels: float | None, limits: ModelLimits) -> tuple[int, int]:
    """Multiples of 16 whose product is near `megapixels`, or near the model's own size where none is given."""
    most = limits.max_pixels / PIXELS_PER_MEGAPIXEL
    if megapixels is not None and not MIN_MEGAPIXELS <= megapixels <= most:
        raise InvalidInput(
            f"`megapixels` must be a number from {MIN_MEGAPIXELS:g} to {most:g} for {limits.id}; got {megapixels:g}",
            field="megapixels",
        )
    pixels = limits.side**2 if megapixels is None else megapixels * PIXELS_PER_MEGAPIXEL
    across, down = (int(part) for part in ratio.split(":"))
    width = _to_multiple(math.sqrt(pixels * across / down))
    height = _to_multiple(math.sqrt(pixels * down / across))
    while width * height > limits.max_pixels:
        width, height = (width - SIZE_MULTIPLE, height) if width >= height else (width, height - SIZE_MULTIPLE)
    return width, height


def _to_multiple(side: float) -> int:
    nearest = math.floor(side / SIZE_MULTIPLE + 0.5) * SIZE_MULTIPLE
    return min(max(nearest, SIDE_BOUNDS[0]), SIDE_BOUNDS[1])


def _guided_by(given: SharedFields, limits: ModelLimits, warnings: list[str]) -> tuple[str | None, float]:
    scale = given.true_cfg_scale if given.true_cfg_scale is not None else limits.true_cfg_scale
    negative = given.negative_prompt or None
    if negative and scale <= 1:
        warnings.append("`negative_prompt` has no effect unless `true_cfg_scale` is above 1")
    return negative, scale


def _guidance_scale(value: float | None, limits: ModelLimits, warnings: list[str]) -> float | None:
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


def _within(name: str, value: int | None, default: int, bounds: tuple[int, int], limits: ModelLimits) -> int:
    if value is None:
        return default
    if not bounds[0] <= value <= bounds[1]:
        raise InvalidInput(
            f"`{name}` must be an integer from {bounds[0]} to {bounds[1]} for {limits.id}; got {shown(value)}",
            field=name,
        )
    return value


def _response_format(value: ResponseFormat | None, context: ParseContext) -> ResponseFormat:
    if value == "url" and not context.can_return_urls:
        raise InvalidInput(
            "`response_format` `url` needs a bucket and this endpoint has none; send `b64_json`",
            field="response_format",
        )
    return value or context.default_response_format


def _metadata(value: JsonObject | None) -> JsonObject | None:
    if value is None:
        return None
    try:
        value = json.loads(LONE_SURROGATE.sub("", json.dumps(value, allow_nan=False, ensure_ascii=False)))
        size = len(json.dumps(value, allow_nan=False).encode())
    except (ValueError, TypeError, RecursionError):
        raise InvalidInput("`metadata` must be a JSON object without NaN or infinity", field="metadata") from None
    if size > MAX_METADATA_BYTES:
        raise InvalidInput(
            f"`metadata` must be at most {MAX_METADATA_BYTES} bytes as JSON; got {size}", field="metadata"
        )
    return value


OUTPUT_FORMATS: Final[tuple[str, ...]] = get_args(OutputFormat)
