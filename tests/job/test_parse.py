"""The input contract: what is taken, what it becomes, and what is refused in which words."""

from __future__ import annotations

import json
import math
import time
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flux_engine.errors import InvalidInput
from flux_engine.job.base import ParseContext, derived_seed
from flux_engine.job.fields import MAX_SEED, AspectRatio, ImageFields, clean_text
from flux_engine.job.image import ImageJob
from flux_engine.job.parse import Request, parse_job, parse_request
from flux_engine.job.written.aliases import ALIASES
from flux_engine.models import catalog
from tests.conftest import context_for


def parse(context: ParseContext, **fields: Any) -> ImageJob:
    job = parse_job(Request(id="job-1", input={"prompt": "a red sun", **fields}), context)
    assert isinstance(job, ImageJob)
    return job


def test_defaults_are_those_of_the_model(context: ParseContext) -> None:
    job = parse(context)
    assert (job.width, job.height, job.num_inference_steps, job.guidance_scale) == (256, 256, 16, 3.5)
    assert job.output_format == "png"
    assert job.output_quality == 90
    assert job.num_images == 1
    assert job.warnings == ()


@pytest.mark.parametrize(
    ("model", "steps", "guidance", "tokens", "side"),
    [
        ("FLUX.1-schnell", 4, None, 256, 1024),
        ("FLUX.1-dev", 28, 3.5, 512, 1024),
        ("FLUX.1-Krea-dev", 28, 4.5, 512, 1024),
        ("FLUX.1-Fill-dev", 50, 30.0, 512, 1024),
        ("FLUX.2-klein-4B", 4, 1.0, 512, 1024),
        ("FLUX.2-dev", 28, 4.0, 512, 1024),
    ],
)
def test_a_jobs_model_brings_its_own_defaults(
    context: ParseContext, model: str, steps: int, guidance: float | None, tokens: int, side: int
) -> None:
    pictures = {"image": "QUFB", "mask": "QUFB"} if "Fill" in model else {}
    job = parse(context, model=model, **pictures)
    assert job.model.endswith(model)
    assert (job.num_inference_steps, job.guidance_scale, job.max_sequence_length) == (steps, guidance, tokens)
    assert (job.width, job.height) == (side, side)


@pytest.mark.parametrize(
    ("written", "field", "value"),
    [
        ({"steps": 8}, "num_inference_steps", 8),
        ({"num_steps": 8}, "num_inference_steps", 8),
        ({"guidance": 3}, "guidance_scale", 3.0),
        ({"true_cfg": 2}, "true_cfg_scale", 2.0),
        ({"n": 2}, "num_images", 2),
        ({"num_outputs": 2}, "num_images", 2),
        ({"num_images_per_prompt": 2}, "num_images", 2),
        ({"format": "jpeg"}, "output_format", "jpg"),
        ({"image_format": "webp"}, "output_format", "webp"),
        ({"quality": 70}, "output_quality", 70),
        ({"use_cache": False}, "cache", False),
        ({"size": "192x128"}, "width", 192),
        ({"size": "192*128"}, "height", 128),
        ({"image_size": {"width": 128, "height": 192}}, "height", 192),
        ({"image_size": "square"}, "width", 512),
        ({"seed": 7.0}, "seed", 7),
        ({"task": "image"}, "prompt", "a red sun"),
        ({"model_id": "flux-tiny"}, "model", "flux-tiny"),
        ({"num_inference_steps": None}, "num_inference_steps", 16),
        ({"steps": 8, "num_inference_steps": 8}, "num_inference_steps", 8),
        ({"prompt": "  caf\u0065\u0301 \ud800\x00sun\n"}, "prompt", "caf\u00e9 sun"),
        ({"metadata": {"order": 5}}, "metadata", {"order": 5}),
    ],
)
def test_aliases_and_spellings(context: ParseContext, written: dict[str, Any], field: str, value: object) -> None:
    assert getattr(parse(context, **written), field) == value


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ({"aspect_ratio": "1:1"}, (1024, 1024)),
        ({"aspect_ratio": "16:9"}, (1360, 768)),
        ({"aspect_ratio": "9:16"}, (768, 1360)),
        ({"aspect_ratio": "1:1", "megapixels": 0.25}, (512, 512)),
        ({"aspect_ratio": "3:2", "megapixels": 2}, (1760, 1168)),
        ({"width": 1000, "height": 504}, (1008, 512)),
        ({"width": 64}, (64, 1024)),
    ],
)
def test_sizes(written: dict[str, Any], size: tuple[int, int]) -> None:
    schnell = catalog.find("schnell")
    assert schnell is not None
    job = parse(context_for(schnell), **written)
    assert (job.width, job.height) == size
    assert job.width * job.height <= schnell.limits.max_pixels


