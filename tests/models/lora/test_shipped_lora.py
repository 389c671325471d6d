"""The LoRA of `examples/`, as a user applies it: from the volume, at any scale, and gone with the job."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from builder.flux_tiny.lora import OUTPUT, stone_contrast
from flux_engine.worker.worker import Worker

PROMPTS = ("a large red sun on the left over purple mountains at dusk, a lake", "a yellow sun over green hills at noon")


@pytest.fixture(autouse=True)
def _on_the_volume(tmp_path: Path) -> None:
    (tmp_path / "volume" / "loras").mkdir(parents=True)
    shutil.copy(OUTPUT, tmp_path / "volume" / "loras")


async def picture(worker: Worker, prompt: str, *loras: dict[str, Any], **fields: Any) -> bytes:
    job = {"prompt": prompt, "seed": 7, "loras": list(loras), "cache": False, **fields}
    result = await worker.run({"id": "lora", "input": job})
    assert "error" not in result, result
    return base64.b64decode(result["images"][0]["b64_json"])


def mosaic(scale: float) -> dict[str, Any]:
    return {"path": "mosaic", "scale": scale}


async def test_the_style_grows_with_the_scale(worker: Worker) -> None:
    contrast = {
        scale: stone_contrast(
            [Image.open(io.BytesIO(await picture(worker, prompt, mosaic(scale)))) for prompt in PROMPTS]
        )
        for scale in (-1.0, 0.0, 0.5, 1.0)
    }
    assert contrast[0.0] == pytest.approx(1, abs=0.3)
    assert contrast[-1.0] < contrast[0.5]
    assert contrast[0.5] > 1.2
    assert contrast[1.0] > 2.5


async def test_at_scale_0_and_in_the_job_after_it_there_is_none(worker: Worker) -> None:
    small = {"num_inference_steps": 2, "size": "128x128"}
    for prompt in PROMPTS:
        plain = await picture(worker, prompt, **small)
        assert await picture(worker, prompt, mosaic(0.0), **small) == plain
        assert await picture(worker, prompt, mosaic(1.0), **small) != plain
        assert await picture(worker, prompt, **small) == plain


async def test_nothing_is_said_of_a_lora_at_scale_0_whose_result_a_job_without_one_gets(worker: Worker) -> None:
    job = {"prompt": PROMPTS[0], "seed": 7, "num_inference_steps": 1, "size": "64x64"}
    made = await worker.run({"id": "one", "input": {**job, "loras": [mosaic(0.0)]}})
    reused = await worker.run({"id": "other", "input": job})
    acting = await worker.run({"id": "third", "input": {**job, "loras": [mosaic(1.0)]}})
    assert (made["cached"], reused["cached"]) == (False, True)
    assert made["warnings"] == reused["warnings"] == []
    assert "alpha" in acting["warnings"][0]


async def test_jobs_with_random_loras_leave_nothing(worker: Worker) -> None:
    rng, small = random.Random(0), {"num_inference_steps": 1, "size": "64x64"}
    plain = await picture(worker, PROMPTS[0], **small)
    styled: dict[float, set[str]] = {-1.0: set(), 0.5: set(), 1.0: set()}
    for _ in range(30):  # each scale after each
        scale = rng.choice(list(styled))
        made = await picture(worker, PROMPTS[0], mosaic(scale), **small)
        styled[scale].add(hashlib.sha256(made).hexdigest())
    assert [len(hashes) for hashes in styled.values()] == [1, 1, 1]  # what came before does not matter
    assert await picture(worker, PROMPTS[0], **small) == plain
    assert await picture(worker, PROMPTS[0], mosaic(0.0), **small) == plain


async def test_of_several_loras_the_one_at_fault_is_named(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "volume" / "loras" / "broken.safetensors").write_bytes(OUTPUT.read_bytes()[:-1])
    job = {"prompt": PROMPTS[0], "loras": ["mosaic", "broken"]}
    error = json.loads((await worker.run({"id": "lora", "input": job}))["error"])
    assert (error["code"], error["field"], error["retryable"]) == ("lora_invalid", "loras[1]", False)


def test_it_is_small() -> None:
    assert OUTPUT.stat().st_size < 200_000
