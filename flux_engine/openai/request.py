"""An OpenAI request -> the `input` of a job, and what the client wishes of the answer.

OpenAI's own fields are translated, a job's fields (`seed`, `steps`, `loras`, sent by `extra_body`) go through as they
are, and a field that is neither is taken with a warning, because the client gains new ones every month. Bounds are not
checked twice: parsing the job does that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from flux_engine.errors import InvalidInput
from flux_engine.job.base import JsonObject, ParseContext
from flux_engine.job.fields import ImageFields, clean_text
from flux_engine.job.limits import ModelLimits
from flux_engine.job.size import SIZE_ALIASES
from flux_engine.job.validation import is_same, shown, shown_name
from flux_engine.job.written.aliases import ALIASES, WITHOUT_EFFECT
from flux_engine.openai.mask import white_where_transparent
from flux_engine.openai.value import boolean, choice, given_fields, integer

Kind = Literal["image_generation", "image_edit"]
Quality = Literal["low", "medium", "high", "xhigh", "max"]

QUALITIES: Final[dict[str, Quality]] = {
    "auto": "medium",
    "low": "low",
    "medium": "medium",
    "standard": "medium",
    "high": "high",
    "hd": "high",
    "xhigh": "xhigh",
    "max": "max",
}
SHARE_OF_STEPS: Final[dict[Quality, float]] = {"low": 0.5, "medium": 1.0, "high": 1.5, "xhigh": 2.0, "max": math.inf}
OUTPUT_FORMATS: Final = ("png", "jpeg", "jpg", "webp")
BACKGROUNDS: Final = ("auto", "opaque", "transparent")
RESPONSE_FORMATS: Final = ("url", "b64_json")
MAX_PARTIAL_IMAGES: Final = 3
MODELS_OF_OPENAI: Final = ("gpt-image", "dall-e", "chatgpt-image")  # what their names begin with
ALWAYS_INLINE: Final = ("gpt-image", "chatgpt-image")  # whose clients look for no address
UNSEEN: Final = ("user", "safety_identifier")  # they name the end user and ask for nothing
INERT: Final = ("moderation", "style", "input_fidelity", "complexity", "frame_count", "frame_duration_ms", "svg")
TRANSLATED: Final = (
    *("prompt", "model", "n", "size", "quality", "response_format", "output_format", "output_compression"),
    *("background", "stream", "partial_images"),
)
PICTURES: Final = ("image", "images", "mask")  # of an edit
STEPS: Final = ("num_inference_steps", *(name for name, field in ALIASES.items() if field == "num_inference_steps"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What shapes the answer and not the picture. `response_format` is None where the server may choose."""

    kind: Kind
    quality: Quality
    response_format: Literal["url", "b64_json"] | None
    is_streamed: bool
    partial_images: int
    safety_identifier: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request: a job's `input` without `response_format`, the wishes, and what is not honoured."""

    job: JsonObject
    wishes: Wishes
    warnings: tuple[str, ...]


def generation_job(body: object, context: ParseContext) -> Asked:
    """The job of a `/v1/images/generations` body. Raises InvalidInput whose `field` is a name of the request."""
    given, warnings = given_fields(body), list[str]()
    job = _translated(given, context, warnings) | _passed_on(given, warnings)
    return _asked("image_generation", given, job, warnings)


def edit_job(body: object, context: ParseContext) -> Asked:
    """The job of a `/v1/images/edits` body: JSON, or what `form_body` makes of a form.

    Decodes the mask, which takes up to 0.3 s: call it in a thread. Raises InvalidInput as `generation_job` does.
    """
    given, warnings = given_fields(body), list[str]()
    pictures = _pictures(given, warnings)
    rest = {name: value for name, value in given.items() if name not in PICTURES}
    job = _translated(rest, context, warnings) | pictures | _passed_on(rest, warnings)
    return _asked("image_edit", given, job, warnings)


def _asked(kind: Kind, given: Mapping[str, Any], job: JsonObject, warnings: list[str]) -> Asked:
    is_streamed = boolean(given, "stream")
    partial_images = integer(given, "partial_images", 0, MAX_PARTIAL_IMAGES) or 0
    response_format = choice(given, "response_format", RESPONSE_FORMATS)
    if partial_images and not is_streamed:
        warnings.append("`partial_images` has no effect without `stream`")
    if is_streamed and response_format == "url":
        warnings.append("`response_format` `url` has no effect with `stream`: its events carry `b64_json`")
    if is_streamed and partial_images:
        job = job | {"preview": True}
    identifier = given.get("safety_identifier") or given.get("user")
    if response_format is None and str(given.get("model", "")).startswith(ALWAYS_INLINE):
        response_format = "b64_json"
    wishes = Wishes(
        kind=kind,
        quality=_quality(given),
        response_format="b64_json" if is_streamed else response_format,  # type: ignore[arg-type]
        is_streamed=is_streamed,
        partial_images=partial_images if is_streamed else 0,
        safety_identifier=clean_text(identifier) if isinstance(identifier, str) else None,
    )
    return Asked(job=job, wishes=wishes, warnings=tuple(warnings))


