"""The Postman collection: every kind of request that an endpoint takes, with the examples of the schemas of jobs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from flux_engine.job.base import ParseContext
from flux_engine.job.schema.jobs import Kind, Offer, job_schema
from flux_engine.models.catalog import FLUX_1_SCHNELL

PAGE: Final = Path(__file__).parents[1] / "examples" / "integrations" / "postman.json"
SCHEMA: Final = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"
VARIABLES: Final = {"base_url": "https://api.runpod.ai/v2", "endpoint_id": "", "api_key": "", "job_id": ""}
PROMPT: Final = "a red sun on the left over purple mountains, a lake, dusk"

Item = dict[str, Any]


def page() -> str:
    """The collection as JSON."""
    collection = {
        "info": {
            "name": "flux-engine",
            "schema": SCHEMA,
            "description": "Made by `python -m builder.docs`; do not edit.",
        },
        "auth": {"type": "bearer", "bearer": [{"key": "token", "value": "{{api_key}}", "type": "string"}]},
        "variable": [{"key": name, "value": value} for name, value in VARIABLES.items()],
        "item": [
            {"name": "Jobs", "item": [*_jobs("image"), *_jobs("video"), *_about_a_job()]},
            {"name": "Questions", "item": _questions()},
            {"name": "OpenAI", "item": _openai()},
        ],
    }
    return json.dumps(collection, indent=2) + "\n"


def _jobs(kind: Kind) -> list[Item]:
    limits = FLUX_1_SCHNELL.limits
    offer = Offer(limits=limits, names=(limits.id,), is_default=True, makes_videos=True)
    context = ParseContext(
        default_model=lambda: limits,
        find_model=lambda name: limits if name == limits.id else None,
        served_models=(limits.id,),
        default_response_format="url",
        can_return_urls=True,
    )
    examples = job_schema(kind, offer, context)["examples"]
    return [
        _request(f"A{'n' if kind == 'image' else ''} {kind} job, example {i}", "POST", "run", {"input": example})
        for i, example in enumerate(examples, start=1)
    ]


def _about_a_job() -> list[Item]:
    return [
        _request("Its status, progress and result", "GET", "status/{{job_id}}"),
        _request("Take it back", "POST", "cancel/{{job_id}}"),
        _request("Run a failed one again", "POST", "retry/{{job_id}}"),
        _request("The endpoint's health", "GET", "health"),
    ]


def _questions() -> list[Item]:
    estimate = {"op": "estimate", "prompt": PROMPT, "num_inference_steps": 4}
    return [
        _request("What is served", "POST", "runsync", {"input": {"op": "capabilities"}}),
        _request("What a job would take", "POST", "runsync", {"input": estimate}),
    ]


def _openai() -> list[Item]:
    generation = {"prompt": PROMPT, "size": "1024x768", "quality": "medium", "n": 1}
    edit = {"prompt": "the same at night", "image": "https://example.com/picture.png"}
    return [
        _request("Models", "GET", "openai/v1/models"),
        _request("Generate", "POST", "openai/v1/images/generations", generation),
        _request("Edit", "POST", "openai/v1/images/edits", edit),
    ]


def _request(name: str, method: str, path: str, body: object = None) -> Item:
    parts = ["{{endpoint_id}}", *path.split("/")]
    request: Item = {
        "method": method,
        "url": {"raw": "/".join(["{{base_url}}", *parts]), "host": ["{{base_url}}"], "path": parts},
    }
    if body is not None:
        raw = json.dumps(body, indent=2)
        request["header"] = [{"key": "Content-Type", "value": "application/json"}]
        request["body"] = {"mode": "raw", "raw": raw, "options": {"raw": {"language": "json"}}}
    return {"name": name, "request": request}
