"""A picture without a size keeps its shape; what is cut off is said."""

from __future__ import annotations

from typing import Any

import pytest

from flux_engine.job.base import ParseContext
from flux_engine.job.limits import ModelLimits
from flux_engine.job.parse import Request, parse_job
from flux_engine.job.shape import shaped_like
from flux_engine.models import catalog
from tests.conftest import context_for


def limits_of(name: str) -> ModelLimits:
    spec = catalog.find(name)
    assert spec is not None
    return spec.limits


def shaped(name: str, picture: tuple[int, int] | None, **fields: Any) -> tuple[int, int, tuple[str, ...]]:
    spec = catalog.find(name)
    assert spec is not None
    job = parse_job(Request(id="x", input={"prompt": "a sun", "image": "AAAA", **fields}), context_for(spec))
    job = shaped_like(job, picture, spec.limits)
    return job.width, job.height, job.warnings


@pytest.mark.parametrize(
    ("picture", "size"),
    [
        ((512, 256), (368, 176)),
        ((256, 512), (176, 368)),
        ((4000, 3000), (288, 224)),
        ((1, 1), (256, 256)),
        ((333, 333), (256, 256)),
        ((900, 600), (304, 208)),
    ],
)
def test_a_picture_alone_keeps_its_shape_at_the_models_area(picture: tuple[int, int], size: tuple[int, int]) -> None:
    width, height, warnings = shaped("flux-tiny", picture)
    assert (width, height, warnings) == (*size, ())
    assert width * height <= 256**2


@pytest.mark.parametrize("name", ["FLUX.1-dev", "FLUX.1-Kontext-dev", "FLUX.2-klein-4B", "flux-tiny"])
@pytest.mark.parametrize("picture", [(1920, 1080), (1080, 1920), (3, 4000), (16_000, 1000), (1024, 1024)])
def test_every_shape_gives_sides_within_the_bounds(name: str, picture: tuple[int, int]) -> None:
    width, height, _ = shaped(name, picture)
    assert width % 16 == height % 16 == 0
    assert 64 <= min(width, height) <= max(width, height) <= 2048
    assert width * height <= limits_of(name).side ** 2
    assert width * height >= 0.9 * limits_of(name).side ** 2 or max(picture) > 4 * min(picture)


@pytest.mark.parametrize("written", [{"width": 256}, {"height": 128}, {"size": "128x128"}, {"aspect_ratio": "1:1"}])
def test_a_size_that_is_written_holds_and_what_is_cut_off_is_said(written: dict[str, Any]) -> None:
    plain = shaped("flux-tiny", None, **written)
    width, height, warnings = shaped("flux-tiny", (1024, 256), **written)
    assert (width, height) == plain[:2]
    assert len(warnings) == 1
    assert "of its width is cut off" in warnings[0]


def test_a_reference_is_looked_at_whole() -> None:
    assert shaped("FLUX.1-Kontext-dev", (1024, 256), size="512x512")[2] == ()


def test_a_strip_says_what_the_smallest_side_cuts_off() -> None:
    (said,) = shaped("flux-tiny", (4000, 100))[2]
    assert "of its width is cut off" in said


@pytest.mark.parametrize("fields", [{}, {"expand": {"top": 8}}])
def test_a_strip_is_not_told_to_leave_out_the_size_that_it_left_out(fields: dict[str, Any]) -> None:
    (said,) = shaped("flux-tiny", (4000, 20), **fields)[2]
    assert "leave `width`" not in said
    assert "64 to 2048 pixels a side" in said


def test_a_video_begins_in_the_shape_of_its_picture() -> None:
    assert shaped("flux-tiny", (512, 256), num_frames=4)[:2] == (368, 176)


def test_without_a_picture_nothing_changes(context: ParseContext, tiny: Any) -> None:
    job = parse_job(Request(id="x", input={"prompt": "a sun"}), context)
    assert shaped_like(job, None, tiny.limits) is job
