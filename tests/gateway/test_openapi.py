"""The OpenAPI document: what is served, what is checked in, and that routes keep to it."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from flux_engine.gateway.app import openapi_document
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


def test_the_document_checked_in_is_current() -> None:
    kept = ROOT / "docs" / "openapi.json"
    assert json.loads(kept.read_text(encoding="utf-8")) == openapi_document(), "run `make docs`"
