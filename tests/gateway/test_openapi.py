"""The OpenAPI document: what is served, what is checked in, and that routes keep to it."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import shutil
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator
from PIL import Image

from flux_engine.gateway.app import openapi_document
from flux_engine.gateway.routes.document import PROBLEM, TASK
from tests.gateway.world import World

ROOT = Path(__file__).parents[2]


async def test_every_answer_is_one_that_the_document_names() -> None:
    program = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/gateway/openapi_answers.py")
    running = await asyncio.create_subprocess_exec(
        *program, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await running.communicate()
    assert running.returncode == 0, said.decode()


async def test_the_document_is_the_one_that_is_served(gw: World) -> None:
    assert (await gw.get("/openapi.json")).json() == openapi_document()


def test_every_mistake_is_a_problem_in_the_document() -> None:
    """A client that is made from the document reads `code` and `detail` of each."""
    answers = [
        (f"{method.upper()} {path}", status, set(answer["content"]))
        for path, methods in openapi_document()["paths"].items()
        for method, operation in methods.items()
        for status, answer in operation["responses"].items()
        if int(status) >= 400 and (path, status) != ("/readyz", "503")
    ]
    assert len(answers) > 100
    assert [answer for answer in answers if answer[2] != {"application/problem+json"}] == []


async def test_what_a_task_and_a_refusal_say_is_in_the_document(gw: World) -> None:
    """Every member of both by its name."""
    made = await gw.create(metadata={"order": 1})
    assert made.keys() <= TASK["properties"].keys()
    gw.hand.finish(await gw.hand.take())
    assert (await gw.until(made["task_id"], "completed")).keys() <= TASK["properties"].keys()
    refused = await gw.post("/generate-image", json={"prompt": "x", "width": 7})
    async with AsyncExitStack() as streams:
        for _ in range(gw.gateway.settings.max_streams_per_user):
            await streams.enter_async_context(gw.gateway.hub.watch("ada"))
        limited = await gw.get("/events")
    assert (refused.status_code, limited.status_code) == (422, 429)
    for answer in (refused, limited):
        assert answer.json().keys() <= PROBLEM["properties"].keys()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate-video", {"prompt": "dawn", "num_frames": 3}),
        ("/generate-video", {"keyframes": [{"frame": 0, "prompt": "dawn"}], "num_frames": 3}),
        ("/estimate", {"prompt": "dawn"}),
        ("/estimate", {"type": "video", "keyframes": [{"frame": 0, "prompt": "dawn"}], "fps": 8}),
    ],
)
async def test_what_is_taken_is_allowed_by_the_document(path: str, body: dict[str, object], gw: World) -> None:
    """And each is refused by both without its words."""
    described = openapi_document()["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    words = next(name for name in ("keyframes", "prompt") if name in body)
    wordless = {name: value for name, value in body.items() if name != words}
    for sent, is_taken in ((body, True), (wordless, False)):
        assert Draft202012Validator(described).is_valid(sent) == is_taken
        assert (await gw.post(path, json=sent)).is_success == is_taken


async def test_a_store_that_is_away_is_an_answer_in_the_document(gw: World) -> None:
    """A long picture is kept in the store before the task is made."""
    made, data, described = await gw.create(), io.BytesIO(), openapi_document()["paths"]
    Image.effect_noise((200, 200), 90).save(data, "PNG")
    asked = {"prompt": "x", "image": base64.b64encode(data.getvalue()).decode()}
    results = (gw.gateway.settings.gateway_data or Path()) / "results"
    shutil.rmtree(results, ignore_errors=True)
    results.write_text("no folder")
    for path in ("/generate-image", "/generate-video", "/task/{task_id}/again"):
        answer = await gw.post(path.format(**made), json=asked)
        assert (answer.status_code, answer.json()["code"]) == (502, "storage_failed")
        assert "502" in described[path]["post"]["responses"], path


def test_the_document_checked_in_is_current() -> None:
    kept = ROOT / "docs" / "openapi.json"
    assert json.loads(kept.read_text(encoding="utf-8")) == openapi_document(), "run `make docs`"
