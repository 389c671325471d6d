"""What OpenAI's own client makes of our answers, events and errors."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from openai.types import Image, ImagesResponse, Model
from openai.types.image_edit_completed_event import ImageEditCompletedEvent
from openai.types.image_gen_completed_event import ImageGenCompletedEvent
from openai.types.image_gen_partial_image_event import ImageGenPartialImageEvent

from flux_engine.errors import ErrorCode, InputFetchFailed, InvalidInput, StorageFailed
from flux_engine.job.base import ParseContext
from flux_engine.openai.answer import images_body, models_body
from flux_engine.openai.error import STATUSES, error_body, status_of
from flux_engine.openai.events import PartialImages, as_text, completed_events, error_event
from flux_engine.openai.request import Asked, edit_job, generation_job


def result(*contents: dict[str, str], content_type: str = "image/png") -> dict[str, Any]:
    images = [
        {"content_type": content_type, "width": 192, "height": 128, "seed": 7 + i, **content}
        for i, content in enumerate(contents)
    ]
    return {"images": images, "model": {"id": "flux-tiny"}, "warnings": ["by the job"], "usage": {"work": 0.39}}


@pytest.fixture
def asked(context: ParseContext) -> Asked:
    return generation_job(
        {"prompt": "a red sun", "quality": "high", "user": "u-1", "new": 1, "stream": True, "partial_images": 3},
        context,
    )


def test_the_answer_is_what_the_client_knows(asked: Asked) -> None:
    body = images_body(result({"url": "https://example.com/1"}, {"b64_json": "QUJD"}), asked, created=1_800_000_000)
    answer = ImagesResponse.model_validate(body, strict=True)
    assert answer.data == [
        Image(url="https://example.com/1", seed=7),
        Image(b64_json="QUJD", seed=8),
    ]
    assert (answer.size, answer.quality, answer.output_format, answer.background) == (
        "192x128", "high", "png", "opaque",
    )  # fmt: skip
    assert answer.safety_identifier == "u-1"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 0
    assert body["usage"]["work"] == 0.39
    assert body["warnings"] == ["`new` is not known here and has no effect", "by the job"]


@pytest.mark.parametrize(("content_type", "name"), [("image/jpeg", "jpeg"), ("image/webp", "webp")])
def test_the_format_is_that_of_the_files(asked: Asked, content_type: str, name: str) -> None:
    body = images_body(result({"b64_json": "QUJD"}, content_type=content_type), asked, created=1)
    assert ImagesResponse.model_validate(body, strict=True).output_format == name


def test_the_models_are_a_list() -> None:
    body = models_body(["black-forest-labs/FLUX.1-schnell", "flux-tiny"], created=5)
    models = [Model.model_validate(model, strict=True) for model in body["data"]]
    assert [(model.id, model.owned_by) for model in models] == [
        ("black-forest-labs/FLUX.1-schnell", "black-forest-labs"),
        ("flux-tiny", "flux-engine"),
    ]


def test_partial_pictures_are_spread_over_the_steps(asked: Asked) -> None:
    partials = PartialImages(asked, size="192x128")
    updates: list[dict[str, Any]] = [{"stage": "loading"}]
    for step in range(1, 17):
        preview = f"data:image/webp;base64,{step}"
        updates.append({"stage": "denoising", "step": step, "total_steps": 16, "preview": preview})
    events = [partials.event(update, created=5) for update in updates]
    sent = [ImageGenPartialImageEvent.model_validate(event, strict=True) for event in events if event is not None]
    assert [(event.partial_image_index, event.b64_json) for event in sent] == [(0, "1"), (1, "4"), (2, "8")]
    assert {event.size for event in sent} == {"192x128"}


def test_each_finished_picture_is_an_event(asked: Asked, context: ParseContext) -> None:
    made = result({"b64_json": "QUJD"}, {"b64_json": "REVG"})
    events = list(completed_events(made, asked, created=5))
    parsed = [ImageGenCompletedEvent.model_validate(event, strict=True) for event in events]
    assert [event.b64_json for event in parsed] == ["QUJD", "REVG"]
    assert [event["usage"].get("work") for event in events] == [None, 0.39]
    edit = edit_job({"prompt": "at night", "image": "QUJD", "stream": True}, context)
    (event,) = completed_events(result({"b64_json": "QUJD"}), edit, created=5)
    ImageEditCompletedEvent.model_validate(event, strict=True)
    text = as_text(event)
    assert text.startswith("event: image_edit.completed\ndata: {")
    assert text.endswith("}\n\n")


def test_every_code_has_a_status() -> None:
    assert set(get_args(ErrorCode)) <= set(STATUSES)


@pytest.mark.parametrize(
    ("error", "status", "param", "kind"),
    [
        (InvalidInput("x", field="num_images"), 400, "n", "invalid_request_error"),
        (InvalidInput("x", field="model"), 404, "model", "invalid_request_error"),
        (InvalidInput("x"), 400, None, "invalid_request_error"),
        (InputFetchFailed("x", field="image"), 400, "image", "invalid_request_error"),
        (InputFetchFailed("x", field="image", retryable=True), 503, "image", "server_error"),
        (StorageFailed("x"), 503, None, "server_error"),
    ],
)
def test_an_error_is_one_of_openais(error: Any, status: int, param: str | None, kind: str) -> None:
    details = json.loads(error.to_json("job-1"))
    body = error_body(details)["error"]
    assert (status_of(details), body["param"], body["type"]) == (status, param, kind)
    assert (body["code"], body["message"]) == (error.code, "x")
    assert error_event(error_body(details))["type"] == "error"
