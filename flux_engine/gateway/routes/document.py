"""What the OpenAPI document says beyond the routes' types: bodies that are parsed by `job/`, and every problem."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from flux_engine.gateway.problems import MEDIA_TYPE
from flux_engine.job.fields import ImageFields
from flux_engine.job.schema.forms import forms_of_images
from flux_engine.job.video_fields import VideoFields

PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "retryable", "error"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "field": {"type": "string"},
        "retryable": {"type": "boolean"},
        "request_id": {"type": "string"},
        "violated-policies": {"type": "array", "items": {"type": "string"}},
        "error": {
            "type": "object",
            "required": ["message", "type", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "code": {"type": ["string", "null"]},
                "param": {"type": ["string", "null"]},
            },
        },
    },
}
TASK: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["task_id", "status", "progress", "status_url", "result_url", "cancel_url", "events_url"],
    "properties": {
        "task_id": {"type": "string", "format": "uuid"},
        "type": {"enum": ["image", "video"]},
        "status": {"enum": ["queued", "processing", "completed", "failed", "cancelled"]},
        "cancelling": {"type": "boolean"},
        "stage": {"type": "string"},
        "progress": {"type": "number", "minimum": 0, "maximum": 1},
        "step": {"type": "integer"},
        "total_steps": {"type": "integer"},
        "frame": {"type": "integer"},
        "total_frames": {"type": "integer"},
        "eta_seconds": {"type": ["number", "null"]},
        "position": {"type": "integer", "minimum": 0},
        "waiting_for": {"enum": ["worker_starting", "busy", "throttled", "no_workers"]},
        "created_at": {"type": "string", "format": "date-time"},
        "started_at": {"type": "string", "format": "date-time"},
        "finished_at": {"type": "string", "format": "date-time"},
        "expires_at": {"type": "string", "format": "date-time"},
        "model": {"type": "string"},
        "seed": {"type": "integer"},
        "work": {"type": "number"},
        "work_used": {"type": "number"},
        "cached": {"type": "boolean"},
        "warnings": {"type": "array", "items": {"type": "string"}},
        "metadata": {"type": "object"},
        "parameters": {"type": "object"},
        "again_of": {"type": "string"},
        "error": {"type": "object", "required": ["code", "message", "retryable"]},
        "result": {"type": "object"},
        "status_url": {"type": "string"},
        "result_url": {"type": "string"},
        "cancel_url": {"type": "string"},
        "events_url": {"type": "string"},
    },
}
TASK_LIST: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["tasks", "next"],
    "properties": {"tasks": {"type": "array", "items": TASK}, "next": {"type": ["string", "null"]}},
}
TITLES: Final = {
    400: "The request cannot be read",
    401: "No credentials, or ones that are not good (any more)",
    403: "The credentials lack a scope",
    404: "Unknown, or another user's",
    405: "Another method",
    409: "Not ready",
    410: "Cancelled or expired",
    413: "The body is too large",
    415: "Another media type",
    416: "The range lies outside of the file",
    422: "Invalid input, by the codes of a job",
    429: "A limit is used up",
    500: "Something broke",
    502: "The queue or the storage refused",
    503: "Redis or the queue does not answer",
}
EXTRAS: Final[dict[str, Any]] = {
    "webhook": {
        "type": "object",
        "description": "Told of the task's end, signed",
        "required": ["url"],
        "properties": {
            "url": {"type": "string", "format": "uri"},
            "events": {"type": "array", "items": {"enum": ["status", "completed", "failed", "cancelled"]}},
        },
    },
    "priority": {"enum": ["normal", "low"], "description": "`low` waits until nobody else does"},
    "deadline_seconds": {"type": "number", "minimum": 1, "maximum": 86400, "description": "Later it is of no use"},
}
SCHEMES: Final[dict[str, Any]] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, or a token from `/auth/token`"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
IDEMPOTENCY_KEY: Final[dict[str, Any]] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The same key and body within 24 hours give the same task",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}
PREFER: Final[dict[str, Any]] = {
    "name": "Prefer",
    "in": "header",
    "description": "`wait=N`: hold the answer until the task has ended, for N seconds and 60 at most",
    "schema": {"type": "string", "pattern": "^wait=[0-9]{1,2}$"},
}
LAST_EVENT_ID: Final[dict[str, Any]] = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "Go on after this event",
    "schema": {"type": "string", "pattern": "^[0-9]{1,15}-[0-9]{1,5}$"},
}
BOUNDS: Final = {"ge": "minimum", "le": "maximum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum"}
WITHOUT: Final = ("type", "response_format")  # set by the route, and by the gateway


def problems(*statuses: int, authenticated: bool = True) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route: the problems that it may answer."""
    always = (401, 403, 429, 503) if authenticated else ()
    listed = dict.fromkeys((*sorted({*statuses, *always}), 500))
    return {status: answer(TITLES[status], PROBLEM, media_type=MEDIA_TYPE) for status in listed}


