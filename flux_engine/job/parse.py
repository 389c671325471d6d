"""From the platform's job dictionary to a frozen job in which every parameter has its effective value.

    request = parse_request(raw)               # opened once: whose it is, what it asks for, a bucket of its own
    job = parse_job(request, context)          # every parameter at its effective value, or InvalidInput

Both are pure: nothing is fetched, decoded or loaded here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from flux_engine.errors import InvalidInput
from flux_engine.job.aliases import canonical_fields
from flux_engine.job.base import ParseContext, Parsing
from flux_engine.job.image import ImageJob, image_job
from flux_engine.job.video import VideoJob, video_job

UNKNOWN_ID: Final = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the platform hands over for one job, not checked yet. `input` is None where it is not an object."""

    id: str
    input: Mapping[Any, Any] | None = field(repr=False)  # prompts and pictures
    s3_config: object = field(default=None, repr=False)  # may hold a secret


def parse_request(raw: object) -> Request:
    """Open the platform's job dictionary. Raises nothing, so that each error can name its job: what is wrong with
    `input` is for `parse_job` to say."""
    envelope = raw if isinstance(raw, Mapping) else {}
    identity, asked = envelope.get("id"), envelope.get("input")
    return Request(
        id=identity if isinstance(identity, str) and identity else UNKNOWN_ID,
        input=asked if isinstance(asked, Mapping) else None,
        s3_config=envelope.get("s3Config"),
    )


def parse_job(request: Request, context: ParseContext) -> ImageJob | VideoJob:
    """Check what `request` asks for and fill in every default. Raises InvalidInput, which names the field and what it
    takes, and ModelUnavailable where the default model cannot be identified."""
    if request.input is None:
        raise InvalidInput('`input` must be a JSON object such as {"prompt": "a red sun"}', field="input")
    warnings: list[str] = []
    written = canonical_fields(request.input, warnings)
    parsing = Parsing(identity=request.id, written=written, context=context, warnings=warnings)
    if written.is_video:
        return video_job(parsing)
    return image_job(parsing)
