"""What a landscape of the bundled model's world may hold, and scenes drawn from that.

`landscapes.paint` draws a `Scene`, `captions.caption` puts it in words.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Final

Rgb = tuple[int, int, int]

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
