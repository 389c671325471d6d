"""Edits: which part of a picture is drawn, at which size, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest

from flux_engine.errors import InvalidInput
from flux_engine.job.base import ParseContext
from flux_engine.job.edits.expand import Expand
from flux_engine.job.edits.region import Box, region_of
from flux_engine.job.image import ImageJob
from flux_engine.job.parse import Request, parse_job
from flux_engine.job.shape import shaped_like
from flux_engine.models import catalog
from tests.conftest import context_for

PICTURE = (1000, 800)
EDIT: dict[str, Any] = {"image": "QUFB", "mask": "QUFB"}


def parse(context: ParseContext, **fields: Any) -> ImageJob:
    job = parse_job(Request(id="job-1", input={"prompt": "a red sun", **fields}), context)
    assert isinstance(job, ImageJob)
    return job


def shaped(name: str, picture: tuple[int, int], painted: Box | None, **fields: Any) -> ImageJob:
    spec = catalog.find(name)
    assert spec is not None
    return shaped_like(parse(context_for(spec), **fields), picture, spec.limits, painted=painted)


@pytest.mark.parametrize(
    ("painted", "crop", "box"),
    [
        ((400, 300, 500, 400), 50, (350, 250, 550, 450)),
        ((0, 0, 100, 100), 50, (0, 0, 200, 200)),  # moved in from the corner
        ((900, 700, 1000, 800), 0, (900, 700, 1000, 800)),
        ((500, 400, 501, 401), 0, (469, 369, 533, 433)),  # one pixel, with enough to see around it
        ((0, 0, 1000, 800), 512, (0, 0, 1000, 800)),
        ((100, 400, 900, 403), 10, (90, 265, 910, 538)),  # a strip is cut out wider
        (None, 10, (0, 0, 1000, 800)),
    ],
)
def test_the_part_that_is_cut_out(painted: Box | None, crop: int, box: Box) -> None:
    region = region_of(PICTURE, painted=painted, mask_crop=crop)
    assert region is not None
    assert (region.box, region.canvas, region.at) == (box, PICTURE, (0, 0))


@pytest.mark.parametrize("size", [(256, 256), (320, 192), (64, 2048)])
def test_a_part_takes_the_shape_in_which_it_is_drawn_where_there_is_room(size: tuple[int, int]) -> None:
    region = region_of(PICTURE, painted=(480, 380, 520, 420), mask_crop=10)
    assert region is not None
    left, top, right, bottom = region.shaped(*size).box
    assert left <= region.box[0] < region.box[2] <= right
    assert top <= region.box[1] < region.box[3] <= bottom
    assert 0 <= left < right <= PICTURE[0]
    assert 0 <= top < bottom <= PICTURE[1]
    if size != (64, 2048):
        assert (right - left) / (bottom - top) == pytest.approx(size[0] / size[1], rel=0.03)


def test_without_crop_and_expand_the_whole_picture_is_drawn() -> None:
    assert region_of(PICTURE, painted=(0, 0, 10, 10), mask_crop=None) is None


@pytest.mark.parametrize(
    ("added", "canvas", "at", "cropped"),
    [
        ({"left": 100}, (1100, 800), (100, 0), (0, 0, 267, 800)),
        ({"right": 100}, (1100, 800), (0, 0), (833, 0, 1100, 800)),
        ({"top": 40}, (1000, 840), (0, 40), (0, 0, 1000, 333)),
        ({"bottom": 40}, (1000, 840), (0, 0), (0, 507, 1000, 840)),
        ({"left": 8, "bottom": 8}, (1008, 808), (8, 0), (0, 0, 1008, 808)),
    ],
)
def test_a_larger_canvas(added: dict[str, int], canvas: tuple[int, int], at: tuple[int, int], cropped: Box) -> None:
    expand = Expand(**({"left": 0, "right": 0, "top": 0, "bottom": 0} | added))
    whole = region_of(PICTURE, painted=None, mask_crop=None, expand=expand)
    part = region_of(PICTURE, painted=None, mask_crop=16, expand=expand)
    assert whole is not None
    assert part is not None
    assert (whole.canvas, whole.at, whole.box) == (canvas, at, (0, 0, *canvas))
    assert part.box == cropped


@pytest.mark.parametrize(
    ("name", "painted", "fields", "size"),
    [
        ("flux-tiny", (400, 300, 500, 400), {"mask_crop": 50}, (256, 256)),
        ("FLUX.1-dev", (400, 300, 500, 400), {"mask_crop": 50}, (1024, 1024)),
        ("klein", (0, 0, 900, 300), {"mask_crop": 0}, (1760, 592)),
        ("FLUX.1-dev", (400, 300, 500, 400), {"mask_crop": 50, "size": "512x256"}, (512, 256)),
        ("flux-tiny", None, {"expand": {"left": 8}}, (560, 448)),  # the model makes no more
        ("FLUX.1-dev", None, {"expand": {"right": 300, "top": 100}, "mask": None}, (1296, 896)),
        ("FLUX.1-dev", None, {"expand": {"right": 40}, "mask": None}, (1168, 896)),  # at least the model's own area
    ],
)
def test_the_size_at_which_a_part_is_drawn(
    name: str, painted: Box | None, fields: dict[str, Any], size: tuple[int, int]
) -> None:
    job = shaped(name, PICTURE, painted, **(EDIT | fields))
    assert (job.width, job.height) == size
    assert job.warnings == ()


def test_a_written_shape_that_does_not_fit_says_so() -> None:
    (said,) = shaped("flux-tiny", (256, 256), None, image="QUFB", expand={"right": 256}, size="128x256").warnings
    assert "512x256 pixels of the picture and is stretched to 128x256" in said


@pytest.mark.parametrize(
    ("fields", "feather", "strength"),
    [
        ({"mask": "QUFB"}, 4, 0.8),
        ({"mask": "QUFB", "mask_feather": 0}, 0, 0.8),
        ({"mask": "QUFB", "mask_blur": 64.0}, 64, 0.8),
        ({"mask": "QUFB", "padding_mask_crop": 5, "model": "dev"}, 16, 0.8),
        ({"expand": {"left": 5}}, 4, 1.0),
        ({"outpaint": {"left": 5, "top": None}, "strength": 0.5}, 4, 0.5),
        ({"model": "fill", "expand": {"left": 5}}, 16, 1.0),
        ({}, None, 0.8),
    ],
)
def test_effective_values(context: ParseContext, fields: dict[str, Any], feather: int | None, strength: float) -> None:
    job = parse(context, image="QUFB", **fields)
    assert (job.mask_feather, job.strength) == (feather, strength)
    assert job.parameters()["expand"] in (None, {"left": 5, "right": 0, "top": 0, "bottom": 0})


NO_FEATHER: tuple[object, ...] = (-1, 65, 2.5, "4", True, [4], math.nan)
NO_CROP: tuple[object, ...] = (-1, 513, 0.5, "32", False, {}, math.inf)
NO_FACTOR: tuple[object, ...] = (0, 1, 3, 8, -2, 2.5, "2", "4x", True, [2], {"factor": 2}, math.nan)
MAP: dict[str, Any] = {"type": "canny", "image": "QUFB"}
NO_CONTROL: tuple[object, ...] = (5, "canny", True, [], [MAP, MAP, MAP], 0.5)
BAD: list[tuple[dict[str, Any], str]] = [
    *(({**EDIT, "mask_feather": value}, "mask_feather") for value in NO_FEATHER),
    *(({**EDIT, "mask_crop": value}, "mask_crop") for value in NO_CROP),
    ({**EDIT, "mask_feather": 4, "mask_blur": 5}, "mask_blur"),
    ({**EDIT, "mask_crop": 4, "padding_mask_crop": 5}, "padding_mask_crop"),
    ({"image": "QUFB", "mask_crop": 32}, "mask_crop"),
    ({"image": "QUFB", "mask_feather": 4}, "mask_feather"),
    ({"mask_crop": 32}, "mask_crop"),
    ({"expand": {"left": 5}}, "expand"),
    ({"image": "QUFB", "expand": {}}, "expand"),
    ({"image": "QUFB", "expand": {"left": 0}}, "expand"),
    ({"image": "QUFB", "expand": {"left": -1}}, "expand.left"),
    ({"image": "QUFB", "expand": {"top": 2049}}, "expand.top"),
    ({"image": "QUFB", "expand": {"bottom": "all"}}, "expand.bottom"),
    ({"image": "QUFB", "expand": {"right": 1.5}}, "expand.right"),
    ({"image": "QUFB", "expand": {"up": 5}}, "expand"),
    ({"image": "QUFB", "expand": 64}, "expand"),
    ({"image": "QUFB", "expand": [64, 0, 0, 0]}, "expand"),
    ({"image": "QUFB", "expand": "left"}, "expand"),
    ({"image": "QUFB", "expand": {"left": 5}, "outpaint": {"left": 6}}, "outpaint"),
    ({"image": "QUFB", "expand": {"left": 5}, "model": "FLUX.2-dev"}, "expand"),
    ({**EDIT, "mask_crop": 5, "model": "FLUX.2-dev"}, "mask"),
    ({"image": "QUFB", "model": "fill"}, "mask"),
    ({**EDIT, "mask_crop": 5, "num_frames": 4}, "mask"),
    ({"expand": {"left": 5}, "num_frames": 4}, "expand"),
    ({"mask_feather": 5, "type": "video"}, "mask_feather"),
    *(({"upscale": value}, "upscale") for value in NO_FACTOR),
    ({"upscale": 4, "model": "dev", "size": "2048x1024"}, "upscale"),
    ({"upscale": 4, "model": "klein", "aspect_ratio": "1:1", "megapixels": 4}, "upscale"),
    ({"upscale": 2, "num_frames": 4}, "upscale"),
    *(({"control": value}, "control") for value in NO_CONTROL),
    *(({"control": MAP | {"strength": value}}, "control.strength") for value in (-0.1, 2.1, "1", True, math.nan)),
    *(({"control": [MAP | {"end": value}]}, "control[0].end") for value in (-0.1, 1.1, "1", False, math.inf)),
    ({"control": MAP | {"type": "scribble"}}, "control.type"),
    ({"control": {"type": "canny"}}, "control.image"),
    ({"control": {"image": "QUFB"}}, "control.type"),
    ({"control": MAP | {"image": 5}}, "control.image"),
    ({"control": MAP | {"image": ""}}, "control.image"),
    ({"control": MAP | {"weight": 1}}, "control"),
    ({"control": [MAP, 5]}, "control[1]"),
    ({"control": MAP, "controlnets": MAP | {"end": 0.5}}, "controlnets"),
    ({"control": MAP, "images": ["QUFB"]}, "images"),
    ({"control": MAP, **EDIT}, "mask"),
    ({"control": MAP, "image": "QUFB", "expand": {"left": 5}}, "expand"),
    ({"control": MAP, "image": "QUFB", "true_cfg_scale": 2}, "true_cfg_scale"),
    ({"control": MAP, "model": "klein"}, "control"),
    ({"control": MAP, "model": "kontext"}, "control"),
    ({"control": MAP, "model": "fill"}, "control"),
    ({"control": MAP, "num_frames": 4}, "control"),
]


@pytest.mark.parametrize(("fields", "field"), BAD)
def test_bad_edits_are_refused_by_field(context: ParseContext, fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse(context, **fields)
    assert refusal.value.field == field
    assert refusal.value.message


def test_an_enlarged_result_is_bounded_by_its_pixels() -> None:
    assert shaped("dev", (1024, 1024), None, image="QUFB", upscale=4).upscale == 4
    assert shaped("dev", (2000, 2000), None, **EDIT, mask_crop=8, upscale=2.0).upscale == 2
    for fields in ({"mask_crop": 8, "mask": "QUFB"}, {"expand": {"left": 1000}}):
        with pytest.raises(InvalidInput, match="and one has at most") as refusal:
            shaped("dev", (2000, 2000), None, image="QUFB", upscale=4, **fields)
        assert refusal.value.field == "upscale"


def test_a_canvas_beyond_all_bounds_is_refused() -> None:
    added = dict.fromkeys(("left", "right", "top", "bottom"), 2048)
    with pytest.raises(InvalidInput, match="5096x4896") as refusal:
        shaped("FLUX.1-dev", PICTURE, None, image="QUFB", expand=added)
    assert refusal.value.field == "expand"


def test_a_map_has_its_own_effective_values(context: ParseContext) -> None:
    job = parse(
        context, control=[MAP, {"type": "pose", "image": "https://example.com/a.png?key=1", "end": 1, "strength": 0}]
    )
    assert job.parameters()["control"] == [
        {"type": "canny", "image": "base64 of 4 characters", "strength": 0.7, "end": 0.8},
        {"type": "pose", "image": "https://example.com/a.png", "strength": 0.0, "end": 1.0},
    ]
    assert list(job.sources()) == ["control[0].image", "control[1].image"]
    assert parse(context, controlnets=MAP).control == parse(context, control=[MAP]).control


def test_a_map_goes_with_a_picture_that_is_redrawn(context: ParseContext) -> None:
    job = parse(context, control=MAP, image="QUFB")
    assert (job.strength, list(job.sources())) == (0.8, ["image", "control[0].image"])
    assert parse(context, control=MAP, image="QUFB", strength=0.3).strength == 0.3
    assert parse(context, control=MAP, true_cfg_scale=2).true_cfg_scale == 2
