"""An OpenAI request becomes a job, and whatever is not honoured is said."""

from __future__ import annotations

from typing import Any

import pytest

from flux_engine.errors import InvalidInput
from flux_engine.job.base import ParseContext
from flux_engine.job.image import ImageJob
from flux_engine.job.parse import Request, parse_job
from flux_engine.models.catalog import CATALOG
from flux_engine.openai.form import form_body
from flux_engine.openai.request import QUALITIES, edit_job, generation_job

PICTURE = "data:image/png;base64,iVBORw0KGgo="


def asked(context: ParseContext, **body: Any) -> Any:
    return generation_job({"prompt": "a red sun", **body}, context)


@pytest.mark.parametrize(
    ("body", "job"),
    [
        ({}, {}),
        ({"n": 2, "size": "192x128"}, {"num_images": 2, "size": "192x128"}),
        ({"size": "auto", "quality": "auto"}, {}),
        ({"size": None, "user": "u-1", "stream": False}, {}),
        ({"output_format": "jpeg", "output_compression": 70}, {"output_format": "jpeg", "output_quality": 70}),
        ({"output_compression": 0, "output_format": "webp"}, {"output_format": "webp", "output_quality": 1}),
        ({"quality": "low"}, {"num_inference_steps": 8}),
        ({"quality": "high"}, {"num_inference_steps": 24}),
        ({"quality": "hd", "model": "flux-tiny"}, {"num_inference_steps": 24, "model": "flux-tiny"}),
        ({"quality": "max", "model": "schnell"}, {"num_inference_steps": 12, "model": "schnell"}),
        ({"quality": "low", "model": "no-such"}, {"model": "no-such"}),
        ({"seed": 7, "steps": 3, "loras": ["mosaic"]}, {"seed": 7, "steps": 3, "loras": ["mosaic"]}),
        ({"negative_prompt": "rain", "cache": False}, {"negative_prompt": "rain", "cache": False}),
        ({"stream": True, "partial_images": 2}, {"preview": True}),
    ],
)
def test_a_request_says_its_job(context: ParseContext, body: dict[str, Any], job: dict[str, Any]) -> None:
    found = asked(context, **body)
    assert found.job == {"prompt": "a red sun", **job}
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"background": "transparent"}, "`background`"),
        ({"style": "vivid"}, "`style` has no effect"),
        ({"moderation": "low"}, "`moderation` has no effect"),
        ({"a_field_of_next_month": {"deep": [1]}}, "`a_field_of_next_month` is not known"),
        ({"type": "video"}, "`type` is not known"),
        ({"num_frames": 24}, "`num_frames` is not known"),
        ({"model": "gpt-image-2"}, '`model` "gpt-image-2" is OpenAI\'s'),
        ({"model": "dall-e-3"}, "this endpoint's own model was used"),
        ({"quality": "low", "steps": 9}, "`quality` has no effect"),
        ({"partial_images": 2}, "without `stream`"),
        ({"stream": True, "response_format": "url"}, "carry `b64_json`"),
    ],
)
def test_what_is_not_honoured_is_a_warning_and_no_error(context: ParseContext, body: dict[str, Any], said: str) -> None:
    found = asked(context, **body)
    (warning,) = found.warnings
    assert said in warning
    assert isinstance(parse_job(Request(id="x", input=found.job), context), ImageJob)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"quality": "ultra"}, "quality"),
        ({"quality": 90}, "quality"),
        ({"output_format": "gif"}, "output_format"),
        ({"output_compression": 101}, "output_compression"),
        ({"output_compression": True}, "output_compression"),
        ({"background": "blue"}, "background"),
        ({"stream": "yes"}, "stream"),
        ({"stream": True, "partial_images": 4}, "partial_images"),
        ({"response_format": "file"}, "response_format"),
        ({"prompt": None}, "prompt"),
    ],
)
def test_a_bad_value_is_refused_by_its_own_name(context: ParseContext, body: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        asked(context, **body)
    assert refused.value.field == field


@pytest.mark.parametrize("body", [None, [], "a red sun", 5])
def test_anything_but_an_object_is_refused(context: ParseContext, body: object) -> None:
    for translated in (generation_job, edit_job):
        with pytest.raises(InvalidInput):
            translated(body, context)


@pytest.mark.parametrize("model", [spec.id for spec in CATALOG])
def test_every_quality_stays_within_every_models_steps(context: ParseContext, model: str) -> None:
    steps = []
    for quality in ("low", "medium", "high", "xhigh", "max"):
        job = asked(context, model=model, quality=quality).job
        if model != "flux-tiny":
            job["aspect_ratio"] = "1:1"
        parsed = parse_job(Request(id="x", input=job | _canvas(model)), context)
        steps.append(parsed.num_inference_steps)
    assert steps == sorted(steps)
    assert steps[0] < steps[-1] or "Fill" in model
    assert set(QUALITIES.values()) == {"low", "medium", "high", "xhigh", "max"}


def _canvas(model: str) -> dict[str, str]:
    return {"image": PICTURE, "mask": PICTURE} if "Fill" in model else {}


def test_wishes_shape_the_answer_alone(context: ParseContext) -> None:
    wishes = asked(context, response_format="url", quality="hd", user="u-1", safety_identifier="s-1").wishes
    assert (wishes.kind, wishes.response_format, wishes.quality) == ("image_generation", "url", "high")
    assert (wishes.is_streamed, wishes.partial_images, wishes.safety_identifier) == (False, 0, "s-1")
    formats = [asked(context, model=model).wishes.response_format for model in ("gpt-image-2", "dall-e-3", "flux-tiny")]
    assert formats == ["b64_json", None, None]
    streamed = asked(context, stream=True, partial_images=3, user="u-1").wishes
    assert (streamed.response_format, streamed.partial_images, streamed.safety_identifier) == ("b64_json", 3, "u-1")


# --------------------------------------------------------------------------------------------------------- edits


@pytest.mark.parametrize(
    ("pictures", "job"),
    [
        ({"image": PICTURE}, {"image": PICTURE}),
        ({"image": [PICTURE]}, {"image": PICTURE}),
        ({"images": [{"image_url": "https://example.com/a.png"}]}, {"image": "https://example.com/a.png"}),
        ({"image": {"image_url": {"url": PICTURE}}}, {"image": PICTURE}),
        ({"image": [PICTURE, "https://example.com/b.png"]}, {"images": [PICTURE, "https://example.com/b.png"]}),
    ],
)
def test_an_edit_brings_its_pictures(context: ParseContext, pictures: dict[str, Any], job: dict[str, Any]) -> None:
    found = edit_job({"prompt": "at night", "strength": 0.6, **pictures}, context)
    assert found.job == {"prompt": "at night", "strength": 0.6, **job}
    assert found.wishes.kind == "image_edit"


@pytest.mark.parametrize(
    ("pictures", "field"),
    [
        ({}, "image"),
        ({"image": []}, "image"),
        ({"image": 5}, "image"),
        ({"image": ""}, "image"),
        ({"images": [{"file_id": "file-1"}]}, "images"),
        ({"image": [PICTURE, PICTURE], "mask": PICTURE}, "mask"),
        ({"image": PICTURE, "images": [PICTURE, PICTURE]}, "images"),
        ({"image": PICTURE, "mask": "https://example.com/mask.png"}, "mask"),
        ({"image": PICTURE, "mask": "not base64!"}, "mask"),
        ({"image": PICTURE, "mask": PICTURE}, "mask"),
    ],
)
def test_an_edit_without_usable_pictures_is_refused(
    context: ParseContext, pictures: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        edit_job({"prompt": "at night", **pictures}, context)
    assert refused.value.field == field


# --------------------------------------------------------------------------------------------------------- forms


@pytest.mark.parametrize(
    ("parts", "body"),
    [
        ([("prompt", "42"), ("n", "2"), ("stream", "true")], {"prompt": "42", "n": 2, "stream": True}),
        ([("seed", "7"), ("strength", "0.5"), ("size", "128x128")], {"seed": 7, "strength": 0.5, "size": "128x128"}),
        ([("quality", "low"), ("cache", "false")], {"quality": "low", "cache": False}),
        ([("loras", "mosaic")], {"loras": "mosaic"}),
        ([("loras[]", "mosaic"), ("loras[]", "other")], {"loras": ["mosaic", "other"]}),
        (
            [("loras[][path]", "a"), ("loras[][path]", "b"), ("loras[][scale]", "1"), ("loras[][scale]", "0.5")],
            {"loras": [{"path": "a", "scale": 1}, {"path": "b", "scale": 0.5}]},
        ),
        ([("loras", '[{"path": "a"}]')], {"loras": [{"path": "a"}]}),
        ([("metadata[order]", "5"), ("metadata[by]", "me")], {"metadata": {"order": 5, "by": "me"}}),
        ([("image", b"ab")], {"image": "data:application/octet-stream;base64,YWI="}),
        (
            [("image[]", b"a"), ("image[]", b"b")],
            {"image": [f"data:application/octet-stream;base64,{text}" for text in ("YQ==", "Yg==")]},
        ),
        ([("image", "a"), ("image", "b")], {"image": ["a", "b"]}),
        ([("steps", "many"), ("unknown", "1")], {"steps": "many", "unknown": "1"}),
    ],
)
def test_a_form_says_what_the_json_says(parts: list[Any], body: dict[str, Any]) -> None:
    assert form_body(parts) == body


@pytest.mark.parametrize(
    "parts",
    [
        [("", "x")],
        [("a[b", "x")],
        [("a[b][c][d]", "x")],
        [("loras[][path]", "a"), ("loras[][path]", "b"), ("loras[][scale]", "1")],
        [("prompt", "x")] * 201,
    ],
)
def test_a_form_that_cannot_be_read_is_refused(parts: list[Any]) -> None:
    with pytest.raises(InvalidInput):
        form_body(parts)