def answer(description: str, schema: dict[str, Any], *, media_type: str = "application/json") -> dict[str, Any]:
    return {"description": description, "content": {media_type: {"schema": schema}}}


def header_parameters(*parameters: dict[str, Any]) -> dict[str, Any]:
    """`openapi_extra` of a route that reads these headers itself."""
    return {"parameters": list(parameters)}


def with_credentials(document: dict[str, Any]) -> dict[str, Any]:
    """`document`, in which each operation that answers 401 says which credentials it takes."""
    document.setdefault("components", {})["securitySchemes"] = SCHEMES
    for operations in document["paths"].values():
        for operation in operations.values():
            if "401" in operation["responses"]:
                operation["security"] = [{name: []} for name in SCHEMES]
    return document


def job_body(kind: Literal["image", "video"]) -> dict[str, Any]:
    """The request body of a job."""
    job = _job(kind)
    job["properties"] |= EXTRAS
    return json_request(job)


def any_job_body() -> dict[str, Any]:
    """The request body of a question about a job of either kind."""
    image, video = _job("image"), _job("video")
    forms = {
        name: [job["properties"][name] for job in (image, video) if name in job["properties"]]
        for name in image["properties"] | video["properties"]
    }
    fields = {name: form[0] if form[0] == form[-1] else {"anyOf": form} for name, form in forms.items()}
    fields["type"] = {"enum": ["image", "video"], "description": "By default a video where a field of videos is given"}
    return json_request(video | {"properties": fields | EXTRAS})


def _job(kind: Literal["image", "video"]) -> dict[str, Any]:
    """The schema of a job, from the declaration that it is parsed by."""
    schema = (ImageFields if kind == "image" else VideoFields).model_json_schema()
    forms = forms_of_images() if kind == "image" else {}
    fields = {
        name: field | _nullable(forms[name]) if name in forms else field
        for name, field in schema["properties"].items()
        if name not in WITHOUT
    }
    needed: dict[str, Any] = {"required": ["prompt"]}
    if kind == "video":
        needed = {"anyOf": [needed, {"required": ["keyframes"]}]}
    return {"type": "object", **needed, "properties": _plain(fields, schema.get("$defs", {}))}


def _nullable(form: dict[str, Any]) -> dict[str, Any]:
    """The form of a field that is parsed apart, or null."""
    return {"anyOf": [*form.get("anyOf", (form,)), {"type": "null"}]}


def json_request(schema: dict[str, Any], *, is_required: bool = True) -> dict[str, Any]:
    """`openapi_extra` of a route that reads its JSON body itself."""
    return {"requestBody": {"required": is_required, "content": {"application/json": {"schema": schema}}}}


def _plain(value: Any, definitions: Mapping[str, Any]) -> Any:
    """`value` with its references filled in and its bounds under JSON Schema's names: pydantic leaves them under its
    own where a validator stands before the type."""
    if isinstance(value, list):
        return [_plain(item, definitions) for item in value]
    if not isinstance(value, dict):
        return value
    if "$ref" in value:
        return _plain(definitions[value["$ref"].rpartition("/")[2]], definitions)
    return {BOUNDS.get(name, name): _plain(item, definitions) for name, item in value.items()}
