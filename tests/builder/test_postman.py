"""The Postman collection holds requests that an endpoint takes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from builder.postman import PAGE
from flux_engine.job.parse import Request, parse_job
from flux_engine.models.catalog import FLUX_1_SCHNELL
from flux_engine.openai.request import edit_job, generation_job
from tests.conftest import context_for

TRANSLATIONS = {"generations": generation_job, "edits": edit_job}


def requests(items: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for item in items:
        if "item" in item:
            yield from requests(item["item"])
        else:
            yield item["request"]


def test_every_body_is_a_job_or_a_question() -> None:
    context = context_for(FLUX_1_SCHNELL)
    tried = 0
    for request in requests(json.loads(PAGE.read_text(encoding="utf-8"))["item"]):
        assert request["url"]["raw"].startswith("{{base_url}}/{{endpoint_id}}/")
        if "body" not in request:
            continue
        tried += 1
        body, last = json.loads(request["body"]["raw"]), request["url"]["path"][-1]
        if last in TRANSLATIONS:
            parse_job(Request(id="x", input=TRANSLATIONS[last](body, context).job), context)
        elif body["input"] != {"op": "capabilities"}:
            parse_job(Request(id="x", input={n: v for n, v in body["input"].items() if n != "op"}), context)
    assert tried >= 8
