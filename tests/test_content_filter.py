"""CONTENT_FILTER from the setting to the client: withheld and delivered in one job, and no withheld byte anywhere.

The classifier is of the real class, a ViT, trained on flux-tiny's pictures: night is forbidden.
"""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from builder.flux_tiny import night_filter
from flux_engine.build import build_models, build_worker
from flux_engine.cache.redis_link import RedisLink, RemoteServer
from flux_engine.generate.gpu import GpuThread
from flux_engine.generate.screening import NO_PREVIEW
from flux_engine.models.beside.content_filter import find_filter
from flux_engine.models.manager import FluxModelManager
from flux_engine.models.spec import ModelSpec
from flux_engine.progress import Update
from flux_engine.settings import Settings
from flux_engine.worker.worker import Worker
from tests.servers import RedisProcess, S3Process, fetched
from tests.test_provenance import bucket, files

QUICK = {"num_inference_steps": 2, "width": 64, "height": 64, "seed": 5}
NIGHT = {**QUICK, "prompt": "a white moon at night, a lake"}
DAY = {**QUICK, "prompt": "a red sun on the left, a lake, day"}
FILM = {"type": "video", "num_frames": 3, "fps": 2}

Warm = tuple[FluxModelManager, GpuThread]


@dataclass(frozen=True)
class Night:
    """A volume with the classifier, how well it tells night from day, and models that it watches over."""

    volume: Path
    accuracy: float
    models: FluxModelManager

    def settings(self, **variables: str) -> Settings:
        return Settings.from_environment(
            {"CONTENT_FILTER": "night-filter", "MODEL_VOLUME": str(self.volume), **variables}
        )


@pytest.fixture(scope="module")
def night(warm: Warm, tmp_path_factory: pytest.TempPathFactory, tiny: ModelSpec) -> Iterator[Night]:
    volume = tmp_path_factory.mktemp("night")
    models, _ = warm
    accuracy = models.use(
        tiny, lambda model: night_filter.make(volume / "models" / "night-filter", pipeline=model.pipeline)
    )
    watched = build_models(Settings.from_environment({"CONTENT_FILTER": "night-filter", "MODEL_VOLUME": str(volume)}))
    yield Night(volume, accuracy, watched)
    watched.unload()


def worker_with(
    night: Night, warm: Warm, folder: Path, models: FluxModelManager | None = None, **variables: str
) -> Worker:
    """One that writes its files under `folder`/outputs."""
    settings = night.settings(OUTPUT_DIR=str(folder / "outputs"), **variables)
    return build_worker(
        settings, is_local=True, cache_folder=folder / "cache", models=models or night.models, gpu=warm[1]
    )


def stored(folder: Path) -> list[bytes]:
    return [
        path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix in (".png", ".mp4", ".webp")
    ]


def shown(data: bytes) -> bytes:
    return Image.open(io.BytesIO(data)).convert("RGB").tobytes()


def error_of(result: dict[str, Any]) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(result["error"])
    return error


def test_the_classifier_knows_night_from_day(night: Night) -> None:
    assert night.accuracy >= 0.9


