"""The schemas of jobs against parsing: every bound of every field and model, at it and beyond it; every example."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from flux_engine.errors import InvalidInput
from flux_engine.job.base import ParseContext
from flux_engine.job.fields import ImageFields
from flux_engine.job.parse import Request, parse_job
from flux_engine.job.schema.forms import EXAMPLES, MASK, OF_VIDEOS, PICTURE
from flux_engine.job.schema.jobs import Kind, Offer, job_schema
from flux_engine.job.video_fields import VideoFields
from flux_engine.job.written.aliases import ALIASES, WITHOUT_EFFECT
from flux_engine.models.catalog import CATALOG, FLUX_2_DEV, FLUX_3_KLEIN, FLUX_TINY
from flux_engine.models.spec import ModelSpec

EPSILON = 0.1  # beyond a bound that numbers may not reach
LONG = 100_000  # characters; longer texts are tried with one model
SMALL_VIDEO: dict[str, Any] = {"type": "video", "prompt": "a red sun", "width": 64, "height": 64}
BESIDE: Mapping[str, dict[str, Any]] = {  # what a field needs or is bounded by
    "width": {"height": 64},
    "height": {"width": 64},
    "megapixels": {"aspect_ratio": "1:1"},
    "generated_fps": {"fps": 60},
    "keyframes": {"num_frames": 480},
    "motion": {"mode": "feedback"},
    "mask": {"image": PICTURE},
    "mask_feather": {"image": PICTURE, "mask": MASK},
    "mask_crop": {"image": PICTURE, "mask": MASK},
    "expand": {"image": PICTURE},
}
KINDS: tuple[Kind, ...] = ("image", "video")
OFFERS = [(spec, kind) for spec in CATALOG for kind in KINDS if kind == "image" or spec.makes_videos]
Case = tuple[Any, bool]


def offer_of(spec: ModelSpec) -> Offer:
    return Offer(
        limits=spec.limits,
        names=(spec.id, spec.name, *spec.aliases) if spec.name != spec.id else (spec.id, *spec.aliases),
        is_default=spec is FLUX_TINY,
        makes_videos=spec.makes_videos,
    )


def base_job(spec: ModelSpec, kind: Kind, name: str) -> dict[str, Any]:
    """A job to put field `name` into."""
    job: dict[str, Any] = dict(SMALL_VIDEO) if kind == "video" else {"prompt": "a red sun"}
    if spec is not FLUX_TINY:
        job["model"] = spec.id
    if kind == "video" and name == "strength":
        job["mode"] = "feedback"
    if kind == "video" and name == "type":
        job["num_frames"] = 2
    if kind == "video" and name in ("aspect_ratio", "megapixels", "size", "image_size"):
        del job["width"], job["height"]
        job["num_frames"] = 2
    if kind == "image" and (name == "strength" or spec.limits.image_use == "canvas"):
        job["image"] = PICTURE
    if kind == "image" and spec.limits.image_use == "canvas":
        job["mask"] = MASK
    beside = BESIDE.get(name, {})
    return job | beside


def taken(job: dict[str, Any], context: ParseContext) -> bool:
    try:
        parse_job(Request(id="job-1", input=job), context)
    except InvalidInput:
        return False
    return True


# -------------------------------------------------------------------------------------- the values at each bound


def values(schema: Mapping[str, Any]) -> Iterator[Case]:
    """Values at the bounds of `schema` and one beyond, and whether they are to be taken."""
    for form in schema.get("anyOf", []):
        yield from values(form)
    if "enum" in schema:
        yield from ((value, True) for value in schema["enum"])
        yield "no-such-value", False
    yield from numbers(schema)
    if "minLength" in schema:
        yield from [("x" * schema["minLength"], True), ("x" * (schema["minLength"] - 1), False)]
    if "maxLength" in schema:
        yield from [("x" * schema["maxLength"], True), ("x" * (schema["maxLength"] + 1), False)]
    if "boolean" in types(schema):
        yield from [(True, True), (False, True), (1, False), ("true", False)]


def numbers(schema: Mapping[str, Any]) -> Iterator[Case]:
    beyond = 1 if "integer" in types(schema) else EPSILON
    if "minimum" in schema:
        yield from [(schema["minimum"], True), (schema["minimum"] - beyond, False)]
    if "exclusiveMinimum" in schema:
        yield from [(schema["exclusiveMinimum"] + EPSILON, True), (schema["exclusiveMinimum"], False)]
    if "maximum" in schema:
        yield from [(schema["maximum"], True), (schema["maximum"] + beyond, False), (True, False)]
        yield from [(float("nan"), False), (float("inf"), False), ("5", False), ([], False)]


def types(schema: Mapping[str, Any]) -> list[str]:
    kind = schema.get("type", [])
    return kind if isinstance(kind, list) else [kind]


def nested(name: str, schema: Mapping[str, Any]) -> Iterator[Case]:
    """Values at the bounds inside lists and objects."""
    if name == "loras":
        yield from loras(schema)
    elif name == "keyframes":
        yield from keyframes(schema)
    elif name == "motion":
        for part, schedule in schema["properties"].items():
            yield from (({part: value}, is_taken) for value, is_taken in schedules(schedule))
    elif name == "images":
        yield from references(schema)
    elif name == "control":
        item, listed = schema["anyOf"][:2]
        for part, form in item["properties"].items():
            whole = {"type": "canny", "image": PICTURE}
            yield from ((whole | {part: value}, is_taken) for value, is_taken in values(form))
        many = [{"type": "pose", "image": PICTURE}] * (listed["maxItems"] + 1)
        yield from [(many[:-1], True), (many, False), ([], False), ({"type": "pose"}, False), ("canny", False)]
    elif name == "expand":
        for part, form in schema["properties"].items():
            yield from (({"left": 1, "top": 1, part: value}, is_taken) for value, is_taken in values(form))
        yield from [({}, False), ({"left": 0, "right": 0}, False), ({"up": 1}, False), ([1, 1, 1, 1], False)]
    elif name == "strength" and len(schema.get("anyOf", [])) > 1:
        yield from schedules(schema)


def schedules(schema: Mapping[str, Any]) -> Iterator[Case]:
    number, points = schema["anyOf"][:2]
    yield from numbers(number)
    yield from (([[0, value]], is_taken) for value, is_taken in numbers(number))
    middle = (number["maximum"] + number.get("minimum", 0)) / 2
    many = [[frame, middle] for frame in range(points["maxItems"] + 1)]
    yield from [([], False), (many[:-1], points["maxItems"] <= 48), (many, False), ([[-1, middle]], False)]


def loras(schema: Mapping[str, Any]) -> Iterator[Case]:
    listed = schema["anyOf"][0]
    yield from [(["mosaic"] * listed["maxItems"], True), (["mosaic"] * (listed["maxItems"] + 1), False)]
    path, item = listed["items"]["anyOf"]
    yield from (([value], is_taken) for value, is_taken in values(path) if len(value) < LONG)
    for part, form in item["properties"].items():
        beside = {} if part in ("path", "url") else {"path": "mosaic"}
        for value, is_taken in values(form):
            if not isinstance(value, str) or len(value) < LONG:
                yield [{**beside, part: value}], is_taken


def references(schema: Mapping[str, Any]) -> Iterator[Case]:
    most = schema["maxItems"]
    yield from [([PICTURE] * most, True), ([PICTURE] * (most + 1), False), ([""], False), ([7], False)]


def keyframes(schema: Mapping[str, Any]) -> Iterator[Case]:
    listed, by_frame, _ = schema["anyOf"]
    many = [{"frame": i, "prompt": "x"} for i in range(listed["maxItems"] + 1)]
    yield from [([], False), (many[:-1], True), (many, False)]
    yield from ((dict.fromkeys(map(str, range(n)), "x"), n <= by_frame["maxProperties"]) for n in (1, 32, 33))
    for part, form in listed["items"]["properties"].items():
        for value, is_taken in values(form):
            first = [] if part != "frame" or value == 0 else [{"frame": 0, "prompt": "x"}]
            yield [*first, {"frame": 0, "prompt": "x", part: value}], is_taken


# ------------------------------------------------------------------------------------------------------ the tests


@pytest.mark.parametrize(("spec", "kind"), OFFERS, ids=[f"{spec.name}-{kind}" for spec, kind in OFFERS])
def test_every_bound_is_taken_and_refused_beyond(spec: ModelSpec, kind: Kind, context: ParseContext) -> None:
    schema = job_schema(kind, offer_of(spec), context)
    Draft202012Validator.check_schema(schema)
    valid = Draft202012Validator(schema)
    tried = 0
    for name, property_ in schema["properties"].items():
        for value, is_to_be_taken in [*values(property_), *nested(name, property_)]:
            job = base_job(spec, kind, name) | {name: value}
            said = f"{name}={str(value)[:80]}"
            assert taken(job, context) is is_to_be_taken, f"parsing: {said}"
            if value == value and not isinstance(value, str | dict | list):  # not NaN; what is nested says it elsewhere
                assert valid.is_valid(job) is is_to_be_taken or value == float("inf"), f"the schema: {said}"
            tried += 1
    assert tried > 150


@pytest.mark.parametrize(("spec", "kind"), OFFERS, ids=[f"{spec.name}-{kind}" for spec, kind in OFFERS])
def test_every_example_is_a_job(spec: ModelSpec, kind: Kind, context: ParseContext) -> None:
    schema = job_schema(kind, offer_of(spec), context, volume_loras=["mosaic.safetensors"])
    valid = Draft202012Validator(schema)
    jobs = [
        base_job(spec, kind, name) | {name: example}
        for name, property_ in schema["properties"].items()
        for example in property_.get("examples", [])
    ]
    for job in [*jobs, *schema["examples"]]:
        valid.validate(job)
        assert taken(job, context), job
    assert len(schema["examples"]) >= (1 if spec.limits.image_use == "canvas" else 2)


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_has_an_example_and_a_description(kind: Kind, context: ParseContext) -> None:
    specs = (FLUX_3_KLEIN, FLUX_TINY) if kind == "image" else (FLUX_TINY,)
    properties: dict[str, Any] = {}
    for spec in specs:
        properties |= job_schema(kind, offer_of(spec), context, volume_loras=["mosaic.safetensors"])["properties"]
    fields = (ImageFields if kind == "image" else VideoFields).model_fields
    assert set(fields) <= set(properties)
    assert [name for name in fields if not properties[name]["examples"]] == []
    assert [name for name, property_ in properties.items() if not property_.get("description")] == []
    assert set(EXAMPLES) | set(OF_VIDEOS) <= set(ImageFields.model_fields) | set(VideoFields.model_fields)


@pytest.mark.parametrize(
    ("kind", "spec"),
    [("image", FLUX_TINY), ("image", FLUX_2_DEV), ("video", FLUX_TINY)],
    ids=lambda value: str(value)[:5],
)
def test_every_alias_means_its_field(kind: Kind, spec: ModelSpec, context: ParseContext) -> None:
    schema = job_schema(kind, offer_of(spec), context, volume_loras=["mosaic.safetensors"])
    valid = Draft202012Validator(schema)
    aliases = {name: of["$ref"].rpartition("/")[2] for name, of in schema["properties"].items() if "$ref" in of}
    assert {alias: ALIASES[alias] for alias in aliases} == aliases
    for alias, name in aliases.items():
        example = schema["properties"][name]["examples"][0]
        jobs = [base_job(spec, kind, name) | {said: example} for said in (name, alias)]
        if name in ("prompt", "type", "model"):
            jobs[1].pop(name, None)
        canonical, written = (parse_job(Request(id="job-1", input=job), context) for job in jobs)
        assert canonical == written, alias
        valid.validate(jobs[1])
    assert set(WITHOUT_EFFECT) <= set(schema["properties"])


@pytest.mark.parametrize(
    "job",
    [
        {},
        {"prompt": None},
        {"prompt": "a red sun", "promt": "x"},
        {"prompt": "a red sun", "num_frames": 24},
        {"prompt": "a red sun", "type": "video"},
        {"prompt": "a red sun", "size": "large"},
        {"prompt": "a red sun", "loras": [{"scale": 1}]},
        {"prompt": "a red sun", "loras": [{"path": "a", "weigth": 1}]},
        {"prompt": "a red sun", "model": "no-such"},
        {"prompt": "a red sun", "response_format": "url"},
    ],
)
def test_what_the_schema_refuses_is_no_job(job: dict[str, Any], context: ParseContext) -> None:
    assert not Draft202012Validator(job_schema("image", offer_of(FLUX_TINY), context)).is_valid(job)
    parsed_as_image = job.get("type") != "video" and "num_frames" not in job
    assert not parsed_as_image or not taken(job, context)


def test_a_bucket_is_seen_in_the_schema(context: ParseContext) -> None:
    with_bucket = replace(context, can_return_urls=True, default_response_format="url")
    property_ = job_schema("image", offer_of(FLUX_TINY), with_bucket)["properties"]["response_format"]
    assert (property_["enum"], property_["default"]) == (["url", "b64_json", None], "url")


def test_the_longest_lora_path_is_taken(context: ParseContext) -> None:
    path = job_schema("image", offer_of(FLUX_TINY), context)["properties"]["loras"]["anyOf"][1]["anyOf"][0]
    lengths = [(path["maxLength"], True), (path["maxLength"] + 1, False)]
    assert [taken({"prompt": "x", "loras": "x" * n}, context) for n, _ in lengths] == [ok for _, ok in lengths]
