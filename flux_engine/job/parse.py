"""From the platform's job dictionary to a frozen job in which every parameter has its effective value.

A wrong job raises InvalidInput, which names the field and what it takes. Nothing is fetched, decoded or loaded here.
"""

from __future__ import annotations

from collections.abc import Mapping

from flux_engine.errors import InvalidInput
from flux_engine.job.aliases import canonical_fields
from flux_engine.job.base import ParseContext, Parsing, job_id
from flux_engine.job.image import ImageJob, image_job
from flux_engine.job.video import VideoJob, video_job


def parse_job(job: object, context: ParseContext) -> ImageJob | VideoJob:
    """Check the platform's job dictionary and fill in every default.

    Raises InvalidInput.
    """
    if not isinstance(job, Mapping):
        raise InvalidInput("the job must be a JSON object with an `input` object", field="input")
    raw = job.get("input")
    if not isinstance(raw, Mapping):
        raise InvalidInput('`input` must be a JSON object such as {"prompt": "a red sun"}', field="input")
    warnings: list[str] = []
    written = canonical_fields(raw, warnings)
    parsing = Parsing(identity=job_id(job), written=written, context=context, warnings=warnings)
    if written.is_video:
        return video_job(parsing)
    return image_job(parsing)
