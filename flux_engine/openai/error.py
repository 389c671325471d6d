"""A job's error, as the contract has it -> OpenAI's error object and the HTTP status that makes the client's own class.

The client raises BadRequestError for 400, NotFoundError for 404, UnprocessableEntityError for 422, InternalServerError
from 500 on. It repeats 408, 409, 429 and 5xx unless `x-should-retry: false` comes with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flux_engine.job.base import JsonObject

STATUSES: Final[dict[str, int]] = {
    "invalid_input": 400,
    "input_fetch_failed": 400,
    "lora_invalid": 422,
    "lora_incompatible": 422,
    "result_too_large": 413,
    "content_filtered": 400,
    "model_unavailable": 503,
    "out_of_memory": 503,
    "storage_failed": 503,
    "internal": 500,
}
FETCH_MAY_PASS: Final = 503  # of a download that a repeat may mend
UNKNOWN_MODEL: Final = 404
PARAMS: Final = {"num_images": "n", "output_quality": "output_compression", "width": "size", "height": "size"}


def status_of(error: Mapping[str, Any]) -> int:
    """The HTTP status of `error`: the contract's `{code, message, field?, retryable}`."""
    code = error["code"]
    if code == "invalid_input" and error.get("field") == "model":
        return UNKNOWN_MODEL
    if code == "input_fetch_failed" and error["retryable"]:
        return FETCH_MAY_PASS
    return STATUSES.get(code, 500)


def error_body(error: Mapping[str, Any]) -> JsonObject:
    """`{"error": {message, type, param, code}}`; `param` is the request's name for the job's field."""
    field = error.get("field")
    return {
        "error": {
            "message": error["message"],
            "type": "server_error" if status_of(error) >= 500 else "invalid_request_error",
            "param": PARAMS.get(field, field) if isinstance(field, str) else None,
            "code": error["code"],
        }
    }
