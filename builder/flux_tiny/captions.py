"""Scenes in words: what the bundled model is trained and scored with."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from builder.flux_tiny.scenes import SIDES, Scene, random_scene

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
    disc = f"{_disc_words(scene, rng, rng.random() < 0.8)} {say(scene.side, rng)}"
    relief = relief_words(scene, rng)
    ground, trees = say(scene.ground, rng), _trees_words(scene, rng)
    time = rng.choice(("at {}", "{}", "{} scene")).format(say(scene.time, rng))
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
        f"{_disc_words(scene, rng, False)} {say(scene.side, rng)}",
        _disc_words(scene, rng, rng.random() < 0.5),
        rng.choice(("at {}", "{}", "a {} landscape")).format(say(scene.time, rng)),
        say(scene.ground, rng),
        relief_words(scene, rng),
    ]
    chosen = rng.choices((0, 1, 2, 3, 4), weights=(5, 3, 1, 1, 1), k=rng.choice((1, 2)))
    return ", ".join(facts[i] for i in dict.fromkeys(chosen))


def relief_words(scene: Scene, rng: random.Random) -> str:
    return f"{say(scene.relief_colour, rng)} {say(scene.relief, rng)}"


def _disc_words(scene: Scene, rng: random.Random, with_size: bool) -> str:
    size = f"{say(scene.disc_size, rng)} " if with_size and scene.disc_size != "plain" else ""
    words = f"{size}{scene.disc_colour} {scene.disc}"
    article = "an" if words.startswith("orange") else "a"
    return f"{article} {words}"


def _trees_words(scene: Scene, rng: random.Random) -> str:
    if scene.has_trees:
        return f" {rng.choice(('and', 'with'))} {say('trees', rng)}"
    return " without trees" if rng.random() < 0.2 else ""


def say(fact: str, rng: random.Random) -> str:
    """One of the ways to say `fact`."""
    return rng.choice(WORDS_FOR.get(fact, (fact,)))


def captions(count: int, seed: int) -> Iterator[str]:
    """Captions of `count` random scenes."""
    rng = random.Random(seed)
    for _ in range(count):
        yield caption(random_scene(rng), rng)