@pytest.mark.parametrize(
    ("written", "warning"),
    [
        ({"width": 200}, "rounded from 200x256 to 208x256"),
        ({"go_fast": True}, "`go_fast` has no effect"),
        ({"scheduler": "euler"}, "`scheduler` has no effect"),
        ({"acceleration": "high"}, "`acceleration` has no effect"),
        ({"negative_prompt": "trees"}, "`negative_prompt` has no effect unless"),
        ({"output_format": "png", "output_quality": 5}, "`output_quality` has no effect on png"),
        ({"model": "schnell", "guidance_scale": 3}, "`guidance_scale` has no effect with"),
        ({"model": "klein", "guidance_scale": 3}, "`guidance_scale` has no effect with"),
        ({"model": "klein", "true_cfg_scale": 3}, "`true_cfg_scale` has no effect with"),
        ({"model": "FLUX.2-dev", "negative_prompt": "trees"}, "`negative_prompt` has no effect with"),
        ({"model": "FLUX.2-dev", "image": "QUFB", "strength": 0.5}, "`strength` has no effect with"),
    ],
)
def test_what_has_no_effect_is_said(context: ParseContext, written: dict[str, Any], warning: str) -> None:
    assert any(warning in said for said in parse(context, **written).warnings)


def test_a_job_without_a_seed_gets_the_same_one_every_time(context: ParseContext) -> None:
    first, again = (parse_job(Request(id="abc", input={"prompt": "sun"}), context) for _ in range(2))
    other = parse_job(Request(id="abd", input={"prompt": "sun"}), context)
    assert first.seed == again.seed == derived_seed("abc")
    assert first.seed != other.seed
    assert 0 <= first.seed <= MAX_SEED
    assert parse(context, seed=-1).seed == derived_seed("job-1")


def test_the_seeds_of_several_images_follow_one_another(context: ParseContext) -> None:
    assert parse(context, seed=5, n=3).seeds() == [5, 6, 7]
    assert parse(context, seed=MAX_SEED, n=2).seeds() == [MAX_SEED, 0]


def test_every_effective_parameter_is_echoed(context: ParseContext) -> None:
    echoed = parse(context).parameters()
    expected = set(ImageFields.model_fields) - {"metadata", "lora_scale"}
    assert set(echoed) == expected
    json.dumps(echoed, allow_nan=False)


FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467 \u0645\u0650"  # joined emoji, and a mark behind a letter

