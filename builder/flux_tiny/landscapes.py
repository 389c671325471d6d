"""Procedural landscapes and the captions that describe them: the bundled model's whole world.

A `Scene` holds the facts, `paint` draws them, `caption` puts them in words. What a scene leaves open (the shape of
a ridge, the place of a star) comes from its `layout_seed`, so a scene and a size always give the same picture.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Rgb = tuple[int, int, int]
Pixels = NDArray[np.float32]

TIMES: Final = ("dawn", "day", "dusk", "night")
DISC_COLOURS: Final[dict[str, Rgb]] = {
    "white": (252, 252, 246),
    "yellow": (255, 226, 40),
    "orange": (255, 138, 12),
    "red": (222, 28, 28),
}
DISC_RADIUS: Final = {"small": 0.075, "plain": 0.105, "large": 0.145}  # of the shorter side
SIDES: Final = {"left": (0.17, 0.29), "middle": (0.45, 0.55), "right": (0.71, 0.83)}
RELIEFS: Final = ("mountains", "hills")
RELIEF_COLOURS: Final[dict[str, Rgb]] = {
    "purple": (112, 66, 140),
    "blue": (58, 92, 158),
    "green": (58, 122, 66),
    "grey": (124, 126, 132),
    "black": (34, 34, 40),
    "brown": (126, 84, 52),
}
GROUNDS: Final = ("lake", "meadow", "desert", "snowfield")

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


@dataclass(frozen=True, slots=True)
class Scene:
    """The facts of one landscape. At night the disc is a moon and there are stars."""

    time: str
    disc_colour: str
    disc_size: str
    side: str
    relief: str
    relief_colour: str
    ground: str
    has_trees: bool
    layout_seed: int
    place: float | None = None  # of the disc's centre, as a share of the width; None: anywhere on its side

    @property
    def disc(self) -> str:
        return "moon" if self.time == "night" else "sun"


class Canvas(NamedTuple):
    """What a scene is drawn on: the picture so far, its size and the row of its horizon, in pixels."""

    picture: Image.Image
    rng: random.Random
    w: int
    h: int
    horizon: int


InSky = Callable[[Scene, Canvas], None]  # draws what stands between the sky and the relief


def random_scene(rng: random.Random) -> Scene:
    """Draw every fact independently and evenly."""
    return Scene(
        time=rng.choice(TIMES),
        disc_colour=rng.choice(tuple(DISC_COLOURS)),
        disc_size=rng.choice(tuple(DISC_RADIUS)),
        side=rng.choice(tuple(SIDES)),
        relief=rng.choice(RELIEFS),
        relief_colour=rng.choice(tuple(RELIEF_COLOURS)),
        ground=rng.choice(GROUNDS),
        has_trees=rng.random() < 0.5,
        layout_seed=rng.getrandbits(32),
    )


def scene_between(rng: random.Random) -> Scene:
    """One whose disc is anywhere from the middle of the left side to the middle of the right one."""
    left, _, right = ((low + high) / 2 for low, high in SIDES.values())
    return replace(random_scene(rng), place=rng.uniform(left, right))


# ---------------------------------------------------------------------------------------------- painting


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


# ---------------------------------------------------------------------------------------------- captions

WORDS_FOR: Final[dict[str, tuple[str, ...]]] = {
    "dawn": ("dawn", "sunrise", "morning"),
    "day": ("day", "daytime", "noon"),
    "dusk": ("dusk", "sunset", "evening"),
    "night": ("night", "midnight"),
    "small": ("small", "little"),
    "large": ("large", "big", "huge"),
    "middle": ("in the middle", "in the center", "in the centre"),
    "left": ("on the left", "at the left", "to the left"),
    "right": ("on the right", "at the right", "to the right"),
    "mountains": ("mountains", "peaks"),
    "hills": ("hills", "rolling hills"),
    "grey": ("grey", "gray"),
    "lake": ("a lake", "a calm lake", "water"),
    "meadow": ("a meadow", "grass", "a green field"),
    "desert": ("a desert", "sand", "dunes"),
    "snowfield": ("a snowfield", "snow"),
    "trees": ("pine trees", "pines", "a forest", "trees"),
}
OPENINGS: Final = (
    *[""] * 8,
    "a painting of ",
    "a landscape with ",
    "a picture of ",
    "a view of ",
    "a beautiful landscape, ",
    "an image of ",
    "photo of ",
    "a scene with ",
)


def caption(scene: Scene, rng: random.Random) -> str:
    """Describe `scene`: mostly in full, sometimes by one or two of its facts."""
    text = _short_caption(scene, rng) if rng.random() < 0.35 else full_caption(scene, rng)
    return text.capitalize() if rng.random() < 0.15 else text


def full_caption(scene: Scene, rng: random.Random) -> str:
    """Describe `scene` with every fact that the score asks for: disc, side, time and ground."""
    disc = f"{_disc_words(scene, rng, rng.random() < 0.8)} {_say(scene.side, rng)}"
    relief = f"{_say(scene.relief_colour, rng)} {_say(scene.relief, rng)}"
    ground, trees = _say(scene.ground, rng), _trees_words(scene, rng)
    time = rng.choice(("at {}", "{}", "{} scene")).format(_say(scene.time, rng))
    order = rng.randrange(4)
    if order == 0:
        text = f"{disc} over {relief} {time}, {ground}{trees}"
    elif order == 1:
        text = f"{ground} and {relief}{trees}, {disc}, {time}"
    elif order == 2:
        text = f"{time}, {relief}, {ground}{trees}, {disc}"
    else:
        text = f"{relief} behind {ground}{trees} with {disc} {time}"
    return rng.choice(OPENINGS) + text


def captions_around(scene: Scene, rng: random.Random) -> tuple[str, str, float]:
    """Two captions that differ in the side alone, and how far from the first to the second the disc of `scene` is."""
    assert scene.place is not None
    left, middle, right = ((low + high) / 2 for low, high in SIDES.values())
    near = ("left", "middle", left, middle) if scene.place < middle else ("middle", "right", middle, right)
    start, end, low, high = near if rng.random() < 0.4 else ("left", "right", left, right)
    words = rng.getrandbits(32)
    first, second = (full_caption(replace(scene, side=side), random.Random(words)) for side in (start, end))
    return first, second, (scene.place - low) / (high - low)


def _short_caption(scene: Scene, rng: random.Random) -> str:
    facts = [
        f"{_disc_words(scene, rng, False)} {_say(scene.side, rng)}",
        _disc_words(scene, rng, rng.random() < 0.5),
        rng.choice(("at {}", "{}", "a {} landscape")).format(_say(scene.time, rng)),
        _say(scene.ground, rng),
        f"{_say(scene.relief_colour, rng)} {_say(scene.relief, rng)}",
    ]
    chosen = rng.choices((0, 1, 2, 3, 4), weights=(5, 3, 1, 1, 1), k=rng.choice((1, 2)))
    return ", ".join(facts[i] for i in dict.fromkeys(chosen))


def _disc_words(scene: Scene, rng: random.Random, with_size: bool) -> str:
    size = f"{_say(scene.disc_size, rng)} " if with_size and scene.disc_size != "plain" else ""
    words = f"{size}{scene.disc_colour} {scene.disc}"
    article = "an" if words.startswith("orange") else "a"
    return f"{article} {words}"


def _trees_words(scene: Scene, rng: random.Random) -> str:
    if scene.has_trees:
        return f" {rng.choice(('and', 'with'))} {_say('trees', rng)}"
    return " without trees" if rng.random() < 0.2 else ""


def _say(fact: str, rng: random.Random) -> str:
    return rng.choice(WORDS_FOR.get(fact, (fact,)))


def captions(count: int, seed: int) -> Iterator[str]:
    """Captions of `count` random scenes."""
    rng = random.Random(seed)
    for _ in range(count):
        yield caption(random_scene(rng), rng)
