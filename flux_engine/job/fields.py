"""The fields that a client may send, with type and bounds, before any default of a model.

The documentation's tables and the texts of refusals are generated from these declarations.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import annotated_types
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.fields import FieldInfo

from flux_engine.job.formats import ImageFormat

AspectRatio = Literal["1:1", "16:9", "21:9", "3:2", "2:3", "4:5", "5:4", "3:4", "4:3", "9:16", "9:21"]
MAX_SEED: Final = 2**53 - 1  # the largest integer that every JSON reader keeps exact
SIDE_BOUNDS: Final = (64, 2048)  # pixels
MIN_SEQUENCE_LENGTH: Final = 16  # tokens

SPACES: Final = re.compile(r"[\t\n\r\v\f]")
NOT_TEXT: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufeff]")  # control characters, surrogates, the BOM
INVISIBLE: Final = "\u200b\u200c\u200d\u200e\u200f\u2060"  # they mean something within a text alone
AROUND: Final = "".join(char for char in map(chr, range(0x3001)) if char.isspace()) + INVISIBLE
MAX_DEPTH: Final = 4  # nesting of any value but `metadata`


def clean_text(value: str) -> str:
    """NFC text without control characters and lone surrogates; a line break or tab becomes a space. Blanks and the
    invisible characters that copying brings are taken from its ends.

    20 MB of base64 take a few milliseconds, with line breaks about 100.
    """
    if value.isascii() and value.isprintable():
        return value.strip()
    return unicodedata.normalize("NFC", NOT_TEXT.sub("", SPACES.sub(" ", value))).strip(AROUND)


def cleaned(value: object, *, depth: int = MAX_DEPTH) -> object:
    """`value` with every string in it cleaned."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, list) and depth:
        return [cleaned(item, depth=depth - 1) for item in value]
    if isinstance(value, Mapping) and depth:
        return {key: cleaned(item, depth=depth - 1) for key, item in value.items()}
    return value


def _integer(value: object) -> int:
    if isinstance(value, float) and value.is_integer() and abs(value) <= MAX_SEED:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("not an integer")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("not a number")
    if abs(value) > MAX_SEED or not math.isfinite(value):
        raise ValueError("not finite")
    return float(value) + 0.0  # -0.0 is 0.0


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("not true or false")
    return value


Integer = Annotated[int, BeforeValidator(_integer)]
Number = Annotated[float, BeforeValidator(_number)]
Boolean = Annotated[bool, BeforeValidator(_boolean)]

Prompt = Annotated[str, Field(min_length=1, max_length=4000)]
NegativePrompt = Annotated[str, Field(max_length=4000)]
Side = Annotated[Integer, Field(ge=SIDE_BOUNDS[0], le=SIDE_BOUNDS[1])]
Picture = Annotated[str, Field(min_length=1)]  # its size is checked where it is fetched

MAX_REFERENCES: Final = 10  # of any model
MAX_FEATHER: Final = 64  # pixels
MAX_MASK_CROP: Final = 512  # pixels
MAX_BOXES: Final = 32
MAX_LORAS: Final = 4
MAX_LORA_CHARACTERS: Final = 28_000_000  # base64 of the platform's largest job, 20 MB


class LoraItem(BaseModel):
    """One item of `loras` under canonical names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Annotated[str, Field(min_length=1, max_length=MAX_LORA_CHARACTERS)] = Field(
        description="Where the LoRA comes from"
    )
    scale: Annotated[Number, Field(ge=-4, le=4)] | None = Field(None, description="Strength")


Share = Annotated[Number, Field(ge=0, le=1)]
PositiveShare = Annotated[Number, Field(gt=0, le=1)]


class BoxItem(BaseModel):
    """One item of `boxes`: what stands in a part of the picture, in shares of its sides from the upper left corner."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: Annotated[str, Field(min_length=1, max_length=1000)] = Field(description="What stands there")
    x: Share = Field(description="Left edge, a share of the width")
    y: Share = Field(description="Upper edge, a share of the height")
    width: PositiveShare = Field(description="A share of the width")
    height: PositiveShare = Field(description="A share of the height")