BAD_INPUTS: list[tuple[object, str]] = [
    (None, "input"),
    ([], "input"),
    ("a red sun", "input"),
    (5, "input"),
    ({}, "prompt"),
    ({"prompt": None}, "prompt"),
    ({"prompt": ""}, "prompt"),
    ({"prompt": " \n\t "}, "prompt"),
    ({"prompt": "\x00\ud800"}, "prompt"),
    ({"prompt": "\u200b \ufeff\u200b"}, "prompt"),
    ({"prompt": "x" * 4001}, "prompt"),
    ({"prompt": 5}, "prompt"),
    ({"prompt": ["a"]}, "prompt"),
    ({"prompt": True}, "prompt"),
    ({"prompt": "a", "text": "b"}, "text"),
    ({"prompt": "a", "negative_prompt": 3}, "negative_prompt"),
    ({"prompt": "a", "negative_prompt": "x" * 4001}, "negative_prompt"),
    ({"prompt": "a", "true_cfg_scale": 0.5}, "true_cfg_scale"),
    ({"prompt": "a", "true_cfg_scale": 11}, "true_cfg_scale"),
    ({"prompt": "a", "true_cfg_scale": math.nan}, "true_cfg_scale"),
    ({"prompt": "a", "model": "sdxl"}, "model"),
    ({"prompt": "a", "model": ""}, "model"),
    ({"prompt": "a", "model": 7}, "model"),
    ({"prompt": "a", "model": "../../etc/passwd"}, "model"),
    ({"prompt": "a", "width": 63}, "width"),
    ({"prompt": "a", "width": 2049}, "width"),
    ({"prompt": "a", "width": "256"}, "width"),
    ({"prompt": "a", "width": True}, "width"),
    ({"prompt": "a", "height": 256.5}, "height"),
    ({"prompt": "a", "height": math.inf}, "height"),
    ({"prompt": "a", "height": 10**400}, "height"),
    ({"prompt": "a", "width": 2048, "height": 2048}, "width"),
    ({"prompt": "a", "size": "256"}, "size"),
    ({"prompt": "a", "size": "256x"}, "size"),
    ({"prompt": "a", "size": "axb"}, "size"),
    ({"prompt": "a", "size": "²x²"}, "size"),
    ({"prompt": "a", "size": 256}, "size"),
    ({"prompt": "a", "size": "256x256", "width": 128}, "width"),
    ({"prompt": "a", "image_size": "huge"}, "image_size"),
    ({"prompt": "a", "image_size": "square_hd"}, "image_size"),
    ({"prompt": "a", "size": "1024x1024"}, "size"),
    ({"prompt": "a", "image_size": {}}, "image_size"),
    ({"prompt": "a", "image_size": {"width": None, "height": 128}}, "image_size"),
    ({"prompt": "a", "image_size": {"width": 128, "height": 128, "depth": 3}}, "image_size"),
    ({"prompt": "a", "aspect_ratio": "1:1", "width": 256}, "aspect_ratio"),
    ({"prompt": "a", "aspect_ratio": "1:1", "width": 1024, "height": 1024}, "aspect_ratio"),
    ({"prompt": "a", "image_size": {"width": 256}}, "image_size"),
    ({"prompt": "a", "image_size": {"width": 1, "height": 256}}, "width"),
    ({"prompt": "a", "aspect_ratio": "17:9"}, "aspect_ratio"),
    ({"prompt": "a", "aspect_ratio": "16:9", "width": 256}, "aspect_ratio"),
    ({"prompt": "a", "megapixels": 1}, "megapixels"),
    ({"prompt": "a", "aspect_ratio": "1:1", "megapixels": 0.1}, "megapixels"),
    ({"prompt": "a", "aspect_ratio": "1:1", "megapixels": 4}, "megapixels"),
    ({"prompt": "a", "num_inference_steps": 0}, "num_inference_steps"),
    ({"prompt": "a", "num_inference_steps": 51}, "num_inference_steps"),
    ({"prompt": "a", "steps": 8, "num_steps": 9}, "num_steps"),
    ({"prompt": "a", "steps": True, "num_inference_steps": 1}, "num_inference_steps"),
    ({"prompt": "a", "guidance_scale": -1}, "guidance_scale"),
    ({"prompt": "a", "guidance_scale": 20.1}, "guidance_scale"),
    ({"prompt": "a", "model": "schnell", "guidance_scale": 20.1}, "guidance_scale"),
    ({"prompt": "a", "model": "klein", "guidance_scale": 100}, "guidance_scale"),
    ({"prompt": "a", "model": "fill", "image": "QUFB", "mask": "QUFB", "guidance_scale": 101}, "guidance_scale"),
    ({"prompt": "a", "guidance_scale": "high"}, "guidance_scale"),
    ({"prompt": "a", "seed": -2}, "seed"),
    ({"prompt": "a", "seed": 2**53}, "seed"),
    ({"prompt": "a", "seed": "7"}, "seed"),
    ({"prompt": "a", "num_images": 5}, "num_images"),
    ({"prompt": "a", "num_images": 0}, "num_images"),
    ({"prompt": "a", "output_format": "bmp"}, "output_format"),
    ({"prompt": "a", "output_format": {}}, "output_format"),
    ({"prompt": "a", "output_quality": 0}, "output_quality"),
    ({"prompt": "a", "response_format": "base64"}, "response_format"),
    ({"prompt": "a", "response_format": "url"}, "response_format"),
    ({"prompt": "a", "max_sequence_length": 15}, "max_sequence_length"),
    ({"prompt": "a", "max_sequence_length": 64}, "max_sequence_length"),
    ({"prompt": "a", "preview": 1}, "preview"),
    ({"prompt": "a", "cache": "no"}, "cache"),
    ({"prompt": "a", "metadata": []}, "metadata"),
    ({"prompt": "a", "metadata": {"x": math.nan}}, "metadata"),
    ({"prompt": "a", "metadata": {"x": "y" * 4100}}, "metadata"),
    ({"prompt": "a", "type": "audio"}, "type"),
    ({"prompt": "a", "with\x00control": 1}, "with?control"),
    ({5: "a"}, "input"),
]


