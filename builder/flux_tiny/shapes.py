"""Landscapes with a shape from a reference picture in their sky: what flux-tiny-kontext learns.

A reference shows one coloured shape on a plain ground. The landscape has the same shape in the same colour at the same
place, as an edit keeps what it does not change; the caption calls it "image 1" and names neither its shape, nor its
colour, nor its place, so that all three can come from nowhere but the picture.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Final

from PIL import Image, ImageDraw

from builder.flux_tiny.captions import relief_words, say
from builder.flux_tiny.landscapes import SKY, SUPERSAMPLE, Canvas, paint
from builder.flux_tiny.scenes import DISC_COLOURS, SIDES, Rgb, Scene, random_scene

Points = list[tuple[float, float]]

HALF: Final = 0.17  # of the shorter side: from a shape's middle to its edge
HEIGHTS: Final = (0.19, 0.27)  # of a shape's middle, as a share of the height
COLOURS: Final[dict[str, Rgb]] = DISC_COLOURS | {  # ones that the autoencoder knows
    "white": (250, 250, 246),
    "green": (48, 140, 56),
    "purple": (126, 62, 160),
    "black": (22, 22, 28),
}
JITTER: Final = 14  # of each channel, on both sides of a named colour
GROUNDS_OF_REFERENCES: Final = ((236, 238, 242), (128, 130, 134), (40, 42, 52), (150, 196, 240))
LEAST_CONTRAST: Final = 70  # of the channel that differs most, between a shape and what is behind it


def _polygon(corners: int, turn: float) -> Points:
    angles = [2 * math.pi * i / corners + turn for i in range(corners)]
    return [(math.sin(a), -math.cos(a)) for a in angles]


OUTLINES: Final[dict[str, Points]] = {  # within -1 to 1, down is positive
    "circle": _polygon(48, 0.0),
    "square": [(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)],
    "diamond": _polygon(4, 0.0),
    "triangle": [(0.0, -1.0), (1.0, 0.86), (-1.0, 0.86)],
}
SHAPES: Final = tuple(OUTLINES)


@dataclass(frozen=True, slots=True)
class Task:
    """A landscape to paint, and what the reference shows: a shape in a colour on a plain ground."""

    scene: Scene
    shape: str
    colour: Rgb
    ground: Rgb


def random_task(rng: random.Random) -> Task:
    """Draw every fact evenly, but a colour that stands out against the sky and the reference's ground."""
    scene, colour = random_scene(rng), COLOURS["white"]
    for _ in range(100):
        colour = _jittered(COLOURS[rng.choice(tuple(COLOURS))], rng)
        if all(_contrast(colour, sky) >= LEAST_CONTRAST for sky in _skies(scene)):
            break
    grounds = [g for g in GROUNDS_OF_REFERENCES if _contrast(colour, g) >= LEAST_CONTRAST]
    return Task(scene, rng.choice(SHAPES), colour, rng.choice(grounds))


def _skies(scene: Scene) -> list[Rgb]:
    """The sky's colours between the highest and the lowest point where a shape may be."""
    zenith, horizon = SKY[scene.time]
    return [_mixed(zenith, horizon, share) for share in (0.03, 0.35, 0.66)]


def _mixed(one: Rgb, other: Rgb, share: float) -> Rgb:
    r, g, b = (round(a + (c - a) * share) for a, c in zip(one, other, strict=True))
    return (r, g, b)


def _jittered(colour: Rgb, rng: random.Random) -> Rgb:
    r, g, b = (min(255, max(0, c + rng.randint(-JITTER, JITTER))) for c in colour)
    return (r, g, b)


def _contrast(one: Rgb, other: Rgb) -> int:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


# ---------------------------------------------------------------------------------------------- pictures


def paint_task(task: Task, width: int, height: int) -> Image.Image:
    """The landscape that `task` asks for."""

    def hang(scene: Scene, on: Canvas) -> None:
        x, y = middle_of(scene)
        _draw(on.picture, task.shape, task.colour, (x * on.w, y * on.h), HALF * min(on.w, on.h))

    return paint(task.scene, width, height, hung=hang)


def middle_of(scene: Scene) -> tuple[float, float]:
    """Where the shape of a landscape is, as shares of its sides."""
    rng = random.Random(scene.layout_seed)
    return rng.uniform(*SIDES[scene.side]), rng.uniform(*HEIGHTS)


def reference_picture(task: Task, width: int, height: int) -> Image.Image:
    """The reference of `task`."""
    w, h = width * SUPERSAMPLE, height * SUPERSAMPLE
    picture = Image.new("RGB", (w, h), task.ground)
    x, y = middle_of(task.scene)
    _draw(picture, task.shape, task.colour, (x * w, y * h), HALF * min(w, h))
    return picture.resize((width, height), Image.Resampling.BOX)


def _draw(picture: Image.Image, shape: str, colour: Rgb, middle: tuple[float, float], half: float) -> None:
    points = [(middle[0] + x * half, middle[1] + y * half) for x, y in OUTLINES[shape]]
    ImageDraw.Draw(picture).polygon(points, fill=colour)


# ---------------------------------------------------------------------------------------------- captions


def task_caption(task: Task, rng: random.Random) -> str:
    """Says what is around the shape; the shape itself it leaves to the reference."""
    scene = task.scene
    relief = relief_words(scene, rng)
    time, ground = say(scene.time, rng), say(scene.ground, rng)
    trees = rng.choice((" and trees", " and pines")) if scene.has_trees else ""
    return rng.choice(
        (
            f"image 1 over {relief} at {time}, {ground}{trees}",
            f"image 1, {time}, {relief}, {ground}{trees}",
            f"{time}, {relief}, {ground}{trees}, image 1",
        )
    )
