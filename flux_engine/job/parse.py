"""From the platform's job dictionary to a frozen job in which every parameter has its effective value.

    request = parse_request(raw)               # opened once: whose it is, what it asks for, a bucket of its own
    job = parse_job(request, context)          # every parameter at its effective value, or InvalidInput

Both are pure: nothing is fetched, decoded or loaded here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from flux_engine.errors import InvalidInput
from flux_engine.job.base import ParseContext, Parsing
from flux_engine.job.image import ImageJob, image_job
from flux_engine.job.video import VideoJob, video_job
from flux_engine.job.written.aliases import DISTINCT_ALIASES, canonical_fields
from flux_engine.job.written.bucket_fields import s3_config_warnings
from flux_engine.job.written.misplaced import EXAMPLE, envelope_fault

UNKNOWN_ID: Final = "unknown"
GATEWAY_FIELD: Final = "gateway"  # a field of `input`: what the gateway says about the job's task
WORDS: Final = {  # the members of that field
    "task_id": re.compile(r"[A-Za-z0-9_-]{1,64}"),
    "request_id": re.compile(r"[A-Za-z0-9._:/-]{1,128}"),
    "traceparent": re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayTask:
    """The task of a gateway that a job is for. Its id stays the same however often the job is submitted."""

    task_id: str
    request_id: str = ""
    traceparent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the platform hands over for one job, not checked yet.

    `id` is the gateway's where one sent the job, so that a job submitted twice is one job. `input` is None where it is
    not an object. `fault` is what is wrong around it, which `parse_job` raises.
    """

    id: str
    input: Mapping[Any, Any] | None = field(repr=False)  # prompts and pictures
    s3_config: object = field(default=None, repr=False)  # may hold a secret
    task: GatewayTask | None = None
    fault: str | None = field(default=None, repr=False)

    @property
    def origin(self) -> tuple[str, str]:
        """The client's request and the trace that the job came from, by their ids; empty where there is none."""
        if self.task is None:
            return "", ""
        return self.task.request_id, self.task.traceparent[3:35]


def parse_request(raw: object) -> Request:
    """Open the platform's job dictionary. Raises nothing, so that each error can name its job: what is wrong with
    `input` is for `parse_job` to say."""
    envelope = raw if isinstance(raw, Mapping) else {}
    identity, asked = envelope.get("id"), envelope.get("input")
    task = None
    if isinstance(asked, Mapping) and (task := _gateway_task(asked.get(GATEWAY_FIELD))) is not None:
        identity = task.task_id
        asked = {name: value for name, value in asked.items() if name != GATEWAY_FIELD}
    return Request(
        id=identity if isinstance(identity, str) and identity else UNKNOWN_ID,
        input=asked if isinstance(asked, Mapping) else None,
        s3_config=envelope.get("s3Config"),
        task=task,
        fault=envelope_fault(raw, DISTINCT_ALIASES),
    )


def _gateway_task(value: object) -> GatewayTask | None:
    """None for anything but a gateway's words: the field is then refused as one that a job does not have."""
    if not isinstance(value, Mapping) or "task_id" not in value or not set(value) <= set(WORDS):
        return None
    if not all(isinstance(word, str) and WORDS[name].fullmatch(word) for name, word in value.items()):
        return None
    return GatewayTask(**value)


def parse_job(request: Request, context: ParseContext) -> ImageJob | VideoJob:
    """Check what `request` asks for and fill in every default. Raises InvalidInput, which names the field and what it
    takes, and ModelUnavailable where the default model cannot be identified."""
    if request.fault is not None or request.input is None:
        raise InvalidInput(request.fault or f"`input` must be a JSON object, as in {EXAMPLE}", field="input")
    warnings = s3_config_warnings(request.s3_config)
    written = canonical_fields(request.input, warnings)
    parsing = Parsing(identity=request.id, written=written, context=context, warnings=warnings)
    if written.is_video:
        return video_job(parsing)
    return image_job(parsing)