def _translated(given: Mapping[str, Any], context: ParseContext, warnings: list[str]) -> JsonObject:
    """What OpenAI's own fields say, under the names of a job."""
    job: JsonObject = {}
    if "prompt" not in given:
        raise InvalidInput("`prompt` is required", field="prompt")
    job["prompt"] = given["prompt"]
    model = given.get("model")
    if isinstance(model, str) and model.startswith(MODELS_OF_OPENAI) and context.find_model(model) is None:
        warnings.append(f"`model` {shown(model)} is OpenAI's: this endpoint's own model was used")
        model = None
    if model is not None:
        job["model"] = model
    if "n" in given:
        job["num_images"] = given["n"]
    if given.get("size", "auto") != "auto":
        job["size"] = given["size"]
    if (output_format := choice(given, "output_format", OUTPUT_FORMATS)) is not None:
        job["output_format"] = output_format
    if (compression := integer(given, "output_compression", 0, 100)) is not None:
        job["output_quality"] = max(1, compression)
    if choice(given, "background", BACKGROUNDS) == "transparent":
        warnings.append("`background` `transparent` has no effect: FLUX paints opaque pictures")
    steps = _steps(_quality(given), model, context)
    if steps is not None and any(name in given for name in STEPS):
        warnings.append("`quality` has no effect beside a number of steps")
    elif steps is not None:
        job["num_inference_steps"] = steps
    return job


def _quality(given: Mapping[str, Any]) -> Quality:
    return QUALITIES[choice(given, "quality", tuple(QUALITIES)) or "auto"]


def _steps(quality: Quality, model: object, context: ParseContext) -> int | None:
    """The steps that `quality` means for the model; None for its own number, or where parsing will refuse the model."""
    if quality == "medium":
        return None
    limits: ModelLimits | None = context.default_model() if model is None else None
    if isinstance(model, str):
        limits = context.find_model(model)
    if limits is None:
        return None
    least, most = limits.num_inference_steps_bounds
    return round(min(max(limits.num_inference_steps * SHARE_OF_STEPS[quality], least), most))


def _passed_on(given: Mapping[str, Any], warnings: list[str]) -> JsonObject:
    """The fields of `given` that a job has and OpenAI has not."""
    fields = ImageFields.model_fields.keys() - {"type"}  # a video is no answer to this request
    known = {*fields, *SIZE_ALIASES, *WITHOUT_EFFECT, *(alias for alias, field in ALIASES.items() if field in fields)}
    job: JsonObject = {}
    for name, value in given.items():
        if name in (*TRANSLATED, *UNSEEN):
            continue
        if name in INERT:
            warnings.append(f"`{name}` has no effect here")
        elif name in known:
            job[name] = value
        else:
            warnings.append(f"`{shown_name(name)}` is not known here and has no effect")
    return job


# ----------------------------------------------------------------------------------------------- an edit's pictures


def _pictures(given: Mapping[str, Any], warnings: list[str]) -> JsonObject:
    """`image`, or several as `images`, and `mask`, each an https URL, a data URI or base64."""
    name = "images" if "images" in given else "image"
    if name == "images" and "image" in given and not is_same(given["image"], given[name]):
        raise InvalidInput("`image` and `images` give different pictures; send one of them", field="images")
    value = given.get(name)
    items = value if isinstance(value, list) else [] if value is None else [value]
    sources = [_source(item, name) for item in items]
    if not sources:
        raise InvalidInput("`image` is required: the picture to edit", field="image")
    if "mask" not in given:
        return {"image": sources[0]} if len(sources) == 1 else {"images": sources}
    if len(sources) > 1:
        raise InvalidInput("`mask` goes with one `image`; send one, or leave `mask` out", field="mask")
    return {"image": sources[0], "mask": white_where_transparent(_source(given["mask"], "mask"), warnings)}


def _source(item: object, name: str) -> str:
    """A picture as the text that a job takes: given as such, or as `{"image_url": ...}`."""
    if isinstance(item, Mapping):
        if item.get("file_id") is not None:
            raise InvalidInput(
                f"`file_id` in `{name}` needs OpenAI's files, which this server has not; send `image_url`", field=name
            )
        url = item.get("image_url")
        item = url.get("url") if isinstance(url, Mapping) else url
    if not isinstance(item, str) or not item:
        raise InvalidInput(f"`{name}` must be a picture: a file, a data URI or an https URL", field=name)
    return item
