"""Boxes and prompt enhancement in a job: what is taken, by which model, and what is refused in which words."""

from __future__ import annotations

from typing import Any

import pytest

from flux_engine.errors import InvalidInput
from flux_engine.job.base import ParseContext
from flux_engine.job.fingerprint import ModelIdentity, fingerprint
from flux_engine.job.image import ImageJob
from flux_engine.job.parse import Request, parse_job

BOX: dict[str, Any] = {"prompt": "a red sun", "x": 0.1, "y": 0.2, "width": 0.3, "height": 0.4}


def parse(context: ParseContext, model: str = "FLUX.3-klein", **fields: Any) -> ImageJob:
    job = parse_job(Request(id="job-1", input={"prompt": "a landscape", "model": model, **fields}), context)
    assert isinstance(job, ImageJob)
    return job


def test_boxes_are_taken_and_echoed(context: ParseContext) -> None:
    edge = BOX | {"x": 0, "y": 1 / 3, "width": 1, "height": 2 / 3}
    job = parse(context, boxes=[BOX, edge])
    assert job.boxes is not None
    assert [box.prompt for box in job.boxes] == ["a red sun", "a red sun"]
    assert parse(context, **job.parameters() | {"model": "FLUX.3-klein"}).boxes == job.boxes
    assert parse(context, boxes=[]).boxes is None
    assert parse(context, boxes=None).boxes is None


def test_other_tools_syntax_in_a_box_is_named(context: ParseContext) -> None:
    warnings = parse(context, boxes=[BOX, BOX | {"prompt": "a (red:1.3) sun"}]).warnings
    assert [warning for warning in warnings if warning.startswith("`boxes[1].prompt` holds `(red:1.3)`")]


@pytest.mark.parametrize(
    ("boxes", "field", "said"),
    [
        ("a sun", "boxes", "must be a list"),
        (BOX, "boxes", "must be a list"),
        ([BOX] * 33, "boxes", "up to 32 boxes; got 33"),
        (["a sun"], "boxes[0]", "must be an object"),
        ([[0, 0, 1, 1]], "boxes[0]", "must be an object"),
        ([BOX, {"prompt": "a sun"}], "boxes[1].x", "is required"),
        ([BOX | {"prompt": ""}], "boxes[0].prompt", "must be a string"),
        ([BOX | {"prompt": 7}], "boxes[0].prompt", "must be a string"),
        ([BOX | {"prompt": None}], "boxes[0].prompt", "is required"),
        ([BOX | {"x": -0.1}], "boxes[0].x", "a number from 0 to 1"),
        ([BOX | {"x": "0.1"}], "boxes[0].x", "a number from 0 to 1"),
        ([BOX | {"y": True}], "boxes[0].y", "a number from 0 to 1"),
        ([BOX | {"y": float("nan")}], "boxes[0].y", "a number from 0 to 1"),
        ([BOX | {"width": 0}], "boxes[0].width", "above 0"),
        ([BOX | {"height": 1.5}], "boxes[0].height", "up to 1"),
        ([BOX | {"width": 0.95}], "boxes[0].width", "shares, not pixels"),
        ([BOX | {"y": 0.7}], "boxes[0].height", "ends at 1.1"),
        ([BOX | {"x": 100, "width": 300}], "boxes[0].x", "a number from 0 to 1"),
        ([BOX | {"label": "sun"}], "boxes[0]", "`label` is not a field"),
    ],
)
def test_boxes_that_cannot_be_meant_are_refused(context: ParseContext, boxes: object, field: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as refused:
        parse(context, boxes=boxes)
    assert refused.value.field == field


@pytest.mark.parametrize("model", ["flux-tiny", "FLUX.1-dev", "klein", "FLUX.2-dev"])
def test_other_models_take_no_boxes(context: ParseContext, model: str) -> None:
    with pytest.raises(InvalidInput, match="takes no `boxes`") as refused:
        parse(context, model, boxes=[BOX])
    assert refused.value.field == "boxes"


@pytest.mark.parametrize(
    ("model", "sent", "effective", "is_warned"),
    [
        ("FLUX.3-klein", None, True, False),
        ("FLUX.3-klein", False, False, False),
        ("FLUX.2-dev", None, False, False),
        ("FLUX.2-dev", True, True, False),
        ("klein", None, False, False),
        ("klein", True, False, True),
        ("flux-tiny", True, False, True),
        ("flux-tiny", False, False, False),
    ],
)
def test_enhancing_is_the_models(
    context: ParseContext, model: str, sent: bool | None, effective: bool, is_warned: bool
) -> None:
    job = parse(context, model, enhance_prompt=sent)
    assert job.enhance_prompt is effective
    assert any("`enhance_prompt` has no effect" in warning for warning in job.warnings) is is_warned
    assert parse(context, model, prompt_upsampling=sent) == job


@pytest.mark.parametrize("value", ["yes", 1, [], {}])
def test_enhancing_is_true_or_false(context: ParseContext, value: object) -> None:
    with pytest.raises(InvalidInput, match="`enhance_prompt` must be true or false"):
        parse(context, enhance_prompt=value)


def test_both_are_part_of_the_fingerprint(context: ParseContext) -> None:
    model = ModelIdentity(id="m", revision="r", precision="bfloat16")
    jobs = [
        parse(context, enhance_prompt=False),
        parse(context, enhance_prompt=True),
        parse(context, enhance_prompt=False, boxes=[BOX]),
        parse(context, enhance_prompt=False, boxes=[BOX | {"x": 0.2}]),
    ]
    assert len({fingerprint(job.parameters(), model=model) for job in jobs}) == 4
    plain = jobs[0].parameters()
    without = {name: value for name, value in plain.items() if name not in ("enhance_prompt", "boxes")}
    assert fingerprint(plain, model=model) == fingerprint(without, model=model)
