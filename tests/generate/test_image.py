"""What the bundled model paints is what the prompt says."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from builder.flux_tiny.score import check, disc, disc_colour, disc_side, time_of_day, unseen
from flux_engine.models.weights import BUNDLED_FOLDER
from flux_engine.worker.worker import Worker


async def paint(worker: Worker, prompt: str, **fields: Any) -> Image.Image:
    result = await worker.run({"id": "paint", "input": {"prompt": prompt, "cache": False, **fields}})
    assert "error" not in result, result
    return Image.open(io.BytesIO(base64.b64decode(result["images"][0]["b64_json"]))).convert("RGB")


@pytest.mark.parametrize(
    ("prompt", "colour", "side", "time"),
    [
        ("a large red sun on the left over purple mountains at dusk, a calm lake", "red", "left", "dusk"),
        ("a large yellow sun on the right over green hills at noon, a meadow", "yellow", "right", "day"),
        ("a large white moon in the middle over blue mountains at night, a snowfield", "white", "middle", "night"),
    ],
)
async def test_a_picture_follows_its_prompt(worker: Worker, prompt: str, colour: str, side: str, time: str) -> None:
    right = 0
    for seed in range(3):
        picture = await paint(worker, prompt, seed=seed, size="128x128")
        found = disc(picture)
        right += found is not None and disc_colour(found) == colour and disc_side(found) == side
        right += time_of_day(picture) == time
    assert right >= 5  # of 6


@pytest.mark.parametrize(
    ("width", "height"),
    [(256, 160), *(pytest.param(*size, marks=pytest.mark.slow) for size in ((256, 256), (160, 256)))],
)
async def test_unseen_captions_score_as_the_readme_says(worker: Worker, width: int, height: int) -> None:
    facts: list[bool] = []
    for seed, (scene, text) in enumerate(unseen(8)):
        facts += check(await paint(worker, text, width=width, height=height, seed=seed), scene).values()
    assert sum(facts) / len(facts) >= 0.8


@pytest.mark.parametrize(("negative", "colour"), [("a red sun", "white"), ("a white sun", "red")])
async def test_a_negative_prompt_leads_away_from_what_it_names(worker: Worker, negative: str, colour: str) -> None:
    """The caption leaves the sun's colour open."""
    seen = []
    for seed in range(3):
        fields = {"seed": seed, "true_cfg_scale": 3, "negative_prompt": negative, "size": "128x128"}
        found = disc(await paint(worker, "a small sun over a meadow", **fields))
        seen.append(found and disc_colour(found))
    assert seen.count(colour) >= 2, seen


def test_the_bundled_model_is_small() -> None:
    assert sum(path.stat().st_size for path in Path(BUNDLED_FOLDER).rglob("*") if path.is_file()) < 12_000_000


def test_the_bundled_model_loads_unaided() -> None:
    from diffusers import FluxPipeline

    pipeline = FluxPipeline.from_pretrained(BUNDLED_FOLDER)
    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline("a red sun", width=128, height=128, num_inference_steps=1, max_sequence_length=32).images[0]
    assert picture.size == (128, 128)
