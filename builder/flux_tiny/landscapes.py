"""Procedural landscapes: `paint` draws a scene.

What a scene leaves open (the shape of a ridge, the place of a star) comes from its `layout_seed`, so a scene and a size
always give the same picture.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from builder.flux_tiny.scenes import DISC_COLOURS, DISC_RADIUS, RELIEF_COLOURS, SIDES, Rgb, Scene

Pixels = NDArray[np.float32]

SKY: Final[dict[str, tuple[Rgb, Rgb]]] = {  # zenith, horizon
    "dawn": ((150, 172, 226), (255, 214, 206)),
    "day": ((52, 128, 224), (184, 222, 250)),
    "dusk": ((66, 40, 108), (232, 116, 96)),
    "night": ((6, 8, 30), (30, 40, 88)),
}
LIGHT: Final[dict[str, tuple[float, float, float]]] = {
    "dawn": (0.96, 0.86, 0.88),
    "day": (1.0, 1.0, 1.0),
    "dusk": (0.72, 0.56, 0.62),
    "night": (0.30, 0.34, 0.52),
}
GROUND_COLOURS: Final[dict[str, tuple[Rgb, Rgb]]] = {  # far, near
    "meadow": ((122, 178, 72), (62, 128, 44)),
    "desert": ((240, 202, 132), (212, 158, 84)),
    "snowfield": ((250, 252, 255), (222, 232, 246)),
}
HORIZON: Final = 0.66  # of the height, from the top
SKY_FREE: Final = 0.46  # above this share of the height nothing but sky and disc is drawn
SUPERSAMPLE: Final = 2


class Canvas(NamedTuple):
    """What a scene is drawn on: the picture so far, its size and the row of its horizon, in pixels."""

    picture: Image.Image
    rng: random.Random
    w: int
    h: int
    horizon: int


InSky = Callable[[Scene, Canvas], None]  # draws what stands between the sky and the relief


def paint(scene: Scene, width: int, height: int, *, hung: InSky | None = None) -> Image.Image:
    """Draw `scene` as an RGB picture of `width` x `height` pixels, with `hung` in its sky in place of its disc."""
    rng = random.Random(scene.layout_seed)
    w, h = width * SUPERSAMPLE, height * SUPERSAMPLE
    horizon = round(h * HORIZON)

    picture = Image.new("RGB", (w, h))
    on = Canvas(picture, rng, w, h, horizon)
    picture.paste(_to_image(_gradient(*SKY[scene.time], w, horizon)))
    if scene.time == "night":
        _stars(on)
    (hung or _disc)(scene, on)
    _relief(scene, on)
    _ground(scene, on)
    if scene.has_trees:
        _trees(scene, on)
    return picture.resize((width, height), Image.Resampling.BOX)


def _to_image(pixels: Pixels) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8), "RGB")


def _gradient(top: Rgb, bottom: Rgb, width: int, height: int) -> Pixels:
    ramp = np.linspace(0.0, 1.0, height, dtype=np.float32)[:, None]
    column = np.asarray(top, np.float32) * (1 - ramp) + np.asarray(bottom, np.float32) * ramp
    return np.repeat(column[:, None, :], width, axis=1)


def _lit(colour: Rgb, time: str, share: float = 1.0) -> Rgb:
    """`colour` in the light of `time`; `share` above 1 brightens, below 1 darkens."""
    r, g, b = (min(255, round(c * light * share)) for c, light in zip(colour, LIGHT[time], strict=True))
    return (r, g, b)


def _disc(scene: Scene, on: Canvas) -> None:
    """A sun or moon with a soft glow; its lowest point stays above SKY_FREE."""
    picture, rng, w, h, horizon = on
    radius = DISC_RADIUS[scene.disc_size] * min(w, h)
    somewhere = rng.uniform(*SIDES[scene.side])
    x = (somewhere if scene.place is None else scene.place) * w
    lowest = max(radius * 1.15 / h + 0.01, SKY_FREE - 0.03 - radius / h)
    y = rng.uniform(min(radius * 1.15 / h + 0.02, lowest), lowest) * h
    sky = np.asarray(picture.crop((0, 0, w, horizon)), np.float32)
    rows = np.arange(horizon, dtype=np.float32)[:, None]
    columns = np.arange(w, dtype=np.float32)[None, :]
    distance = np.sqrt((columns - x) ** 2 + (rows - y) ** 2) / radius
    glow = 0.38 * np.exp(-np.maximum(distance - 1, 0) * 2.6)
    solid = np.clip((1.04 - distance) * 12, 0, 1)
    alpha = np.maximum(glow, solid)[..., None]
    colour = np.asarray(DISC_COLOURS[scene.disc_colour], np.float32)
    picture.paste(_to_image(sky * (1 - alpha) + colour * alpha))


def _stars(on: Canvas) -> None:
    picture, rng, w, h, _ = on
    draw = ImageDraw.Draw(picture)
    for _ in range(rng.randint(16, 28)):
        x, y, r = rng.random() * w, rng.random() * h * 0.44, rng.uniform(1.2, 2.4) * SUPERSAMPLE / 2
        level = rng.randint(170, 250)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(level, level, level))


def _relief(scene: Scene, on: Canvas) -> None:
    picture, rng, w, h, horizon = on
    draw = ImageDraw.Draw(picture)
    base = RELIEF_COLOURS[scene.relief_colour]
    for top, share in ((SKY_FREE + 0.02, 1.22), (SKY_FREE + 0.09, 0.92)):
        ridge = _ridge(scene.relief, rng, w, round(h * top), horizon)
        draw.polygon([(0, horizon), *ridge, (w, horizon)], fill=_lit(base, scene.time, share))


def _ridge(relief: str, rng: random.Random, w: int, top: int, horizon: int) -> list[tuple[float, float]]:
    """Points of a ridge line from left to right, never above `top`."""
    depth = horizon - top
    if relief == "hills":
        waves = [(rng.uniform(0.8, 1.6), rng.random() * 6.3), (rng.uniform(2.0, 3.2), rng.random() * 6.3)]
        return [
            (x, top + depth * (0.42 + 0.27 * np.sin(waves[0][0] * 6.28 * x / w + waves[0][1])
                               + 0.12 * np.sin(waves[1][0] * 6.28 * x / w + waves[1][1])))
            for x in range(0, w + 8, 8)
        ]  # fmt: skip
    points: list[tuple[float, float]] = [(0, horizon - depth * rng.uniform(0.2, 0.6))]
    x = 0.0
    while x < w:
        rise, fall = rng.uniform(0.09, 0.16) * w, rng.uniform(0.08, 0.15) * w
        peak, valley = rng.uniform(0.0, 0.42), rng.uniform(0.55, 0.85)
        points.append((x + rise * 0.55, top + depth * ((peak + valley) / 2 + rng.uniform(-0.06, 0.06))))
        points.append((x + rise, top + depth * peak))
        points.append((x + rise + fall * 0.5, top + depth * ((peak + valley) / 2 + rng.uniform(-0.06, 0.06))))
        points.append((x + rise + fall, top + depth * valley))
        x += rise + fall
    return points


def _ground(scene: Scene, on: Canvas) -> None:
    picture, rng, w, h, horizon = on
    if scene.ground == "lake":
        _lake(scene, on)
        return
    far, near = GROUND_COLOURS[scene.ground]
    field = _gradient(_lit(far, scene.time), _lit(near, scene.time), w, h - horizon)
    picture.paste(_to_image(field), (0, horizon))
    draw = ImageDraw.Draw(picture)
    if scene.ground == "meadow":
        for _ in range(60):
            x, y = rng.random() * w, rng.uniform(horizon + 4, h)
            length = (0.01 + 0.03 * (y - horizon) / (h - horizon)) * h
            draw.line((x, y, x + rng.uniform(-3, 3), y - length), fill=_lit((38, 96, 30), scene.time), width=2)
        return
    shade = _lit(near, scene.time, 0.94)
    for level in (0.2, 0.55):  # dunes, or the soft shadows of a snowfield
        y0 = horizon + (h - horizon) * level
        swing, phase = (h - horizon) * 0.1, rng.random() * 6.3
        crest = [(x, y0 + swing * np.sin(4.2 * x / w + phase)) for x in range(0, w + 16, 16)]
        under = [(x, y + (h - horizon) * 0.14) for x, y in reversed(crest)]
        draw.polygon([*crest, *under], fill=shade)


def _lake(scene: Scene, on: Canvas) -> None:
    """What stands above the shore, mirrored, a little darker and bluer, with ripples."""
    picture, rng, w, h, horizon = on
    depth = h - horizon
    above = picture.crop((0, 0, w, horizon)).resize((w, depth), Image.Resampling.BILINEAR)
    mirrored = np.asarray(above.transpose(Image.Transpose.FLIP_TOP_BOTTOM), np.float32)
    picture.paste(_to_image(mirrored * np.asarray((0.74, 0.84, 0.96), np.float32)), (0, horizon))
    draw = ImageDraw.Draw(picture)
    _, low = SKY[scene.time]
    for _ in range(14):
        y = horizon + rng.uniform(0.08, 1) * depth
        x, length = rng.random() * w, rng.uniform(0.06, 0.2) * w
        draw.line((x, y, x + length, y), fill=low, width=SUPERSAMPLE)


def _trees(scene: Scene, on: Canvas) -> None:
    picture, rng, w, h, horizon = on
    draw = ImageDraw.Draw(picture)
    needles = _lit((24, 74, 48), scene.time, 0.9)
    for _ in range(rng.randint(4, 7)):
        x = rng.choice((rng.uniform(0.02, 0.32), rng.uniform(0.68, 0.98))) * w
        foot = rng.uniform(horizon + 0.02 * h, horizon + 0.12 * h)
        tall = rng.uniform(0.13, 0.2) * h
        draw.rectangle((x - 0.006 * h, foot - 0.1 * tall, x + 0.006 * h, foot + 0.05 * tall), fill=needles)
        for tier in range(3):
            y, half = foot - tall * (0.05 + 0.28 * tier), tall * (0.26 - 0.06 * tier)
            draw.polygon([(x - half, y), (x + half, y), (x, y - tall * 0.42)], fill=needles)
