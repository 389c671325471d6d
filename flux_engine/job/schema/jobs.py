"""JSON Schema (2020-12) of the jobs that one model takes, made from the declarations by which jobs are parsed.

The types, bounds and descriptions are those of ImageFields and VideoFields, the bounds and defaults of a model those of
its ModelLimits, and the aliases those of aliases.py, so that a schema cannot part from what is parsed. What a schema
refuses, parsing refuses. Relations between fields, such as the pixels of width x height, are told in descriptions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal

from flux_engine.job.base import DEFAULT_QUALITY, ParseContext
from flux_engine.job.fields import MAX_BOXES, BoxItem, ImageFields, SharedFields
from flux_engine.job.formats import SPELLINGS
from flux_engine.job.image import DEFAULT_STRENGTH
from flux_engine.job.limits import ModelLimits
from flux_engine.job.schema.forms import (
    EXAMPLES,
    OF_VIDEOS,
    PICTURE,
    JsonSchema,
    forms_of_images,
    forms_of_videos,
    loras,
    size,
)
from flux_engine.job.size import SIZE_ALIASES
from flux_engine.job.timeline import DEFAULT_STRENGTH as DEFAULT_VIDEO_STRENGTH
from flux_engine.job.video import DEFAULT_FRAMES
from flux_engine.job.video_fields import VideoFields
from flux_engine.job.written.aliases import ALIASES, ONLY_VIDEOS_HAVE, VIDEO_SPELLINGS, WITHOUT_EFFECT
from flux_engine.job.written.pictures import FIRST, numbered_name

Kind = Literal["image", "video"]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
TOLD: Final = {"description", "examples", "x-aliases"}  # kept beside the values of an `enum`
KEYWORDS: Final = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum"}  # pydantic's, past a validator
FIELDS: Final[dict[Kind, type[SharedFields]]] = {"image": ImageFields, "video": VideoFields}


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One model as an endpoint offers it. `names`: what a job's `model` may say, the id first."""

    limits: ModelLimits
    names: tuple[str, ...]
    is_default: bool
    makes_videos: bool


def job_schema(kind: Kind, offer: Offer, context: ParseContext, *, volume_loras: Sequence[str] = ()) -> JsonSchema:
    """The schema of a `kind` of job for one model. `volume_loras` are the examples of `loras`."""
    properties = _declared(kind)
    for name, changes in _of_model(kind, offer, context).items():
        properties[name] = _narrowed(properties[name], changes)
    for name in _untaken(kind, offer.limits):
        del properties[name]
    if volume_loras:
        properties["loras"]["examples"] = [[{"path": volume_loras[0], "scale": 0.8}], volume_loras[0]]
    for name in ("width", "height"):
        properties[name]["description"] += f"; at most {offer.limits.max_pixels} pixels together"
    aliases = {name: _alias(name, of) for name, of in _aliases(kind) if of in properties}
    schema: JsonSchema = {
        "$schema": DIALECT,
        "title": f"{kind} job for {offer.limits.id}",
        "type": "object",
        "properties": properties | aliases | _loose(kind, offer.limits),
        "additionalProperties": False,
        "allOf": [_required(names) for names in _needed(kind, offer)],
        "examples": _examples(kind, offer),
    }
    if kind == "video":
        schema["description"] = f"frames x steps x megapixels is at most {context.max_video_work:g}"
    return schema


def prepare() -> None:
    """Make what all schemas share, in some 30 ms, so that the first question need not."""
    for kind in FIELDS:
        _cached(kind)


# --------------------------------------------------------------------------------------------- from declarations


def _declared(kind: Kind) -> dict[str, JsonSchema]:
    """The schema of every field, before any model is known. Its parts may be replaced and not changed."""
    return {name: dict(property_) for name, property_ in _cached(kind).items()}


