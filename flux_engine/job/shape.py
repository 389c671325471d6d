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
from flux_engine.job.edits.region import Box, Region, Sides, region_of
from flux_engine.job.edits.upscale import check_result
from flux_engine.job.fields import SIDE_BOUNDS
from flux_engine.job.image import ImageJob
from flux_engine.job.limits import ModelLimits
from flux_engine.job.size import size_like

MAX_CUT: Final = 0.1  # share of a side cut without a warning; sides are multiples of 16
MAX_REFERENCE_RATIO: Final = 8  # of the long side to the short one, as FLUX.2's processor has it

AnyJob = TypeVar("AnyJob", bound=Job)


def shaped_like(job: AnyJob, picture: Sides | None, limits: ModelLimits, *, painted: Box | None = None) -> AnyJob:
    """`job` in the shape of its `picture`, or with a warning where much of the picture is cut off.

    `painted` is the box around what its mask leaves to paint. Raises InvalidInput where the result would be too large.
    """
    if picture is None:
        return job
    region = drawn_region(job, picture, painted)
    if region is not None:
        return _shaped_by(job, region, limits)
    if job.is_size_open:
        width, height = size_like(picture, limits)
        job = replace(job, width=width, height=height)
        if isinstance(job, ImageJob):
            check_result((width, height), job.upscale)
    mask = job.mask if isinstance(job, ImageJob) else None
    if limits.image_use == "reference" and mask is None:
        return job  # it is looked at whole
    cut = _cut_off(picture, (job.width, job.height), mend=_mend(job))
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


def drawn_region(job: Job, picture: Sides, painted: Box | None) -> Region | None:
    """The part of `job`'s picture that is drawn at `width` x `height` and put back; None where all of it is drawn."""
    if not isinstance(job, ImageJob):
        return None
    return region_of(picture, painted=painted, mask_crop=job.mask_crop, expand=job.expand)


def _shaped_by(job: AnyJob, region: Region, limits: ModelLimits) -> AnyJob:
    check_result(region.canvas, None, field="expand")
    if isinstance(job, ImageJob):
        check_result(region.canvas, job.upscale)
    if job.is_size_open:
        keeps_pixels = isinstance(job, ImageJob) and job.mask_crop is None
        width, height = size_like(region.sides, limits, keeps_pixels=keeps_pixels)
        job = replace(job, width=width, height=height)
    across, down = region.shaped(job.width, job.height).sides
    stretched = max(across * job.height, job.width * down) / min(across * job.height, job.width * down) - 1
    if stretched <= MAX_CUT:
        return job
    said = (
        f"what is drawn is {across}x{down} pixels of the picture and is stretched to {job.width}x{job.height}; "
        f"{_mend(job)}"
    )
    return replace(job, warnings=(*job.warnings, said))


def _mend(job: Job) -> str:
    if not job.is_size_open:
        return "leave `width`, `height` and `aspect_ratio` out to keep its shape"
    return f"a result has {SIDE_BOUNDS[0]} to {SIDE_BOUNDS[1]} pixels a side: cut the picture to what matters"


def _cut_off(picture: Sides, size: Sides, *, mend: str) -> str | None:
    across = size[0] / size[1] * picture[1] / picture[0]  # the share of the width that is kept, where it is below 1
    kept, side = (across, "width") if across < 1 else (1 / across, "height")
    if kept >= 1 - MAX_CUT:
        return None
    return (
        f"`image` is {picture[0]}x{picture[1]} and the result {size[0]}x{size[1]}: {1 - kept:.0%} of its {side} is cut "
        f"off; {mend}"
    )