async def test_withheld_and_delivered_in_one_job(
    night: Night, warm: Warm, redis: RedisProcess, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fields = {**NIGHT, "num_images": 3}
    shared = {"REDIS_URL": redis.url}
    models, gpu = warm
    open_settings = Settings.from_environment({"OUTPUT_DIR": str(tmp_path / "open"), **shared})
    open_worker = build_worker(open_settings, is_local=True, cache_folder=tmp_path / "cache", models=models, gpu=gpu)
    pictures = [shown(data) for data in files(await open_worker.run({"id": "open", "input": fields}))]
    await open_worker.close()
    judge = find_filter("night-filter", volume=night.volume, threshold=0.5, labels=())
    scores = [judge.judge(Image.frombytes("RGB", (64, 64), each)).score for each in pictures]
    assert max(scores) > min(scores)
    threshold = (max(scores) + min(scores)) / 2
    settings = night.settings(CONTENT_FILTER_THRESHOLD=str(threshold))
    worker = worker_with(
        night, warm, tmp_path, build_models(settings), CONTENT_FILTER_THRESHOLD=str(threshold), **shared
    )
    kept = [i for i, score in enumerate(scores) if score < threshold]
    for is_hit in (False, True):
        result = await worker.run({"id": "screened", "input": fields})
        assert result["cached"] is is_hit
        assert [shown(data) for data in files(result)] == [pictures[i] for i in kept]
        assert [image["seed"] for image in result["images"]] == [5 + i for i in kept]
        assert result["withheld"] == [
            {
                "index": i,
                "seed": 5 + i,
                "label": "night",
                "score": round(scores[i], 4),
                "reason": "content_filtered",
            }
            for i in range(3)
            if i not in kept
        ]
        assert len([said for said in result["warnings"] if "withheld" in said]) == 3 - len(kept)
    assert sorted(shown(data) for data in stored(tmp_path / "outputs")) == sorted(pictures[i] for i in kept)
    link = RedisLink(RemoteServer(redis.url))
    held = [await link.get(key) for key in await link.eval("return redis.call('KEYS', '*:entry')", [], [])]
    await link.close()
    names = {image["sha256"] for image in result["images"]}
    screened = [json.loads(text) for text in held if text is not None and json.loads(text)["withheld"]]
    assert [{file["sha256"] for file in entry["files"]} for entry in screened] == [names]
    assert not any(isinstance(value, bytes) for record in caplog.records for value in record.__dict__.values())
    await worker.close()


async def test_all_withheld_is_an_error_and_leaves_no_byte(night: Night, warm: Warm, tmp_path: Path) -> None:
    worker = worker_with(night, warm, tmp_path)
    updates: list[Update] = []

    async def send(update: Update) -> None:
        updates.append(update)

    for fields in ({**NIGHT, "num_images": 2}, {**NIGHT, **FILM}, {**NIGHT, "response_format": "b64_json"}):
        result = await worker.run({"id": "one", "input": {**fields, "preview": True}}, send, min_interval_s=0.0)
        error = error_of(result)
        assert (error["code"], error["retryable"]) == ("content_filtered", False)
        assert "night" in error["message"]
    assert not any("preview" in update for update in updates)
    assert stored(tmp_path) == []
    assert list(night.volume.rglob("pending/*")) == []
    await worker.close()


async def test_a_bucket_gets_what_is_allowed_alone(night: Night, warm: Warm, tmp_path: Path, s3: S3Process) -> None:
    settings = night.settings(**bucket(s3), BUCKET_PREFIX="screened")
    worker = build_worker(settings, is_local=False, cache_folder=tmp_path, models=night.models, gpu=warm[1])
    for fields in ({**NIGHT, "num_images": 2}, {**NIGHT, **FILM}):
        assert error_of(await worker.run({"id": "night", "input": fields}))["code"] == "content_filtered"
    (image,) = (await worker.run({"id": "day", "input": DAY}))["images"]
    _, listed, _ = fetched(f"{s3.url}/pictures?list-type=2&prefix=screened")
    assert re.findall(rb"<Key>(.*?)</Key>", listed) == [f"screened/{image['sha256']}.png".encode()]
    await worker.close()


async def test_what_is_allowed_comes_without_previews(night: Night, warm: Warm, tmp_path: Path) -> None:
    worker = worker_with(night, warm, tmp_path)
    updates: list[Update] = []

    async def send(update: Update) -> None:
        updates.append(update)

    for fields in (DAY, {**DAY, **FILM}):
        result = await worker.run({"id": "one", "input": {**fields, "preview": True}}, send, min_interval_s=0.0)
        assert files(result)
        assert NO_PREVIEW in result["warnings"]
        assert "withheld" not in result
    assert not any("preview" in update for update in updates)
    await worker.close()


async def test_a_film_that_turns_to_night_is_withheld(night: Night, warm: Warm, tmp_path: Path) -> None:
    worker = worker_with(night, warm, tmp_path)
    keyframes = [{"frame": 0, "prompt": DAY["prompt"]}, {"frame": 2, "prompt": NIGHT["prompt"]}]
    result = await worker.run({"id": "one", "input": {**DAY, **FILM, "keyframes": keyframes}})
    assert error_of(result)["code"] == "content_filtered"
    assert stored(tmp_path) == []
    await worker.close()


async def test_a_picture_made_before_the_filter_was_on_is_looked_at(night: Night, warm: Warm, tmp_path: Path) -> None:
    """It is in the cache and has never been judged."""
    models, gpu = warm
    before = build_worker(
        Settings.from_environment({"OUTPUT_DIR": str(tmp_path / "outputs"), "MODEL_VOLUME": str(night.volume)}),
        is_local=True,
        cache_folder=tmp_path / "cache",
        models=models,
        gpu=gpu,
    )
    assert files(await before.run({"id": "before", "input": NIGHT}))
    await before.close()
    worker = worker_with(night, warm, tmp_path)
    assert error_of(await worker.run({"id": "after", "input": NIGHT}))["code"] == "content_filtered"
    await worker.close()


async def test_a_filter_that_cannot_be_loaded_lets_nothing_through(night: Night, warm: Warm, tmp_path: Path) -> None:
    broken = tmp_path / "models" / "night-filter"
    broken.mkdir(parents=True)
    for path in (night.volume / "models" / "night-filter").iterdir():
        data = path.read_bytes()
        (broken / path.name).write_bytes(data[: len(data) // 2] if path.suffix == ".safetensors" else data)
    settings = Settings.from_environment({"CONTENT_FILTER": "night-filter", "MODEL_VOLUME": str(tmp_path)})
    models = build_models(settings)
    worker = build_worker(settings, is_local=False, cache_folder=tmp_path / "cache", models=models, gpu=warm[1])
    result = await worker.run({"id": "one", "input": DAY})
    assert error_of(result)["code"] == "model_unavailable"
    await asyncio.to_thread(models.unload)
    await worker.close()
