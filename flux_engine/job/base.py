"""What image and video jobs have in common: their shared parameters at effective values, and how these are found.

Models are unknown here: what depends on one is passed in as `ModelLimits`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Literal

from flux_engine.errors import InvalidInput
from flux_engine.job.fields import MAX_SEED, MIN_SEQUENCE_LENGTH, AspectRatio, SharedFields
from flux_engine.job.limits import ModelLimits, guidance_scale, guided_by, within
from flux_engine.job.size import pixel_size
from flux_engine.job.validation import Fields, shown, shown_picture, validated
from flux_engine.job.written.aliases import Written
from flux_engine.job.written.loras import LoraRequest, lora_requests
from flux_engine.job.written.prompt_syntax import syntax_warnings

JsonObject = dict[str, Any]
ResponseFormat = Literal["url", "b64_json"]

MAX_METADATA_BYTES: Final = 4096
LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")
MAX_VIDEO_WORK: Final = 2000.0  # frames x steps x megapixels
DEFAULT_QUALITY: Final = 90
NOT_ECHOED: Final = ("id", "metadata", "is_format_open", "is_size_open", "is_enhancing_open", "warnings")
SEED_TAKES: Final = (
    f"an integer from -1 to {MAX_SEED}, the largest that every JSON reader keeps exact (send a larger one modulo 2^53)"
)
SOURCES: Final = ("image", "mask")  # fetched later; echoed without the parts that may be secret
REFERENCES: Final = "images"  # as SOURCES, several
CONTROL: Final = "control"  # each of which has an `image`


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The parameters of every valid job, each at its effective value."""

    id: str
    model: str
    prompt: str
    negative_prompt: str | None
    true_cfg_scale: float
    width: int
    height: int
    aspect_ratio: AspectRatio | None  # from which, with `megapixels`, width and height were derived
    megapixels: float | None
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
    image: str | None  # as sent, not yet fetched
    is_format_open: bool  # the client did not choose an output format
    is_size_open: bool  # the client wrote no size, so a picture's shape decides it
    warnings: tuple[str, ...]

    def echoed(self) -> JsonObject:
        """Every parameter except `type`, for the result."""
        echoed = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in NOT_ECHOED}
        sources: JsonObject = {
            name: shown_picture(value) for name in SOURCES if (value := echoed.get(name)) is not None
        }
        if echoed.get(REFERENCES) is not None:
            sources[REFERENCES] = [shown_picture(value) for value in echoed[REFERENCES]]
        if echoed.get(CONTROL) is not None:
            sources[CONTROL] = [control.shown() for control in echoed[CONTROL]]
        return echoed | sources | {"loras": [lora.shown() for lora in self.loras]}

    @property
    def names_content(self) -> bool:
        """Whether its fingerprint needs more than its parameters: the content of LoRAs, pictures or an upscaler."""
        return bool(self.loras or self.sources() or getattr(self, "upscale", None))

    def sources(self) -> dict[str, str]:
        """The pictures that the job brings, by field, `images[0]` for one of several; each is a URL, a data URI or
        base64."""
        single = {name: value for name in SOURCES if (value := getattr(self, name, None)) is not None}
        references = getattr(self, REFERENCES, None) or ()
        maps = getattr(self, CONTROL, None) or ()
        return (
            single
            | {f"{REFERENCES}[{index}]": value for index, value in enumerate(references)}
            | {f"{CONTROL}[{index}].image": control.image for index, control in enumerate(maps)}
        )


@dataclass(frozen=True, slots=True)
class ParseContext:
    """What this worker offers: its models, and how it delivers results."""

    default_model: Callable[[], ModelLimits]  # raises ModelUnavailable where its kind is unknown
    find_model: Callable[[str], ModelLimits | None]
    served_models: tuple[str, ...]
    default_response_format: ResponseFormat
    can_return_urls: bool
    max_video_work: float = MAX_VIDEO_WORK


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsing:
    """A job while it is parsed; `warnings` grows."""

    identity: str
    written: Written
    context: ParseContext
    warnings: list[str]

    def fields(self, model: type[Fields], changed: Mapping[str, object] | None = None) -> Fields:
        """The written fields, or `changed` in their place, as a `model`. Raises InvalidInput."""
        given = self.written.values if changed is None else changed
        limits = self._limits_named(given.get("model"))
        return validated(model, given, takes={"seed": SEED_TAKES} | (limits.takes() if limits is not None else {}))

    def _limits_named(self, name: object) -> ModelLimits | None:
        if name is None:
            return self.context.default_model()
        return self.context.find_model(name) if isinstance(name, str) else None