@cache
def _cached(kind: Kind) -> dict[str, JsonSchema]:
    declared = FIELDS[kind].model_json_schema()["properties"]
    own = forms_of_videos() if kind == "video" else forms_of_images()
    examples = EXAMPLES | (OF_VIDEOS if kind == "video" else {})
    properties = {}
    for name, field in declared.items():
        form = loras() if name == "loras" else own.get(name, {})
        property_ = _nullable(_flat(field) | _flat(form))
        property_["examples"] = examples.get(name, [])
        aliases = [alias for alias, of in _aliases(kind) if of == name]
        properties[name] = property_ | ({"x-aliases": aliases} if aliases else {})
    return properties


def _flat(declared: Any) -> Any:
    """pydantic's schema with the standard's keywords, without titles and without `anyOf` for null."""
    if isinstance(declared, list):
        return [_flat(item) for item in declared]
    if not isinstance(declared, dict):
        return declared
    flat = {KEYWORDS.get(name, name): _flat(part) for name, part in declared.items() if name != "title"}
    forms = [form for form in flat.get("anyOf", []) if form != {"type": "null"}]
    if len(forms) == 1 and len(flat["anyOf"]) == 2:
        del flat["anyOf"]
        flat |= forms[0]
    if "default" in flat and flat["default"] is None:
        del flat["default"]
    return flat


def _nullable(property_: JsonSchema) -> JsonSchema:
    """Null is the same as absent."""
    if "const" in property_:
        property_["enum"] = [property_.pop("const")]
    if "enum" in property_:
        property_["enum"] = [*property_["enum"], None]
        property_.pop("type", None)
    elif "anyOf" in property_:
        property_["anyOf"] = [*property_["anyOf"], {"type": "null"}]
        for name in ("type", "items", "maxItems"):
            property_.pop(name, None)
    elif "type" in property_:
        property_["type"] = [property_["type"], "null"]
    return property_


def _aliases(kind: Kind) -> Iterable[tuple[str, str]]:
    """Each alias with the field that it means, among those that a `kind` of job has."""
    for alias, name in ALIASES.items():
        if name in FIELDS[kind].model_fields and (kind == "video" or alias not in VIDEO_SPELLINGS):
            yield alias, name


def _alias(alias: str, name: str) -> JsonSchema:
    return {"$ref": f"#/properties/{name}", "description": f"The same as `{name}`"}


def _loose(kind: Kind, limits: ModelLimits) -> dict[str, JsonSchema]:
    """What a job may say that is no field: the ways to write a size, numbered references, and what other services
    have."""
    sizes = {name: _nullable(size(limits.max_pixels)) for name in SIZE_ALIASES}
    numbered = {
        numbered_name(n): {"description": f"Picture {n} of `images`, where `{FIRST}` is the first"}
        for n in range(2, limits.max_references + 1)
        if kind == "image"
    }
    return sizes | numbered | {name: {"description": "Accepted, without effect"} for name in WITHOUT_EFFECT}


# ------------------------------------------------------------------------------------------------------ by model


def _of_model(kind: Kind, offer: Offer, context: ParseContext) -> dict[str, JsonSchema]:
    """The bounds and defaults that belong to the model and the endpoint, by field."""
    limits = offer.limits
    changes: dict[str, JsonSchema] = {
        name: {"minimum": low, "maximum": high} for name, (low, high) in limits.bounds().items()
    }
    defaults = {
        "num_inference_steps": limits.num_inference_steps,
        "guidance_scale": limits.guidance_scale,
        "max_sequence_length": limits.max_sequence_length,
        "true_cfg_scale": limits.true_cfg_scale,
        "width": limits.side,
        "height": limits.side,
        "output_quality": DEFAULT_QUALITY,
        "output_format": "mp4" if kind == "video" else "png",
        "response_format": context.default_response_format,
        **({"num_frames": DEFAULT_FRAMES} if kind == "video" else {}),
        "strength": DEFAULT_VIDEO_STRENGTH if kind == "video" else _strength(limits),
        **({"mask_feather": limits.mask_feather} if kind == "image" else {}),
    }
    for name, default in defaults.items():
        if default is not None:
            changes.setdefault(name, {})["default"] = default
    for name in ("num_inference_steps", "guidance_scale", "max_sequence_length", "megapixels"):
        changes[name]["examples"] = [changes[name].get("default", changes[name]["maximum"])]
    formats: list[str | None] = ["url", "b64_json"] if context.can_return_urls else ["b64_json"]
    changes["response_format"] |= {"enum": [*formats, None], "examples": formats[-1:]}
    changes["model"] = {"enum": [*offer.names, *([None] if offer.is_default else [])], "examples": [offer.names[0]]}
    spelt = [name for name, of in SPELLINGS.items()] if kind == "image" else []
    known = _cached(kind)["output_format"]["enum"]
    changes["output_format"]["enum"] = [*known[:-1], *spelt, None]
    if kind == "image":
        most = limits.max_references
        changes["boxes"] = {"items": BoxItem.model_json_schema(), "maxItems": MAX_BOXES}
        if limits.enhances_prompt is not None:
            changes["enhance_prompt"] = {"default": limits.enhances_prompt}
        changes["images"] = {"maxItems": most, "examples": [e for e in EXAMPLES["images"] if len(e) <= most]}
    return changes


