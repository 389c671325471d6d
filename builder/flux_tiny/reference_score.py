"""How well flux-tiny-kontext takes shape and colour from a reference, by plain rules over pixels.

python -m builder.flux_tiny.reference_score [FOLDER]      the bundled model, or the one in FOLDER: a minute on a CPU

A pair is a reference and a caption that names neither its shape nor its colour, both drawn from seeds that training
never saw. Shape and colour are the nearest of those that references have; side, time and ground are
asked as of flux-tiny.
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
from PIL import Image, ImageDraw

from builder.flux_tiny.scenes import Rgb
from builder.flux_tiny.score import UNSEEN_SEED, disc_side, ground, time_of_day
from builder.flux_tiny.score import Disc as Spot
from builder.flux_tiny.shapes import COLOURS, OUTLINES, SHAPES, Task, random_task, reference_picture, task_caption
from flux_engine.models.weights import BUNDLED

Pixels = NDArray[np.float32]
Mask = NDArray[np.bool_]
PAIRS: Final = 100
SIDE: Final = 128
SKY: Final = 0.46  # of the height: the shape is above
ALIKE: Final = 45.0  # by which each channel may differ from a shape's colour
FACTS: Final = ("colour", "shape", "side", "time", "ground")


@dataclass(frozen=True, slots=True)
class Found:
    """What stands out of the sky: its mean colour, its outline as a mask, and its middle as a share of the width."""

    colour: Rgb
    mask: Mask
    x: float


def found_in(picture: Image.Image) -> Found | None:
    """The largest part of the sky that stands out from its row, or None."""
    pixels = np.asarray(picture.convert("RGB"), np.float32)
    sky = pixels[: int(SKY * pixels.shape[0])]
    contrast = np.abs(sky - np.median(sky, axis=1, keepdims=True)).max(axis=2)
    solid = contrast > max(40.0, 0.5 * float(np.percentile(contrast, 99)))
    if solid.mean() < 0.02:
        return None
    r, g, b = (round(float(level)) for level in np.median(sky[solid], axis=0))
    mask = np.abs(sky - np.asarray((r, g, b), np.float32)).max(axis=2) < ALIKE
    return Found(colour=(r, g, b), mask=mask, x=float(np.median(np.nonzero(mask)[1]) / mask.shape[1]))


def named_colour(colour: Rgb) -> str:
    """The name of the nearest colour that references have."""
    return min(COLOURS, key=lambda name: sum(abs(a - b) for a, b in zip(colour, COLOURS[name], strict=True)))


def named_shape(mask: Mask) -> str:
    """The shape that, as large as the mask and over its middle, shares most of it."""

    def shared(shape: str) -> float:
        outline = _outline(shape, mask)
        return float((mask & outline).sum() / max((mask | outline).sum(), 1))

    return max(SHAPES, key=shared)


def _outline(shape: str, mask: Mask) -> Mask:
    """`shape` with the area and the centre of gravity of `mask`."""
    rows, columns = np.nonzero(mask)
    points = np.asarray(OUTLINES[shape])
    beyond = np.roll(points, -1, axis=0)
    cross = points[:, 0] * beyond[:, 1] - beyond[:, 0] * points[:, 1]
    centre = ((points + beyond) * cross[:, None]).sum(axis=0) / (3 * cross.sum())
    half = float(np.sqrt(mask.sum() / (abs(cross.sum()) / 2)))
    placed = (points - centre) * half + (columns.mean(), rows.mean())
    picture = Image.new("1", mask.shape[::-1])
    ImageDraw.Draw(picture).polygon([(float(x), float(y)) for x, y in placed], fill=1)
    return np.asarray(picture, np.bool_)


def check(picture: Image.Image, task: Task) -> dict[str, bool]:
    """For each of FACTS, whether `picture` shows what its reference and its caption say."""
    found, scene = found_in(picture), task.scene
    return {
        "colour": found is not None and named_colour(found.colour) == named_colour(task.colour),
        "shape": found is not None and named_shape(found.mask) == task.shape,
        "side": found is not None and disc_side(Spot(x=found.x, colour=found.colour)) == scene.side,
        "time": time_of_day(picture) == scene.time,
        "ground": ground(picture, scene.time) == scene.ground,
    }


def unseen_pairs(count: int = PAIRS) -> list[tuple[Task, str]]:
    """References and captions that training never saw."""
    pairs = []
    for index in range(count):
        rng = random.Random(UNSEEN_SEED + index)
        task = random_task(rng)
        pairs.append((task, task_caption(task, rng)))
    return pairs


def score(folder: Path, *, pairs: int = PAIRS, steps: int = 16) -> dict[str, float]:
    """Share of `pairs` whose picture shows each fact."""
    from diffusers import FluxKontextPipeline

    pipeline = FluxKontextPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    counts, wanted = dict.fromkeys(FACTS, 0), unseen_pairs(pairs)
    for start in range(0, pairs, 10):
        part = wanted[start : start + 10]
        pictures = pipeline(
            image=[reference_picture(task, SIDE, SIDE) for task, _ in part],
            prompt=[text for _, text in part],
            width=SIDE,
            height=SIDE,
            max_area=SIDE * SIDE,
            _auto_resize=False,
            num_inference_steps=steps,
            guidance_scale=1.0,
            max_sequence_length=32,
            generator=[torch.Generator().manual_seed(UNSEEN_SEED + start + i) for i in range(len(part))],
        ).images
        for picture, (task, _) in zip(pictures, part, strict=True):
            for fact, holds in check(picture, task).items():
                counts[fact] += holds
    return {fact: count / pairs for fact, count in counts.items()}


def print_score(folder: Path) -> None:
    """Print the score that docs/references.md states."""
    shares = score(folder)
    print("".join(f"{fact:>9}" for fact in FACTS))
    print("".join(f"{shares[fact]:>8.0%} " for fact in FACTS), flush=True)


if __name__ == "__main__":
    print_score(Path(sys.argv[1]) if len(sys.argv) > 1 else BUNDLED["flux-tiny-kontext"])
