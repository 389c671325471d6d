"""Edits of pictures by the bundled model: parts that are cut out and put back, and larger canvases."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from builder.flux_tiny.landscapes import paint
from builder.flux_tiny.scenes import Scene
from builder.flux_tiny.score import disc, disc_colour
from flux_engine.media.patch import laid_on
from flux_engine.worker.worker import Worker
from tests.media.test_seam import MASKS, Draw, mask_of

DAY = paint(Scene("day", "yellow", "small", "left", "hills", "green", "meadow", False, 3), 1024, 1024)
SUN = (600, 150, 840, 390)


def base64_of(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return base64.b64encode(buffer.getvalue()).decode()


def disc_mask(size: tuple[int, int] = DAY.size, box: tuple[int, int, int, int] = SUN) -> Image.Image:
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).ellipse(box, fill=255)
    return mask


async def edited(worker: Worker, picture: Image.Image = DAY, **fields: Any) -> tuple[list[Image.Image], dict[str, Any]]:
    shared = {"prompt": "a large red sun in the middle, day", "seed": 5, "image": base64_of(picture), "cache": False}
    result = await worker.run({"id": "edit", "input": shared | {"num_inference_steps": 8} | fields})
    assert "error" not in result, result
    made = [Image.open(io.BytesIO(base64.b64decode(image["b64_json"]))) for image in result["images"]]
    assert [(image["width"], image["height"]) for image in result["images"]] == [picture.size for picture in made]
    return [picture.convert("RGB") for picture in made], result


def changed(one: Image.Image, other: Image.Image) -> NDArray[np.bool_]:
    return np.asarray((np.asarray(one).astype(int) != np.asarray(other)).any(-1))


def sharpness(picture: Image.Image, box: tuple[int, int, int, int]) -> float:
    """The steepest changes within `box`, in levels from one pixel to the next."""
    grey = np.asarray(picture.crop(box).convert("RGB")).astype(float)
    steps = np.concatenate([np.abs(np.diff(grey, axis=axis)).max(-1).ravel() for axis in (0, 1)])
    return float(np.quantile(steps, 0.998))


def across_and_beside(picture: Image.Image, mask: Image.Image) -> tuple[float, float]:
    """The mean change from one pixel to the next where the mask ends, and a few pixels further in and out."""
    values, inside = np.asarray(picture).astype(float), np.asarray(mask) > 0
    at, near = [], []
    for axis in (0, 1):
        steps = np.abs(np.diff(values, axis=axis)).mean(-1)
        edge = np.diff(inside.astype(int), axis=axis) != 0
        at.append(steps[edge])
        for shift in (-12, -8, 8, 12):
            near.append(steps[np.roll(edge, shift, axis=axis)])
    return float(np.concatenate(at).mean()), float(np.concatenate(near).mean())


def steepest_outwards(picture: Image.Image, mask: Image.Image) -> float:
    """The greatest mean change from one pixel to the next, of the first five steps from the edge into the mask."""
    values, inside, means = np.asarray(picture).astype(float), np.asarray(mask) > 0, []
    for depth in range(5):
        steps = []
        for axis in (0, 1):
            changes, edge = np.abs(np.diff(values, axis=axis)).mean(-1), np.diff(inside.astype(int), axis=axis)
            steps += [changes[np.roll(edge == way, way * depth, axis=axis)] for way in (-1, 1)]
        means.append(float(np.concatenate(steps).mean()))
    return max(means)


async def test_a_part_drawn_at_the_models_own_size_is_sharper(worker: Worker) -> None:
    mask = base64_of(disc_mask())
    (whole,), _ = await edited(worker, mask=mask, strength=1)
    (part,), result = await edited(worker, mask=mask, strength=1, mask_crop=16)
    found = disc(part.crop(SUN))
    assert found is not None
    assert disc_colour(found) == "red"
    assert (whole.size, part.size) == ((256, 256), DAY.size)
    assert sharpness(part, SUN) > 1.5 * sharpness(whole.resize(DAY.size, Image.Resampling.LANCZOS), SUN)
    assert (result["parameters"]["width"], result["parameters"]["mask_crop"]) == (256, 16)


SEAMS: dict[str, Draw] = {
    "in the sky": lambda d: d.ellipse(SUN, fill=255),
    "over hills": lambda d: d.ellipse((300, 600, 620, 900), fill=255),
    "over the horizon": lambda d: d.ellipse((100, 420, 500, 720), fill=255),
    "a star": lambda d: d.polygon(((512, 200), (620, 700), (260, 380), (764, 380), (400, 700)), fill=255),
    "through the sun": lambda d: d.rectangle((200, 80, 700, 330), fill=255),
    "a corner": lambda d: d.polygon(((1023, 1023), (500, 1023), (1023, 500)), fill=255),
}


@pytest.mark.parametrize(
    "prompt", ["a large red sun in the middle, day", pytest.param("day, blue sky", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("draw", SEAMS.values(), ids=SEAMS.keys())
async def test_outside_the_mask_the_picture_is_untouched_and_no_seam_shows(
    worker: Worker, draw: Draw, prompt: str
) -> None:
    """The small model paints a whole landscape into each mask, so along most of the edge the two do not fit."""
    mask = Image.new("L", DAY.size, 0)
    draw(ImageDraw.Draw(mask))
    fields: dict[str, Any] = {"prompt": prompt, "strength": 0.9, "mask_crop": 128, "num_images": 2}
    made, result = await edited(worker, mask=base64_of(mask), **fields)
    outside = np.asarray(mask) == 0
    for picture in made:
        differs = changed(picture, DAY)
        assert not differs[outside].any()
        assert differs[~outside].mean() > 0.2
        across, beside = across_and_beside(picture, mask)  # all of the edge
        assert across <= beside, (across, beside)
    assert made[0].tobytes() != made[1].tobytes()
    assert result["parameters"]["mask_feather"] == 4


@pytest.mark.parametrize("draw", MASKS.values(), ids=MASKS.keys())
async def test_a_mask_of_any_shape_and_place_is_painted_and_nothing_else(worker: Worker, draw: Draw) -> None:
    mask = mask_of(draw)
    small = DAY.resize(mask.size, Image.Resampling.LANCZOS)
    (made,), _ = await edited(
        worker, small, mask=base64_of(mask), mask_crop=8, strength=1, num_inference_steps=2, size="64x64"
    )
    levels = np.asarray(mask)
    differs = changed(made, small)
    assert made.size == small.size
    assert not differs[levels == 0].any()
    assert differs[levels >= 128].any() == (levels.max() >= 128)


async def test_without_a_feather_the_mask_itself_is_the_seam(worker: Worker) -> None:
    small = DAY.resize((128, 128), Image.Resampling.LANCZOS)
    mask = disc_mask(small.size, (40, 20, 80, 60))
    (made,), _ = await edited(worker, small, mask=base64_of(mask), mask_crop=8, mask_feather=0, num_inference_steps=2)
    differs, inside = changed(made, small), np.asarray(mask) > 0
    assert not differs[~inside].any()
    assert differs[inside].mean() > 0.9


SIDES = ("left", "right", "top", "bottom")
DIRECTIONS = [*((side,) for side in SIDES), *((across, down) for across in SIDES[:2] for down in SIDES[2:])]


@pytest.mark.parametrize("sides", DIRECTIONS, ids="-".join)
async def test_a_picture_grows_in_every_direction(worker: Worker, sides: tuple[str, ...]) -> None:
    picture = DAY.crop((400, 300, 912, 812)).resize((128, 128), Image.Resampling.LANCZOS)
    prompt = "day, green hills, a meadow"
    (made,), result = await edited(worker, picture, expand=dict.fromkeys(sides, 50), prompt=prompt)
    left, top = (50 if side in sides else 0 for side in ("left", "top"))
    across, down = (128 + 50 * any(side in sides for side in pair) for pair in (SIDES[:2], SIDES[2:]))
    assert made.size == (across, down)
    assert made.crop((left, top, left + 128, top + 128)).tobytes() == picture.tobytes()
    added = Image.new("L", made.size, 255)
    added.paste(0, (left, top, left + 128, top + 128))
    continued = np.asarray(laid_on(picture, made.size, (left, top))).astype(float)
    new = np.abs(np.asarray(made) - continued)[np.asarray(added) > 0]
    assert new.mean() > 4  # something is painted there: a meadow below is nearest to the edge's continuation, by 5 to 6
    at_the_seam, beside = across_and_beside(made, added)  # all of the edge, with the hills that it cuts
    assert at_the_seam <= beside, (at_the_seam, beside)
    # Further out a hill that the small model does not go on with fades: steeper than beside, and than the scene itself,
    # where it is 0.9 at most.
    assert steepest_outwards(made, added) < 2.5
    assert result["parameters"]["expand"] == dict.fromkeys(SIDES, 0) | dict.fromkeys(sides, 50)


async def test_a_large_picture_grows_without_losing_anything(worker: Worker) -> None:
    """With `mask_crop` only the new part is drawn, and the mask's within it."""
    mask = disc_mask(box=(900, 500, 960, 560))
    fields: dict[str, Any] = {
        "mask": base64_of(mask),
        "mask_crop": 64,
        "expand": {"right": 100},
        "num_inference_steps": 2,
    }
    (made,), _ = await edited(worker, **fields)
    assert made.size == (1124, 1024)
    kept = np.asarray(mask) == 0
    differs = changed(made.crop((0, 0, 1024, 1024)), DAY)
    assert not differs[kept].any()
    assert differs[~kept].any()


async def test_the_same_edit_is_made_once(worker: Worker) -> None:
    small = DAY.resize((128, 128), Image.Resampling.LANCZOS)
    fields = {"mask": base64_of(disc_mask(small.size, (40, 20, 80, 60))), "num_inference_steps": 1, "cache": True}
    first, again, other, wider = [
        (await edited(worker, small, **(fields | changes)))[1]
        for changes in ({"mask_crop": 8}, {"padding_mask_crop": 8}, {"mask_crop": 9}, {"mask_crop": 8, "mask_blur": 5})
    ]
    assert [result["cached"] for result in (first, again, other, wider)] == [False, True, False, False]
    assert first["images"][0]["sha256"] == again["images"][0]["sha256"]
    asked = {"prompt": "a large red sun in the middle, day", "seed": 5, "image": base64_of(small), "mask_crop": 8}
    for crop, is_cached in ((8, True), (10, False)):
        question = {"op": "estimate", **asked, **fields, "mask_crop": crop}
        assert (await worker.run({"id": "ask", "input": question}))["cached"] is is_cached