def _narrowed(property_: JsonSchema, changes: JsonSchema) -> JsonSchema:
    """`property_` with `changes`; an `enum` or a `minimum` stands in place of the bounds of the declaration."""
    gone = property_.keys() - TOLD if "enum" in changes else {"exclusiveMinimum"} if "minimum" in changes else set()
    return {name: part for name, part in property_.items() if name not in gone} | changes


def _strength(limits: ModelLimits) -> float | None:
    if limits.image_use == "reference":
        return None
    return 1.0 if limits.image_use == "canvas" else DEFAULT_STRENGTH


def _untaken(kind: Kind, limits: ModelLimits) -> tuple[str, ...]:
    """The fields that every job with this model is refused for."""
    if kind == "video":
        return ()
    takes = {
        **dict.fromkeys(("mask", "mask_feather", "mask_crop", "expand"), limits.takes_mask),
        "images": limits.max_references > 0,
        "boxes": limits.takes_boxes,
        "control": limits.takes_control,
    }
    return tuple(name for name, is_taken in takes.items() if not is_taken)


def _needed(kind: Kind, offer: Offer) -> list[list[str]]:
    """Names of which a job has to say one, by need."""
    needed = [["prompt", *(("keyframes",) if kind == "video" else ())]]
    if not offer.is_default:
        needed.append(["model"])
    if kind == "image" and offer.limits.image_use == "canvas":
        needed += [["image"], ["mask", "expand"]]
    if kind == "video":
        needed.append(["type", *ONLY_VIDEOS_HAVE, *VIDEO_SPELLINGS])
    aliases = list(_aliases(kind))
    return [[*names, *(alias for alias, of in aliases if of in names)] for names in needed]


def _required(names: Iterable[str]) -> JsonSchema:
    said = [{"required": [name], "properties": {name: {"not": {"type": "null"}}}} for name in names]
    return said[0] if len(said) == 1 else {"anyOf": said}


def _examples(kind: Kind, offer: Offer) -> list[dict[str, Any]]:
    """Whole jobs, small enough to run anywhere."""
    limits = offer.limits
    least = limits.num_inference_steps_bounds[0]
    plain: dict[str, Any] = {
        **({} if offer.is_default else {"model": limits.id}),
        "prompt": EXAMPLES["prompt"][0],
        "width": 128,
        "height": 128,
        "num_inference_steps": max(least, 2),
        "seed": 7,
    }
    if kind == "video":
        short = {**plain, "type": "video", "num_frames": 4, "fps": 4}
        return [short, {**short, "image": PICTURE, "strength": 0.5, "motion": {"zoom": 1.02}, "output_format": "webm"}]
    pictures = {"image": PICTURE, **({"mask": EXAMPLES["mask"][0]} if limits.takes_mask else {})}
    if limits.image_use == "canvas":
        return [{**plain, **pictures}]
    return [plain, {**plain, **pictures}, {"aspect_ratio": "16:9", **{n: plain[n] for n in plain if n not in SIDES}}]


SIDES: Final = ("width", "height")
