"""How well pictures follow their captions, by plain rules over pixels.

python -m builder.flux_tiny.score [FOLDER]      the bundled model, or the one in FOLDER: some minutes on a CPU
"""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from builder.flux_tiny.captions import full_caption
from builder.flux_tiny.landscapes import SKY, paint
from builder.flux_tiny.scenes import DISC_COLOURS, GROUNDS, TIMES, Scene, random_scene
from flux_engine.models.weights import BUNDLED_FOLDER

Pixels = NDArray[np.float32]
UNSEEN_SEED: Final = 900_000  # training draws its scenes from other seeds
FACTS: Final = ("time", "ground", "colour", "side")


@dataclass(frozen=True, slots=True)
class Disc:
    """A sun or moon found in a picture: `x` as a share of the width, and its mean colour."""

    x: float
    colour: tuple[float, float, float]


def time_of_day(picture: Image.Image) -> str:
    """The time whose sky is nearest in colour, at the zenith and above the hills."""
    pixels = np.asarray(picture.convert("RGB"), np.float32)
    seen = [np.median(_rows(pixels, low, low + 0.05), axis=(0, 1)) for low in (0.02, 0.40)]

    def distance(time: str) -> float:
        zenith, horizon = (np.asarray(c, np.float32) for c in SKY[time])
        wanted = [zenith + (horizon - zenith) * share / 0.66 for share in (0.045, 0.425)]
        return float(sum(np.abs(a - b).sum() for a, b in zip(seen, wanted, strict=True)))

    return min(TIMES, key=distance)


def ground(picture: Image.Image, time: str) -> str:
    """The ground whose painted mean colour in the light of `time` is nearest, over the lowest quarter."""
    seen = _ground_colour(picture)
    return min(GROUNDS, key=lambda kind: float(np.abs(seen - _painted_ground(kind, time)).sum()))


def disc(picture: Image.Image) -> Disc | None:
    """The largest part of the sky that stands out from its row, or None."""
    pixels = _rows(np.asarray(picture.convert("RGB"), np.float32), 0.0, 0.46)
    contrast = np.abs(pixels - np.median(pixels, axis=1, keepdims=True)).max(axis=2)
    solid = contrast > max(40.0, 0.6 * float(np.percentile(contrast, 99)))
    if solid.mean() < 0.006:
        return None
    x = float(np.median(np.nonzero(solid)[1]) / solid.shape[1])
    red, green, blue = (float(c) for c in np.median(pixels[solid], axis=0))
    return Disc(x=x, colour=(red, green, blue))


def disc_colour(found: Disc) -> str:
    def distance(name: str) -> float:
        return sum(abs(a - b) for a, b in zip(found.colour, DISC_COLOURS[name], strict=True))

    return min(DISC_COLOURS, key=distance)


def disc_side(found: Disc) -> str:
    return "left" if found.x < 0.38 else "right" if found.x > 0.62 else "middle"


def check(picture: Image.Image, scene: Scene) -> dict[str, bool]:
    """For each of FACTS, whether `picture` shows what `scene` says."""
    found = disc(picture)
    return {
        "time": time_of_day(picture) == scene.time,
        "ground": ground(picture, scene.time) == scene.ground,
        "colour": found is not None and disc_colour(found) == scene.disc_colour,
        "side": found is not None and disc_side(found) == scene.side,
    }


def _rows(pixels: Pixels, top: float, bottom: float) -> Pixels:
    height = pixels.shape[0]
    return pixels[int(top * height) : max(int(bottom * height), int(top * height) + 1)]


def _ground_colour(picture: Image.Image) -> Pixels:
    return np.median(_rows(np.asarray(picture.convert("RGB"), np.float32), 0.78, 1.0), axis=(0, 1))


_painted: dict[tuple[str, str], Pixels] = {}


def _painted_ground(kind: str, time: str) -> Pixels:
    if (kind, time) not in _painted:
        scene = Scene(time, "white", "small", "left", "hills", "grey", kind, False, 0)
        _painted[kind, time] = _ground_colour(paint(scene, 128, 128))
    return _painted[kind, time]


def unseen(count: int) -> list[tuple[Scene, str]]:
    """Scenes and full captions that training never saw."""
    pairs = []
    for i in range(count):
        rng = random.Random(UNSEEN_SEED + i)
        scene = random_scene(rng)
        pairs.append((scene, full_caption(scene, rng)))
    return pairs


def score(
    folder: Path, *, width: int, height: int, captions: int = 200, steps: int = 16, guidance_scale: float = 3.5
) -> dict[str, float]:
    """Share of `captions` pictures that show each fact."""
    from diffusers import FluxPipeline

    pipeline = FluxPipeline.from_pretrained(folder, dtype=torch.bfloat16)
    pipeline.set_progress_bar_config(disable=True)
    pairs = unseen(captions)
    counts = dict.fromkeys(FACTS, 0)
    for start in range(0, captions, 10):
        part = pairs[start : start + 10]
        pictures = pipeline(
            [text for _, text in part],
            width=width,
            height=height,
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            max_sequence_length=32,
            generator=[torch.Generator().manual_seed(UNSEEN_SEED + start + i) for i in range(len(part))],
        ).images
        for picture, (scene, _) in zip(pictures, part, strict=True):
            for fact, holds in check(picture, scene).items():
                counts[fact] += holds
    return {fact: n / captions for fact, n in counts.items()}


def print_score(folder: Path) -> None:
    """Print the score at the sizes that the README names."""
    print("size      " + "".join(f"{fact:>9}" for fact in FACTS))
    for width, height in ((256, 256), (256, 160), (160, 256)):
        shares = score(folder, width=width, height=height)
        print(f"{width}x{height}   " + "".join(f"{shares[fact]:>8.1%} " for fact in FACTS), flush=True)


if __name__ == "__main__":
    print_score(Path(sys.argv[1]) if len(sys.argv) > 1 else BUNDLED_FOLDER)