class SharedFields(BaseModel):
    """What every job may hold: canonical names, clean text, no nulls, no defaults of a model yet."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: Prompt = Field(description="What the picture shows")
    negative_prompt: NegativePrompt | None = Field(
        None, description="What it does not show; needs `true_cfg_scale` > 1"
    )
    true_cfg_scale: Annotated[Number, Field(ge=1, le=10)] | None = Field(None, description="Classifier-free guidance")
    model: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        None, description="A model of this worker"
    )
    width: Side | None = Field(None, description="Pixels, rounded to a multiple of 16")
    height: Side | None = Field(None, description="Pixels, rounded to a multiple of 16")
    aspect_ratio: AspectRatio | None = Field(None, description="In place of width and height")
    megapixels: Annotated[Number, Field(gt=0, le=16)] | None = Field(None, description="Area, with `aspect_ratio` only")
    num_inference_steps: Annotated[Integer, Field(ge=1, le=1000)] | None = Field(None, description="Denoising steps")
    guidance_scale: Annotated[Number, Field(ge=0, le=100)] | None = Field(None, description="Distilled guidance")
    seed: Annotated[Integer, Field(ge=-1, le=MAX_SEED)] | None = Field(None, description="-1: derived from the job id")
    loras: Annotated[tuple[LoraItem, ...], Field(max_length=MAX_LORAS)] = Field((), description="Adapters to apply")
    lora_scale: Annotated[Number, Field(ge=-4, le=4)] | None = Field(
        None, description="Scale of the LoRAs without one of their own"
    )
    image: Picture | None = Field(None, description="Https URL, data URI or base64 of a picture to start from")
    output_quality: Annotated[Integer, Field(ge=1, le=100)] | None = Field(None, description="Quality of lossy formats")
    response_format: Literal["url", "b64_json"] | None = Field(None, description="A link, or the file itself")
    max_sequence_length: Annotated[Integer, Field(ge=MIN_SEQUENCE_LENGTH, le=8192)] | None = Field(
        None, description="Text tokens that the model reads"
    )
    preview: Boolean = Field(False, description="Progress carries small preview pictures")
    cache: Boolean = Field(True, description="false: neither read nor write the result cache")
    metadata: dict[str, Any] | None = Field(None, description="Up to 4 KB of JSON, echoed")


class ImageFields(SharedFields):
    """An image job as a client sends it."""

    type: Literal["image"] = Field("image", description="Kind of job")
    num_images: Annotated[Integer, Field(ge=1, le=4)] = Field(1, description="Image i has seed + i")
    images: tuple[Picture, ...] | None = Field(
        None, description='References in the order of "image 1", "image 2" in the prompt; in place of `image`'
    )
    enhance_prompt: Boolean | None = Field(None, description="The model's prompt upsampler writes the prompt out first")
    boxes: tuple[BoxItem, ...] | None = Field(
        None, description="List of `{prompt, x, y, width, height}`, shares of the sides"
    )
    mask: Picture | None = Field(None, description="As `image`; white is repainted")
    mask_feather: Annotated[Integer, Field(ge=0, le=MAX_FEATHER)] | None = Field(
        None, description="Pixels over which the seam is blended, inside the mask; needs `mask` or `expand`"
    )
    mask_crop: Annotated[Integer, Field(ge=0, le=MAX_MASK_CROP)] | None = Field(
        None, description="Cut the masked part out with this many pixels around it, draw it at the model's own size"
    )
    expand: Any = Field(None, description="Pixels added to each side of `image` and painted")
    upscale: Annotated[Literal[2, 4], BeforeValidator(_integer)] | None = Field(
        None, description="How many times the finished picture is enlarged"
    )
    control: Any = Field(None, description="A map that the picture follows, or two, by a ControlNet on the volume")
    strength: Annotated[Number, Field(gt=0, le=1)] | None = Field(None, description="How much of `image` is redrawn")
    output_format: ImageFormat | None = Field(None, description="File format")


def allowed_values(model: type[BaseModel], name: str) -> str:
    """What a field takes, in words, such as `an integer from 64 to 2048`."""
    return describe(model.model_fields[name])


def describe(field: FieldInfo) -> str:
    """The type and bounds of one field, in words."""
    metadata = list(field.metadata)
    annotation = field.annotation
    arguments = [a for a in get_args(annotation) if a is not type(None)]
    if get_origin(annotation) not in (Literal, tuple) and len(arguments) == 1 and type(None) in get_args(annotation):
        annotation = arguments[0]
    while get_origin(annotation) is Annotated:
        annotation, *extra = get_args(annotation)
        metadata = [*_flattened(extra), *metadata]
    if get_origin(annotation) is Literal:
        values = [str(v) for v in get_args(annotation)]
        return f"`{values[0]}`" if len(values) == 1 else "one of " + ", ".join(values)
    return _noun(annotation) + _bounds(metadata)


def _flattened(extra: list[Any]) -> list[Any]:
    return [part for item in extra for part in (item.metadata if isinstance(item, FieldInfo) else [item])]


def _noun(annotation: object) -> str:
    if get_origin(annotation) is tuple and get_args(annotation)[0] is BoxItem:
        return f"a list of up to {MAX_BOXES} boxes"
    if get_origin(annotation) is tuple and get_args(annotation)[0] is not LoraItem:
        return f"a list of up to {MAX_REFERENCES} pictures"
    if get_origin(annotation) is tuple:
        return f"a list of up to {MAX_LORAS} of `{{path, scale}}`"
    nouns = {str: "a string", int: "an integer", float: "a number", bool: "true or false"}
    return nouns.get(annotation, "a JSON object") if isinstance(annotation, type) else "a JSON object"


def _bounds(metadata: list[Any]) -> str:
    low = next((m.ge for m in metadata if isinstance(m, annotated_types.Ge)), None)
    above = next((m.gt for m in metadata if isinstance(m, annotated_types.Gt)), None)
    high = next((m.le for m in metadata if isinstance(m, annotated_types.Le)), None)
    shortest = next((m.min_length for m in metadata if isinstance(m, annotated_types.MinLen)), 0)
    longest = next((m.max_length for m in metadata if isinstance(m, annotated_types.MaxLen)), None)
    if longest is not None and longest != MAX_LORAS:
        return f" of {shortest} to {longest} characters"
    if shortest:
        return " that is not empty"
    if low is not None and high is not None:
        return f" from {low} to {high}"
    return f" above {above} and up to {high}" if above is not None else ""
