"""Every error that a client can see.

    FluxError
    |-- ClientError                what the job asked for cannot be done
    |   |-- InvalidInput           invalid_input
    |   |-- InputFetchFailed       input_fetch_failed
    |   |-- LoraInvalid            lora_invalid
    |   |-- LoraIncompatible       lora_incompatible
    |   |-- ResultTooLarge         result_too_large
    |   '-- ContentFiltered        content_filtered
    '-- WorkerError                something on our side broke
        |-- ModelUnavailable       model_unavailable
        |-- OutOfMemory            out_of_memory
        |-- StorageFailed          storage_failed
        '-- Internal               internal
            '-- DeviceBroken       internal; this process takes no further job

    JobCancelled (BaseException)   the job was cancelled; nobody reads a result

A message says what to do next. It never holds a path, a host name, an address or a secret.
"""

from __future__ import annotations

import json
from typing import ClassVar, Final, Literal

ErrorCode = Literal[
    "invalid_input",
    "input_fetch_failed",
    "lora_invalid",
    "lora_incompatible",
    "model_unavailable",
    "out_of_memory",
    "result_too_large",
    "content_filtered",
    "storage_failed",
    "internal",
]


class FluxError(Exception):
    """Base of all errors that become a job's `error`."""

    code: ClassVar[ErrorCode]
    retryable: bool = False

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message: Final = message
        self.field: Final = field

    def to_json(self, job_id: str) -> str:
        """The JSON text under `error` in the job's result."""
        body: dict[str, object] = {"code": self.code, "message": self.message}
        if self.field is not None:
            body["field"] = self.field
        return json.dumps(body | {"retryable": self.retryable, "job_id": job_id}, ensure_ascii=False)


class ClientError(FluxError):
    """Sending the same job again gives the same error."""


class InvalidInput(ClientError):
    """A field is missing, unknown, out of bounds or contradicts another."""

    code = "invalid_input"


class InputFetchFailed(ClientError):
    """An image or LoRA could not be downloaded, is too large, or its address is refused."""

    code = "input_fetch_failed"

    def __init__(
        self, message: str, *, field: str | None = None, retryable: bool = False, status: int | None = None
    ) -> None:
        super().__init__(message, field=field)
        self.retryable = retryable  # a 5xx or a time-out may pass
        self.status = status  # the HTTP status, where the host answered


class LoraInvalid(ClientError):
    """Not a safetensors file, not a LoRA, or over a limit."""

    code = "lora_invalid"


class LoraIncompatible(ClientError):
    """A LoRA for another architecture."""

    code = "lora_incompatible"


class ResultTooLarge(ClientError):
    """The inline result is over the platform's limit and no bucket is set."""

    code = "result_too_large"


class ContentFiltered(ClientError):
    """Every picture was withheld by the content filter."""

    code = "content_filtered"


class WorkerError(FluxError):
    """The job was fine; the worker, its model or its storage was not."""


class ModelUnavailable(WorkerError):
    """The model is not on the volume or cannot be loaded."""

    code = "model_unavailable"


class OutOfMemory(WorkerError):
    """It did not fit even at the leanest setting."""

    code = "out_of_memory"


class StorageFailed(WorkerError):
    """The upload failed after its retries, or a file of the volume could not be written or read."""

    code = "storage_failed"
    retryable = True


class Internal(WorkerError):
    """Anything unforeseen; its message has a reference that the worker's log has too."""

    code = "internal"
    retryable = True


class DeviceBroken(Internal):
    """The GPU's context is lost; only a new process restores it."""


class JobCancelled(BaseException):
    """Raised on the GPU thread at the next step of a cancelled job.

    Not an Exception, so that no library's handler catches it on its way out.
    """
