"""Thirty bad questions and OpenAI requests, each with its code, its field and, for OpenAI's client, its status."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flux_engine.job.schema.forms import PICTURE
from flux_engine.worker.worker import Worker

GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"
Question = dict[str, Any]


def openai(route: object, body: object) -> Question:
    return {"openai_route": route, "openai_input": body}


QUESTIONS: list[tuple[Question, str, str | None]] = [
    ({"op": "capability"}, "invalid_input", "op"),
    ({"op": ""}, "invalid_input", "op"),
    ({"op": True}, "invalid_input", "op"),
    ({"op": {"estimate": 1}}, "invalid_input", "op"),
    ({"op": "capabilities", "model": "flux-tiny"}, "invalid_input", "model"),
    ({"op": "estimate"}, "invalid_input", "prompt"),
    ({"op": "estimate", "prompt": "  "}, "invalid_input", "prompt"),
    ({"op": "estimate", "prompt": "x", "n": 5}, "invalid_input", "num_images"),
    ({"op": "estimate", "prompt": "x", "model": "none"}, "invalid_input", "model"),
    ({"op": "estimate", "prompt": "x", "openai_rout": 1}, "invalid_input", "openai_rout"),
    ({"op": "estimate", "prompt": "x", "mask": PICTURE}, "invalid_input", "mask"),
    ({"op": "estimate", "prompt": "x", "image": "not base64!"}, "invalid_input", "image"),
    ({"op": "estimate", "prompt": "x", "model": "FLUX.2-dev", "num_frames": 8}, "invalid_input", "model"),
    (
        {"op": "estimate", "prompt": "x", "num_frames": 480, "steps": 50, "size": "512x512"},
        "invalid_input",
        "num_frames",
    ),
]
REQUESTS: list[tuple[Question, str, str | None, int]] = [
    (openai("/v1/chat/completions", {}), "invalid_input", "openai_route", 400),
    (openai(5, {}), "invalid_input", "openai_route", 400),
    (openai(GENERATIONS, None), "invalid_input", None, 400),
    (openai(GENERATIONS, []), "invalid_input", None, 400),
    (openai(GENERATIONS, {}), "invalid_input", "prompt", 400),
    (openai(GENERATIONS, {"prompt": 5}), "invalid_input", "prompt", 400),
    (openai(GENERATIONS, {"prompt": "x", "n": 0}), "invalid_input", "n", 400),
    (openai(GENERATIONS, {"prompt": "x", "size": "huge"}), "invalid_input", "size", 400),
    (openai(GENERATIONS, {"prompt": "x", "quality": 3}), "invalid_input", "quality", 400),
    (openai(GENERATIONS, {"prompt": "x", "response_format": "url"}), "invalid_input", "response_format", 400),
    (openai(GENERATIONS, {"prompt": "x", "model": "sdxl"}), "invalid_input", "model", 404),
    (openai(GENERATIONS, {"prompt": "x", "seed": -2}), "invalid_input", "seed", 400),
    (openai(GENERATIONS, {"prompt": "x", "model": "FLUX.1-dev"}), "model_unavailable", None, 503),
    (openai(EDITS, {"prompt": "x"}), "invalid_input", "image", 400),
    (openai(EDITS, {"prompt": "x", "image": "aGVsbG8="}), "invalid_input", "image", 400),
    (openai(EDITS, {"prompt": "x", "image": PICTURE, "mask": "%%"}), "invalid_input", "mask", 400),
    (openai(EDITS, {"prompt": "x", "images": [{"file_id": "f"}]}), "invalid_input", "images", 400),
]


def test_they_are_thirty() -> None:
    assert len(QUESTIONS) + len(REQUESTS) >= 30


@pytest.mark.parametrize(("question", "code", "field"), QUESTIONS)
async def test_a_bad_question_has_its_code(worker: Worker, question: Question, code: str, field: str | None) -> None:
    answer = await worker.run({"id": "bad", "input": question})
    error = json.loads(answer["error"])
    assert (error["code"], error.get("field"), error["job_id"]) == (code, field, "bad")


@pytest.mark.parametrize(("request_", "code", "param", "status"), REQUESTS)
async def test_a_bad_request_has_its_code_and_status(
    worker: Worker, request_: Question, code: str, param: str | None, status: int
) -> None:
    answer = await worker.run({"id": "bad", "input": request_})
    told = json.loads(answer["error"])
    assert (told["error"]["code"], told["error"]["param"], told["status"]) == (code, param, status)
    assert told["error"]["message"]