@pytest.mark.parametrize(("given_input", "field"), BAD_INPUTS)
def test_bad_input_is_refused_by_field(context: ParseContext, given_input: object, field: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse_job(parse_request({"id": "job-1", "input": given_input}), context)
    assert refusal.value.field == field
    assert refusal.value.message
    body = json.loads(refusal.value.to_json("job-1"))
    assert body["code"] == "invalid_input"
    assert body["retryable"] is False


@pytest.mark.parametrize("job", [None, [], "job", 5, {}, {"id": "x"}, {"input": None}])
def test_what_is_no_job_is_refused(context: ParseContext, job: object) -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse_job(parse_request(job), context)
    assert refusal.value.field == "input"


@pytest.mark.parametrize(
    ("raw", "request_"),
    [
        (None, Request(id="unknown", input=None)),
        ({"id": 5, "input": []}, Request(id="unknown", input=None)),
        ({"id": "x", "input": {"prompt": 1}, "webhook": "y"}, Request(id="x", input={"prompt": 1})),
        ({"id": "x", "input": {}, "s3Config": "z"}, Request(id="x", input={}, s3_config="z")),
    ],
)
def test_a_job_is_opened_once_whatever_it_is(raw: object, request_: Request) -> None:
    opened = parse_request(raw)
    assert (opened.id, opened.input, opened.s3_config) == (request_.id, request_.input, request_.s3_config)
    assert (opened.fault is None) is isinstance(opened.input, dict)
    assert "prompt" not in repr(opened)


def test_what_a_bucket_of_its_own_does_not_take_is_said(context: ParseContext) -> None:
    bucket = {"endpointUrl": "https://s3.example.com", "accessId": "a", "accessSecret": "hidden", "bucketName": "b"}
    raw = {"id": "x", "input": {"prompt": "a sun"}, "s3Config": bucket}
    assert parse_job(parse_request(raw), context).warnings == ()
    raw["s3Config"] = {**bucket, "regionName": "eu-west-1", **dict.fromkeys("cdef", "hidden")}
    (said,) = parse_job(parse_request(raw), context).warnings
    assert said == (
        "`s3Config` has no `regionName`, `c`, `d`, which had no effect; "
        "it takes endpointUrl, accessId, accessSecret, bucketName, region"
    )


def test_a_misspelt_field_is_told_the_one_meant(context: ParseContext) -> None:
    with pytest.raises(InvalidInput, match="did you mean `num_inference_steps`"):
        parse(context, num_inference_step=5)


def test_a_refusal_says_what_is_allowed(context: ParseContext) -> None:
    with pytest.raises(InvalidInput, match="must be an integer from 64 to 2048; got 12"):
        parse(context, width=12)
    with pytest.raises(InvalidInput, match='must be one of png, jpg, webp; got "tiff"'):
        parse(context, output_format="tiff")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"seed": "7"}, 'got "7"'),
        ({"width": True}, "got true"),
        ({"steps": 1500}, "an integer from 1 to 50 for flux-tiny; got 1500"),
        ({"steps": "many", "model": "schnell"}, "from 1 to 12 for black-forest-labs/FLUX.1-schnell"),
        ({"max_sequence_length": 4096}, "from 16 to 32 for flux-tiny"),
        ({"aspect_ratio": "1:1", "megapixels": "1"}, 'from 0.25 to 0.25 for flux-tiny; got "1"'),
        ({"aspect_ratio": "1:1", "megapixels": 5, "model": "dev"}, "from 0.25 to 2 for"),
        ({"guidance_scale": 21.0}, "from 0 to 20 for flux-tiny; got 21"),
        ({"type": "Video"}, '`image` or `video`; got "Video"'),
        ({"type": "audio"}, "`image` or `video`"),
        ({"output_format": "mp4"}, '`"type": "video"`'),
        ({"image": ""}, 'a string that is not empty; got ""'),
        ({"image_size": "square_hd"}, "lower `image_size`"),
        ({"image_size": [1, 2]}, "got a list"),
    ],
)
def test_a_refusal_does_not_mislead(context: ParseContext, written: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse(context, **written)
    assert said in refusal.value.message


@pytest.mark.parametrize("ratio", get_args(AspectRatio))
@pytest.mark.parametrize("model", [spec.name for spec in catalog.CATALOG])
def test_every_size_has_its_ratio_and_is_within_the_budget(model: str, ratio: str) -> None:
    spec = catalog.find(model)
    assert spec is not None
    across, down = (int(part) for part in ratio.split(":"))
    most = spec.limits.max_megapixels
    pictures = {"image": "QUFB", "mask": "QUFB"} if spec.limits.image_use == "canvas" else {}
    for megapixels in (None, 0.25, *(m for m in (0.5, 1, 1.5, 2, 3, 4) if m <= most), most):
        job = parse(context_for(spec), aspect_ratio=ratio, megapixels=megapixels, **pictures)
        long, short = max(job.width, job.height), min(job.width, job.height)
        exact = max(across, down) / min(across, down)
        assert (job.width > job.height, job.width < job.height) == (across > down, across < down)
        assert (long - 16) / (short + 16) < exact < (long + 16) / (short - 16)
        assert long / short == pytest.approx(exact, rel=0.05)
        assert long <= 2048
        assert job.width * job.height <= spec.limits.max_pixels
        wanted = (megapixels or spec.limits.side**2 / 2**20) * 2**20
        is_lowered = any("`megapixels` lowered" in warning for warning in job.warnings)
        assert is_lowered or job.width * job.height == pytest.approx(wanted, rel=max(0.08, 16 / spec.limits.side))
        assert is_lowered is (wanted * exact > 2049**2)


def test_lowered_megapixels_are_said_and_echoed() -> None:
    klein = catalog.find("klein")
    assert klein is not None
    job = parse(context_for(klein), aspect_ratio="16:9", megapixels=4)
    assert (job.width, job.height, job.megapixels) == (2048, 1152, 2.25)
    assert job.warnings == ("`megapixels` lowered from 4 to 2.25: at 16:9 a larger area has a side over 2048 pixels",)


@pytest.mark.parametrize(("asked", "effective"), [(0, 1), (0.5, 1), (1, 1), (3, 3), (4, 4), (7.5, 4), (20, 4)])
def test_guidance_outside_of_what_a_model_was_trained_with_is_moved(
    context: ParseContext, asked: float, effective: float
) -> None:
    job = parse(context, guidance_scale=asked)
    assert job.parameters()["guidance_scale"] == effective
    assert [f"clamped from {asked:g} to {effective:g}" in warning for warning in job.warnings] == [True] * (
        asked != effective
    )


@pytest.mark.parametrize(
    "written",
    [
        {"steps": 28, "num_inference_steps": 28.0},
        {"steps": 28.0, "num_steps": 28},
        {"text": "a red sun "},
        {"prompt": "caf\u00e9", "inputs": "cafe\u0301"},
        {"size": "256x128", "width": 256.0},
        {"image_size": {"width": None, "height": 128}, "width": 256},
        {"width": 256, "image_size": {"height": 128}},
        {"image": "QUFB", "image_url": " QUFB\n"},
        {"loras": [{"path": "m", "scale": 1}], "lora": {"path": "m ", "weight": 1.0}},
    ],
)
def test_one_value_under_two_names_is_taken(context: ParseContext, written: dict[str, Any]) -> None:
    assert parse(context, **written).prompt in ("a red sun", "caf\u00e9")


@pytest.mark.parametrize(
    ("written", "field", "value"),
    [
        ({"output_format": "png\n"}, "output_format", "png"),
        ({"output_format": "\x00jpeg"}, "output_format", "jpg"),
        ({"type": "image\r\n"}, "prompt", "a red sun"),
        ({"aspect_ratio": " 1:1\x7f"}, "aspect_ratio", "1:1"),
        ({"size": "128x128\n"}, "width", 128),
        ({"model": "fl\x00ux-tiny"}, "model", "flux-tiny"),
        ({"image": "\ud800https://example.com/a.png\n"}, "image", "https://example.com/a.png"),
        ({"image": "QUFB\nQUFB"}, "image", "QUFB QUFB"),
        ({"image": "\u200bhttps://example.com/a.png\u2060 "}, "image", "https://example.com/a.png"),
        ({"model": "\u200e flux-tiny\u00a0\u200f"}, "model", "flux-tiny"),
        ({"prompt": "\ufeffa sun\ufeff, a moon \u200b"}, "prompt", "a sun, a moon"),
        ({"prompt": FAMILY}, "prompt", FAMILY),
    ],
)
def test_control_characters_are_gone_before_anything_is_read(
    context: ParseContext, written: dict[str, Any], field: str, value: object
) -> None:
    assert getattr(parse(context, **written), field) == value


def test_megabytes_of_base64_are_clean_in_no_time() -> None:
    lines = ("QUFB" * 19 + "\n") * 250_000
    began = time.process_time()
    assert clean_text(lines) == lines.replace("\n", " ").strip()
    assert time.process_time() - began < 3  # a loop over the characters takes longer


def test_metadata_is_measured_as_utf_8(context: ParseContext) -> None:
    room = 4096 - len('{"a":"","b":[1,2]}')
    assert parse(context, metadata={"a": "\u00e9" * (room // 2), "b": [1, 2]}).metadata
    with pytest.raises(InvalidInput, match="at most 4096 bytes"):
        parse(context, metadata={"a": "\u00e9" * (room // 2 + 1), "b": [1, 2]})


@pytest.mark.parametrize(
    "written",
    [
        {},
        {"aspect_ratio": "16:9"},
        {"aspect_ratio": "21:9", "megapixels": 4, "model": "klein"},
        {"aspect_ratio": "3:2", "megapixels": 2, "model": "dev"},
        {"size": "200x100", "guidance": 9, "negative_prompt": "rain", "true_cfg": 2, "n": 2},
        {"loras": ["m", {"path": "owner/repo", "scale": 0.5}], "lora_scale": 0.3, "format": "webp"},
    ],
)
def test_echoed_parameters_are_a_job_again(context: ParseContext, written: dict[str, Any]) -> None:
    echoed = parse(context, **written).parameters()
    again = parse(context, **json.loads(json.dumps(echoed)))
    assert again.parameters() == echoed
    assert not [warning for warning in again.warnings if "has no effect" not in warning or "quality" in warning]


@pytest.mark.parametrize("image", ["QUFB", "A" * 9000, "data:image/png;base64,QUFB", "DATA:image/png;base64,QUFB"])
def test_a_picture_in_base64_is_never_echoed(context: ParseContext, image: str) -> None:
    echoed = parse(context, image=image, mask=image).parameters()
    assert echoed["image"] == echoed["mask"] == f"base64 of {len(image)} characters"


names = st.sampled_from([*ImageFields.model_fields, *ALIASES, "size", "image_size", "go_fast"]) | st.text(max_size=20)
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40) | st.sampled_from(["1:1", "256x256"])
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(written=st.dictionaries(names, values, max_size=8), has_prompt=st.booleans())
def test_any_json_is_a_job_or_a_refusal(context: ParseContext, written: dict[str, Any], has_prompt: bool) -> None:
    given_input = {"prompt": "a red sun", **written} if has_prompt else written
    try:
        job = parse_job(parse_request({"id": "job-1", "input": given_input}), context)
    except InvalidInput as refusal:
        json.loads(refusal.to_json("job-1"))
        refusal.to_json("job-1").encode()
    else:
        assert job.width % 16 == 0
        assert job.width * job.height <= 512 * 512
        json.dumps(job.parameters(), allow_nan=False).encode()
