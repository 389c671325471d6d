"""Asking a worker: what it serves and what a job would take, without torch, a turn on the GPU or a download."""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from PIL import Image

from flux_engine import __version__
from flux_engine.build import build_worker
from flux_engine.generate.gpu import GpuThread
from flux_engine.job.schema.forms import PICTURE
from flux_engine.models.manager import FluxModelManager
from flux_engine.settings import Settings
from flux_engine.worker.worker import Worker

ROOT = Path(__file__).parents[2]
QUICK = {"prompt": "a red sun", "width": 128, "height": 128, "steps": 2}
COLD = """
import asyncio, json, sys
from flux_engine.build import build_worker
from flux_engine.settings import Settings

async def main():
    worker = build_worker(Settings.from_environment({"MODEL_VOLUME": sys.argv[1]}), is_local=False)
    answers = [await worker.run({"id": "x", "input": question}) for question in json.loads(sys.argv[2])]
    await worker.close()
    heavy = [name for name in ("torch", "diffusers", "transformers", "peft", "boto3") if name in sys.modules]
    print(json.dumps({"ops": [answer.get("op") for answer in answers], "heavy": heavy}))

asyncio.run(main())
"""


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    folder = tmp_path / "volume"
    (folder / "loras").mkdir(parents=True)
    shutil.copy(ROOT / "examples" / "loras" / "mosaic.safetensors", folder / "loras")
    return folder


@pytest.fixture
async def asked(warm: tuple[FluxModelManager, GpuThread], tmp_path: Path, volume: Path) -> AsyncIterator[Worker]:
    models, gpu = warm
    settings = Settings.from_environment({"MODEL_VOLUME": str(volume), "GPU_PRICE_PER_HOUR": "3.6"})
    worker = build_worker(settings, is_local=False, cache_folder=tmp_path / "cache", models=models, gpu=gpu)
    yield worker
    await worker.close()


async def ask(worker: Worker, **question: Any) -> dict[str, Any]:
    return await worker.run({"id": "asked", "input": question})


def png_uri(width: int, height: int) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def refusal(answer: dict[str, Any]) -> tuple[str, str | None]:
    error = json.loads(answer["error"])
    return error["code"], error.get("field")


