"""The shape of a job that brings pictures: the first one's where the client wrote no size; and which shapes a model
can look at.

A picture's size is known once it is fetched, so this comes after parsing and before the fingerprint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, TypeVar

from flux_engine.errors import InvalidInput
from flux_engine.job.base import Job
from flux_engine.job.image import ImageJob
from flux_engine.job.limits import ModelLimits
from flux_engine.job.size import size_like

MAX_CUT: Final = 0.1  # share of a side cut without a warning; sides are multiples of 16
MAX_REFERENCE_RATIO: Final = 8  # of the long side to the short one, as FLUX.2's processor has it

AnyJob = TypeVar("AnyJob", bound=Job)


def shaped_like(job: AnyJob, picture: tuple[int, int] | None, limits: ModelLimits) -> AnyJob:
    """`job` in the shape of its `picture`, or with a warning where much of the picture is cut off."""
    if picture is None:
        return job
    if job.is_size_open:
        width, height = size_like(picture, limits)
        job = replace(job, width=width, height=height)
    mask = job.mask if isinstance(job, ImageJob) else None
    if limits.image_use == "reference" and mask is None:
        return job  # it is looked at whole
    cut = _cut_off(picture, (job.width, job.height))
    return job if cut is None else replace(job, warnings=(*job.warnings, cut))


def check_references(sizes: Mapping[str, tuple[int, int]]) -> None:
    """Raise InvalidInput where a reference is longer than a model can look at; `sizes` by field."""
    for field, (width, height) in sizes.items():
        if max(width, height) > MAX_REFERENCE_RATIO * min(width, height):
            raise InvalidInput(
                f"`{field}` is {width}x{height}: a model looks at pictures up to {MAX_REFERENCE_RATIO} times as long "
                "as wide; cut it",
                field=field,
            )


def _cut_off(picture: tuple[int, int], size: tuple[int, int]) -> str | None:
    across = size[0] / size[1] * picture[1] / picture[0]  # the share of the width that is kept, where it is below 1
    kept, side = (across, "width") if across < 1 else (1 / across, "height")
    if kept >= 1 - MAX_CUT:
        return None
    return (
        f"`image` is {picture[0]}x{picture[1]} and the result {size[0]}x{size[1]}: {1 - kept:.0%} of its {side} is cut "
        "off; leave `width`, `height` and `aspect_ratio` out to keep its shape"
    )
