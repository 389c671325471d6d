"""What a call can fail with.

FluxClientError
|-- NotReached        the endpoint did not answer, whatever was tried
|-- Refused           the platform said no: a wrong key or endpoint, a body that is too large
|-- JobFailed         the worker's own error: `code`, `field`, `retryable`
|-- JobCancelled      somebody took the job back
|-- JobTimedOut       it ran longer than the platform lets a job run
'-- ResultLost        it finished, and its result is gone or is not what was promised
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


class FluxClientError(Exception):
    """Base of all errors of this client."""

    def __init__(self, message: str, *, job_id: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.job_id = job_id


class NotReached(FluxClientError):
    """The endpoint did not answer."""


class Refused(FluxClientError):
    """The platform answered with an error of its own; `status` is HTTP's."""

    def __init__(self, message: str, *, status: int, job_id: str | None = None) -> None:
        super().__init__(message, job_id=job_id)
        self.status = status


class JobFailed(FluxClientError):
    """The worker's error. `code` is one of the contract's, `field` the part of the job that it is about."""

    def __init__(self, error: Mapping[str, Any], *, job_id: str | None = None) -> None:
        super().__init__(str(error.get("message", "the job failed")), job_id=job_id)
        self.code = str(error.get("code", "internal"))
        self.field = error.get("field")
        self.retryable = bool(error.get("retryable", False))

    @classmethod
    def of(cls, error: object, *, job_id: str | None) -> JobFailed:
        """From `error` of the platform's answer: the worker's JSON text, or whatever else stands there."""
        try:
            parsed = json.loads(error) if isinstance(error, str) else error
        except ValueError:
            parsed = None
        if not isinstance(parsed, Mapping):
            parsed = {"message": str(error)[:500], "retryable": True}  # the platform's own, such as a lost worker
        return cls(parsed, job_id=job_id)


class JobCancelled(FluxClientError):
    """Somebody took the job back."""


class JobTimedOut(FluxClientError):
    """The job ran longer than the platform lets a job run, or waited longer than it keeps one."""


class ResultLost(FluxClientError):
    """A finished job whose result is missing, or a file that is not the one that the result names."""
