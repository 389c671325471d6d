"""Everything that the gateway answers in place of a result, as RFC 9457 problems.

    Problem
    |-- Malformed          400 invalid_input       the request cannot be read
    |-- Unauthorized       401 unauthorized
    |-- Forbidden          403 forbidden
    |-- NotFound           404 not_found           unknown, or another user's
    |-- NotReady           409 not_ready           the task has not ended yet
    |-- Gone               410 cancelled, expired
    |-- BodyTooLarge       413 body_too_large
    |-- WrongMedia         415 wrong_media_type
    |-- RangeRefused       416 range_not_satisfiable
    |-- Refused            422 invalid_input and the other codes of errors.py
    |-- KeyReused          422 idempotency_mismatch
    |-- TooMany            429 quota_exceeded
    |-- QueueFailed        502 queue_failed        the queue refuses us
    '-- Unavailable        503 unavailable         Redis or the queue does not answer

The body carries OpenAI's `error` object as well, without which the openai client shows only a number.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, ClassVar, Final

from flux_engine.errors import FluxError

MEDIA_TYPE: Final = "application/problem+json"
QUOTA_EXCEEDED: Final = "https://iana.org/assignments/http-problem-types#quota-exceeded"

STATUS_BY_CODE: Final[Mapping[str, int]] = {  # the errors of a job (errors.py)
    "invalid_input": 422,
    "input_fetch_failed": 422,
    "lora_invalid": 422,
    "lora_incompatible": 422,
    "content_filtered": 422,
    "result_too_large": 422,
    "model_unavailable": 503,
    "out_of_memory": 500,
    "storage_failed": 502,
    "internal": 500,
}
OPENAI_TYPES: Final[Mapping[int, str]] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class Problem(Exception):
    """An answer that is no result. `headers` are added to it as they stand."""

    status: int = 500
    code: str = "internal"
    type: ClassVar[str] = "about:blank"

    def __init__(
        self,
        detail: str,
        *,
        field: str | None = None,
        retryable: bool = False,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail: Final = detail
        self.field: Final = field
        self.retryable: Final = retryable
        self.headers: Final = dict(headers or {})
        self.extra: Final = dict(extra or {})

    def body(self, *, request_id: str | None = None) -> dict[str, Any]:
        """The JSON body, with OpenAI's `error` beside the problem's own members."""
        said: dict[str, Any] = {
            "type": self.type,
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "retryable": self.retryable,
        }
        if self.field is not None:
            said["field"] = self.field
        if request_id is not None:
            said["request_id"] = request_id
        openai = {
            "message": self.detail,
            "type": OPENAI_TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error"),
            "code": self.code,
            "param": self.field,
        }
        return said | {"error": openai} | self.extra

    def all_headers(self) -> dict[str, str]:
        """`headers`, and whether the openai client should try again: it retries 409, 429 and 5xx by itself."""
        return {"x-should-retry": "true" if self.retryable else "false", **self.headers}


class Malformed(Problem):
    status = 400
    code = "invalid_input"


class Unauthorized(Problem):
    status = 401
    code = "unauthorized"

    def all_headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": 'Bearer realm="flux"'} | super().all_headers()


class Forbidden(Problem):
    status = 403
    code = "forbidden"


class NotFound(Problem):
    status = 404
    code = "not_found"


class NotReady(Problem):
    status = 409
    code = "not_ready"


class Gone(Problem):
    status = 410

    def __init__(self, detail: str, *, code: str) -> None:
        super().__init__(detail)
        self.code = code


class BodyTooLarge(Problem):
    status = 413
    code = "body_too_large"


class WrongMedia(Problem):
    status = 415
    code = "wrong_media_type"


class RangeRefused(Problem):
    status = 416
    code = "range_not_satisfiable"


class Refused(Problem):
    """The job cannot be done as it was asked for; the code is one of errors.py."""

    status = 422
    code = "invalid_input"

    @classmethod
    def of(cls, error: FluxError) -> Refused:
        return cls.described(error.code, error.message, field=error.field, retryable=error.retryable)

    @classmethod
    def described(cls, code: str, message: str, *, field: str | None = None, retryable: bool = False) -> Refused:
        """A job's error by its parts, as a finished task keeps them."""
        made = cls(message, field=field, retryable=retryable)
        made.code = code
        made.status = STATUS_BY_CODE.get(code, 500)
        return made


class KeyReused(Problem):
    status = 422
    code = "idempotency_mismatch"


class TooMany(Problem):
    """A limit is used up. `headers` hold RateLimit-Policy, RateLimit and Retry-After."""

    status = 429
    code = "quota_exceeded"
    type = QUOTA_EXCEEDED


class QueueFailed(Problem):
    status = 502
    code = "queue_failed"


class Unavailable(Problem):
    status = 503
    code = "unavailable"

    def __init__(self, detail: str, *, retry_after_s: int = 2) -> None:
        super().__init__(detail, retryable=True, headers={"Retry-After": str(retry_after_s)})