def derived_seed(job_id: str) -> int:
    """The seed of a job without one: the same each time the platform runs this job."""
    return int.from_bytes(hashlib.sha256(job_id.encode("utf-8", "surrogatepass")).digest()[:8], "big") & MAX_SEED


def shared_values(given: SharedFields, parsing: Parsing) -> dict[str, Any]:
    """The fields of Job at their effective values, except `is_format_open` and `warnings`; adds warnings."""
    identity, context, warnings = parsing.identity, parsing.context, parsing.warnings
    limits = model_limits(given.model, context)
    size = pixel_size(given, limits, warnings, written_as=parsing.written.size_name)
    negative_prompt, true_cfg_scale = guided_by(given, limits, warnings)
    warnings += syntax_warnings("prompt", given.prompt)
    warnings += syntax_warnings("negative_prompt", given.negative_prompt or "")
    steps_bounds = limits.num_inference_steps_bounds
    length_bounds = (MIN_SEQUENCE_LENGTH, limits.max_sequence_length_limit)
    steps, length = given.num_inference_steps, given.max_sequence_length
    return {
        "id": identity,
        "model": limits.id,
        "prompt": given.prompt,
        "negative_prompt": negative_prompt,
        "true_cfg_scale": true_cfg_scale,
        "width": size.width,
        "height": size.height,
        "aspect_ratio": size.aspect_ratio,
        "megapixels": size.megapixels,
        "num_inference_steps": within("num_inference_steps", steps, limits.num_inference_steps, steps_bounds, limits),
        "guidance_scale": guidance_scale(given.guidance_scale, limits, warnings),
        "seed": derived_seed(identity) if given.seed in (None, -1) else given.seed,
        "loras": lora_requests(given, warnings),
        "output_quality": given.output_quality or DEFAULT_QUALITY,
        "response_format": _response_format(given.response_format, context),
        "max_sequence_length": within("max_sequence_length", length, limits.max_sequence_length, length_bounds, limits),
        "preview": given.preview,
        "cache": given.cache,
        "metadata": _metadata(given.metadata),
        "image": given.image,
        "is_size_open": given.width is None and given.height is None and given.aspect_ratio is None,
    }


def model_limits(name: str | None, context: ParseContext) -> ModelLimits:
    """The limits of the model `name`, or of the default one. Raises InvalidInput and ModelUnavailable."""
    if name is None:
        return context.default_model()
    limits = context.find_model(name)
    if limits is None:
        served = ", ".join(context.served_models)
        raise InvalidInput(f"`model` must be one that this worker serves ({served}); got {shown(name)}", field="model")
    return limits


def _response_format(value: ResponseFormat | None, context: ParseContext) -> ResponseFormat:
    if value == "url" and not context.can_return_urls:
        raise InvalidInput(
            "`response_format` `url` needs a bucket and this endpoint has none; send `b64_json`, or an `s3Config`",
            field="response_format",
        )
    return value or context.default_response_format


def _metadata(value: JsonObject | None) -> JsonObject | None:
    if value is None:
        return None
    try:
        value = json.loads(LONE_SURROGATE.sub("", json.dumps(value, allow_nan=False, ensure_ascii=False)))
        compact = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        size = len(compact.encode())
    except (ValueError, TypeError, RecursionError):
        raise InvalidInput("`metadata` must be a JSON object without NaN or infinity", field="metadata") from None
    if size > MAX_METADATA_BYTES:
        raise InvalidInput(
            f"`metadata` must be at most {MAX_METADATA_BYTES} bytes as JSON; got {size}", field="metadata"
        )
    return value