def test_a_cold_worker_answers_without_torch(tmp_path: Path, volume: Path) -> None:
    questions = [{"op": "capabilities"}, {"op": "estimate", **QUICK, "loras": ["mosaic"]}]
    done = subprocess.run(
        [sys.executable, "-c", COLD, str(volume), json.dumps(questions)],
        capture_output=True, text=True, check=True, cwd=ROOT, env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert json.loads(done.stdout) == {"ops": ["capabilities", "estimate"], "heavy": []}


async def test_capabilities_tell_what_is_served(asked: Worker) -> None:
    answer = await ask(asked, op="capabilities")
    assert answer["version"]["engine"] == __version__
    assert answer["default_model"] == "flux-tiny"
    models = {model["id"]: model for model in answer["models"]}
    assert models["flux-tiny"]["is_on_volume"]
    assert not models["black-forest-labs/FLUX.1-dev"]["is_on_volume"]
    assert models["black-forest-labs/FLUX.1-dev"]["defaults"]["num_inference_steps"] == 28
    assert [lora["name"] for lora in answer["loras"]] == ["mosaic.safetensors"]
    assert answer["plan"]["model"] == "flux-tiny"
    assert answer["limits"]["image_bytes"] == 20_000_000
    assert set(answer["schemas"]["image"]) == set(models)
    assert set(answer["schemas"]["video"]) == {name for name, model in models.items() if model["makes_videos"]}
    for schema in (*answer["schemas"]["image"].values(), *answer["schemas"]["video"].values()):
        Draft202012Validator.check_schema(schema)
    assert len(json.dumps(answer)) < 1_000_000


async def test_loras_in_folders_are_told_by_the_names_that_a_job_may_say(asked: Worker, volume: Path) -> None:
    folder = volume / "loras" / "styles" / "stone"
    folder.mkdir(parents=True)
    shutil.copy(volume / "loras" / "mosaic.safetensors", folder / "grey stone.safetensors")
    (volume / "loras" / ".hidden").mkdir()
    shutil.copy(volume / "loras" / "mosaic.safetensors", volume / "loras" / ".hidden")
    (volume / "loras" / "loop.safetensors").symlink_to(volume / "loras" / "loop.safetensors")
    (volume / "elsewhere.safetensors").write_bytes(b"")
    (volume / "loras" / "outside.safetensors").symlink_to(volume / "elsewhere.safetensors")
    names = [lora["name"] for lora in (await ask(asked, op="capabilities"))["loras"]]
    assert names == ["mosaic.safetensors", "styles/stone/grey stone.safetensors"]
    told = await ask(asked, op="estimate", **QUICK, loras=names)
    assert [lora["state"] for lora in told["loras"]] == ["here", "here"]


async def test_the_examples_of_the_bundled_model_run(asked: Worker) -> None:
    schemas = (await ask(asked, op="capabilities"))["schemas"]
    lora = schemas["image"]["flux-tiny"]["properties"]["loras"]["examples"][0]
    examples = [*schemas["image"]["flux-tiny"]["examples"], *schemas["video"]["flux-tiny"]["examples"]]
    for example in [*examples, {**examples[0], "loras": lora}]:
        result = await asked.run({"id": "x", "input": example})
        assert "error" not in result, result
    assert (await ask(asked, op="capabilities"))["models"][0]["is_loaded"]


async def test_an_estimate_tells_what_the_job_would_be(asked: Worker) -> None:
    answer = await ask(asked, op="estimate", **QUICK, n=2, seed=5, background=None)
    assert answer["parameters"]["num_images"] == 2
    assert answer["work"] == pytest.approx(2 * 2 / 64)
    assert (answer["cached"], answer["loras"], answer["model"]["id"]) == (False, [], "flux-tiny")
    warned = await ask(asked, op="estimate", **{**QUICK, "go_fast": True, "width": 130})
    assert len([w for w in warned["warnings"] if "no effect" in w or "rounded" in w]) == 2


async def test_a_hit_is_foretold_as_a_hit(asked: Worker) -> None:
    job = {**QUICK, "seed": 11, "image": PICTURE, "strength": 0.5, "loras": ["mosaic"]}
    before = await ask(asked, op="estimate", **job)
    made = await asked.run({"id": "made", "input": job})
    after = await ask(asked, op="estimate", **job)
    again = await asked.run({"id": "again", "input": job})
    assert (before["cached"], made["cached"], after["cached"], again["cached"]) == (False, False, True, True)
    assert after["cost_usd"]["warm"] == 0.0
    assert (await ask(asked, op="estimate", **{**job, "cache": False}))["cached"] is False
    assert (await ask(asked, op="estimate", **{**job, "seed": 12}))["cached"] is False


async def test_an_estimate_is_of_the_job_in_its_pictures_shape(asked: Worker) -> None:
    job = {"prompt": "a red sun", "steps": 2, "seed": 13, "image": png_uri(64, 32), "strength": 0.5, "cache": False}
    made, told = await asked.run({"id": "made", "input": job}), await ask(asked, op="estimate", **job)
    assert (told["parameters"]["width"], told["parameters"]["height"]) == (368, 176)
    assert told["parameters"] == made["parameters"]
    assert (told["work"], told["warnings"]) == (made["usage"]["work"], made["warnings"])
    video = await ask(asked, op="estimate", **job, num_frames=2, loras=["https://huggingface.co/x.safetensors"])
    assert (video["parameters"]["width"], video["parameters"]["height"]) == (368, 176)


async def test_that_a_pictures_shape_is_not_known_is_said(asked: Worker) -> None:
    picture = {"prompt": "a red sun", "image": "https://example.com/a.png", "cache": False}
    open_size, sized = await ask(asked, op="estimate", **picture), await ask(asked, op="estimate", **picture, width=128)
    assert ["256x256 is flux-tiny's own" in warning for warning in open_size["warnings"]].count(True) == 1
    assert not any("flux-tiny's own" in warning for warning in sized["warnings"])


async def test_what_was_measured_comes_first(asked: Worker) -> None:
    await asked.run({"id": "made", "input": {**QUICK, "seed": 21}})
    answer = await ask(asked, op="estimate", **QUICK, seed=22)
    assert (answer["seconds"]["source"], answer["seconds"]["samples"]) == ("measured", 1)
    assert 0 < answer["seconds"]["warm"] < answer["seconds"]["cold"]
    assert answer["cost_usd"]["warm"] == pytest.approx(answer["seconds"]["warm"] / 1000, rel=1e-2)
    other_steps = await ask(asked, op="estimate", **{**QUICK, "steps": 8})
    assert other_steps["seconds"]["source"] == "measured"
    assert other_steps["seconds"]["warm"] > answer["seconds"]["warm"]
    assert (await ask(asked, op="estimate", **{**QUICK, "width": 256}))["seconds"]["source"] == "scaled"


async def test_loras_and_pictures_that_are_not_here_are_said_and_not_fetched(asked: Worker) -> None:
    loras = ["mosaic", "nope", "https://huggingface.co/x.safetensors", "owner/repo", "civitai:12"]
    answer = await ask(asked, op="estimate", **QUICK, loras=loras[:4])
    assert [lora["state"] for lora in answer["loras"]] == ["here", "missing", "to_be_fetched", "to_be_fetched"]
    assert answer["cached"] is False
    assert any("`loras[1]` is not on the volume" in warning for warning in answer["warnings"])
    (civitai,) = (await ask(asked, op="estimate", **QUICK, loras=loras[4:]))["loras"]
    assert civitai["state"] == "to_be_fetched"
    picture = await ask(asked, op="estimate", **QUICK, image="https://example.com/a.png")
    assert picture["cached"] is None
    assert any("not known before" in warning for warning in picture["warnings"])


async def test_a_model_that_is_not_here_is_said(asked: Worker) -> None:
    answer = await ask(asked, op="estimate", prompt="a red sun", model="dev")
    assert not answer["model"]["is_on_volume"]
    assert answer["cached"] is False
    assert answer["work"] == 28.0
    assert any("is not on the volume: the job would fail" in warning for warning in answer["warnings"])


@pytest.mark.parametrize(
    ("question", "field"),
    [
        ({"op": "capability"}, "op"),
        ({"op": 5}, "op"),
        ({"op": ["estimate"]}, "op"),
        ({"op": "capabilities", "prompt": "a red sun"}, "prompt"),
        ({"op": "estimate"}, "prompt"),
        ({"op": "estimate", "prompt": "x", "steps": 51}, "num_inference_steps"),
        ({"op": "estimate", "prompt": "x", "model": "none"}, "model"),
        ({"op": "estimate", "prompt": "x", "promt": "x"}, "promt"),
        ({"op": "estimate", "prompt": "x", "model": "FLUX.1-Kontext-dev", "num_frames": 24}, "model"),
        ({"op": "estimate", "prompt": "x", "image": "not base64!"}, "image"),
        ({"op": "estimate", "prompt": "x", "response_format": "url"}, "response_format"),
        ({"op": "estimate", "prompt": "x", "model": "flux-tiny-kontext", "image": png_uri(90, 10)}, "image"),
    ],
)
async def test_a_bad_question_is_refused(asked: Worker, question: dict[str, Any], field: str) -> None:
    assert refusal(await ask(asked, **question)) == ("invalid_input", field)


async def test_a_default_model_that_is_missing_leaves_the_rest(tmp_path: Path, volume: Path) -> None:
    settings = Settings.from_environment({"FLUX_MODEL": "owner/a-fine-tune", "MODEL_VOLUME": str(volume)})
    worker = build_worker(settings, is_local=False, cache_folder=tmp_path / "cache")
    answer = await ask(worker, op="capabilities")
    assert (answer["default_model"], answer["plan"]) == (None, None)
    assert "flux-tiny" in answer["schemas"]["image"]
    await worker.close()
