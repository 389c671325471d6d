"""One job, start to finish, with the bundled model: what a client gets."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import pytest
import torch
from aiohttp import web
from PIL import Image

from flux_engine.build import build_worker
from flux_engine.errors import DeviceBroken
from flux_engine.generate.gpu import Cancellation, GpuThread, Result
from flux_engine.generate.turns import Turn
from flux_engine.inputs.fetcher import InputFetcher
from flux_engine.inputs.lora_store import LoraStore
from flux_engine.inputs.pictures import PictureSource
from flux_engine.logs import set_up_logs
from flux_engine.models.loaded import LoadedModel
from flux_engine.models.manager import NO_DEMAND, FluxModelManager
from flux_engine.models.planning.device import read_device
from flux_engine.models.planning.gpus import GpuProperties, cpu_machine
from flux_engine.models.served import ServedModels
from flux_engine.models.spec import ModelSpec
from flux_engine.models.steps import Demand
from flux_engine.models.weights import BUNDLED_FOLDER
from flux_engine.net.fetch import Fetcher
from flux_engine.progress import Update
from flux_engine.settings import Settings
from flux_engine.units import GIB
from flux_engine.worker.worker import Worker
from tests.waiting import until
from tests.web_server import loopback, own_certificate, server

Made = TypeVar("Made")
QUICK = {"prompt": "a red sun on the left, a lake, day", "num_inference_steps": 4, "width": 128, "height": 128}
NO_CACHE = {"cache": False}
SHIPPED_LORA = Path(__file__).parents[2] / "examples" / "loras" / "mosaic.safetensors"


def job(identity: str = "job-1", **fields: Any) -> dict[str, Any]:
    return {"id": identity, "input": {**QUICK, **NO_CACHE, **fields}}


def error_of(result: dict[str, Any]) -> dict[str, Any]:
    assert set(result) == {"error"}
    error: dict[str, Any] = json.loads(result["error"])
    return error


def pictures(result: dict[str, Any]) -> list[bytes]:
    assert "error" not in result, result
    return [base64.b64decode(image["b64_json"]) for image in result["images"]]


async def test_an_image_job_gives_the_contracts_result(worker: Worker) -> None:
    result = await worker.run(job(seed=7, metadata={"order": 5}))
    assert set(result) == {
        "images", "seed", "model", "parameters", "cached", "timings", "usage", "warnings", "metadata",
    }  # fmt: skip
    (image,) = result["images"]
    data = base64.b64decode(image["b64_json"])
    assert Image.open(io.BytesIO(data)).size == (image["width"], image["height"]) == (128, 128)
    assert (image["content_type"], image["seed"], image["bytes"]) == ("image/png", 7, len(data))
    assert result["model"]["id"] == "flux-tiny"
    assert len(result["model"]["revision"]) >= 12
    assert result["parameters"]["num_inference_steps"] == 4
    assert result["metadata"] == {"order": 5}
    parts = {name: ms for name, ms in result["timings"].items() if name != "total_ms"}
    assert set(parts) == {
        "load_ms", "lora_ms", "text_ms", "denoise_ms", "decode_ms", "encode_ms", "upload_ms",
    }  # fmt: skip
    assert result["timings"]["total_ms"] >= max(parts.values())
    assert result["usage"].keys() == {"work", "gpu_seconds"}
    assert result["usage"]["work"] == 4 / 64
    assert parts["denoise_ms"] / 1000 < result["usage"]["gpu_seconds"] < result["timings"]["total_ms"] / 1000
    json.dumps(result, allow_nan=False)


async def test_the_same_seed_gives_the_same_bytes_alone_or_together(worker: Worker) -> None:
    together = pictures(await worker.run(job(seed=5, num_images=3)))
    alone = [pictures(await worker.run(job(seed=seed)))[0] for seed in (7, 5, 6)]

    def pixels(data: bytes) -> bytes:
        return Image.open(io.BytesIO(data)).tobytes()

    assert [pixels(data) for data in together] == [pixels(alone[1]), pixels(alone[2]), pixels(alone[0])]
    assert len(set(together)) == 3
    assert alone[1] == pictures(await worker.run(job(seed=5)))[0]


async def test_a_job_that_runs_again_gives_the_same_picture(worker: Worker) -> None:
    first = pictures(await worker.run(job("retried")))
    again = pictures(await worker.run(job("retried")))
    assert first == again
    assert first != pictures(await worker.run(job("another")))


@pytest.mark.parametrize(
    "changed",
    [
        {"guidance_scale": 4.0},
        {"true_cfg_scale": 3.0},
        {"true_cfg_scale": 3.0, "negative_prompt": "lake"},
        {"prompt": "a moon at night"},
        {"num_inference_steps": 5},
    ],
)
async def test_every_sampling_parameter_changes_the_picture(worker: Worker, changed: dict[str, Any]) -> None:
    plain = pictures(await worker.run(job(seed=1)))[0]
    assert pictures(await worker.run(job(seed=1, **changed)))[0] != plain


async def test_progress_shows_stages_steps_and_previews(worker: Worker) -> None:
    updates: list[Update] = []

    async def send(update: Update) -> None:
        updates.append(update)

    await worker.run(job(preview=True, num_inference_steps=12), send, min_interval_s=0.0)
    stages = list(dict.fromkeys(update["stage"] for update in updates))
    expected = ["queued", "text", "denoising", "decoding", "encoding", "uploading"]  # the last may be over too soon
    assert [s for s in stages if s != "loading"] in (expected, expected[:-1])
    previews = [update["preview"] for update in updates if "preview" in update]
    assert previews
    opened = Image.open(io.BytesIO(base64.b64decode(previews[-1].partition(",")[2])))
    assert max(opened.size) <= 256


async def test_a_cancelled_job_leaves_the_worker_as_it_was(worker: Worker) -> None:
    before = pictures(await worker.run(job(seed=3)))
    stepped = asyncio.Event()

    async def send(update: Update) -> None:
        if "step" in update:
            stepped.set()

    running = asyncio.create_task(worker.run(job(seed=4, num_inference_steps=50), send, min_interval_s=0.0))
    await stepped.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert pictures(await worker.run(job(seed=3))) == before


async def test_a_refusal_names_the_field(worker: Worker) -> None:
    error = error_of(await worker.run(job(width=5)))
    assert (error["code"], error["field"], error["retryable"], error["job_id"]) == (
        "invalid_input", "width", False, "job-1",
    )  # fmt: skip


@pytest.mark.parametrize("endpoint", ["https://10.0.0.1", "https://no-such-host.invalid"])
async def test_a_bucket_that_cannot_be_used_is_refused_before_anything_is_made(worker: Worker, endpoint: str) -> None:
    stages = []

    async def send(update: Update) -> None:
        stages.append(update["stage"])

    config = {"endpointUrl": endpoint, "accessId": "a", "accessSecret": "b", "bucketName": "pictures"}
    error = error_of(await worker.run(job() | {"s3Config": config}, send, min_interval_s=0.0))
    assert (error["code"], error["field"]) == ("invalid_input", "s3Config")
    assert set(stages) <= {"queued"}


@pytest.mark.parametrize("not_a_job", [None, [], "x", {}, {"id": 5, "input": {}}, {"id": "x", "input": []}])
async def test_what_is_no_job_gets_an_error(worker: Worker, not_a_job: object) -> None:
    assert error_of(await worker.run(not_a_job))["code"] == "invalid_input"


@pytest.mark.parametrize(
    ("fields", "event", "level", "said"),
    [
        ({"width": 5}, "job refused", "WARNING", "width"),
        ({"model": "schnell"}, "job failed", "ERROR", "not on this endpoint's volume"),
    ],
)
async def test_the_log_tells_a_bad_job_from_a_worker_that_failed(
    worker: Worker, caplog: pytest.LogCaptureFixture, fields: dict[str, Any], event: str, level: str, said: str
) -> None:
    error_of(await worker.run(job(**fields)))
    (record,) = (record for record in caplog.records if record.name == "flux_engine.worker.worker")
    assert (record.message, record.levelname) == (event, level)
    assert said in str(vars(record)["detail"])
    assert (record.exc_info is not None) == (level == "ERROR")
    assert str(QUICK["prompt"]) not in caplog.text


async def test_a_model_that_is_not_there_is_named_with_the_way_to_get_it(worker: Worker, tmp_path: Path) -> None:
    error = error_of(await worker.run(job(model="schnell", num_inference_steps=2)))
    assert error["code"] == "model_unavailable"
    assert "fetch_models.py black-forest-labs/FLUX.1-schnell" in error["message"]
    assert str(tmp_path.parent) not in error["message"]


async def test_a_default_model_that_is_not_there_costs_no_job_for_another(tmp_path: Path) -> None:
    settings = Settings.from_environment({"FLUX_MODEL": "owner/a-fine-tune", "MODEL_VOLUME": str(tmp_path)})
    async with a_worker(settings, tmp_path) as worker:
        assert error_of(await worker.run(job()))["code"] == "model_unavailable"
        pictures(await worker.run(job(model="flux-tiny")))
        refused = error_of(await worker.run(job(model="flux-tinny")))
    assert refused["code"] == "invalid_input"
    assert "owner/a-fine-tune, " in refused["message"]


@pytest.mark.parametrize("damage", ["truncated", "missing", "not json"])
async def test_a_broken_model_is_model_unavailable(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "models" / "broken"
    shutil.copytree(BUNDLED_FOLDER, folder)
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "missing":
        weights.unlink()
    else:
        (folder / "transformer" / "config.json").write_text("{")
    settings = Settings.from_environment({"FLUX_MODEL": str(folder), "MODEL_VOLUME": str(tmp_path)})
    error = error_of(await run_alone(settings, tmp_path, job()))
    assert error["code"] == "model_unavailable"
    assert str(tmp_path) not in error["message"]


async def test_a_folder_as_model_serves_under_its_own_name(tmp_path: Path) -> None:
    folder = tmp_path / "my-flux"
    shutil.copytree(BUNDLED_FOLDER, folder)
    settings = Settings.from_environment({"FLUX_MODEL": "my-flux", "MODEL_VOLUME": str(tmp_path)})
    result = await run_alone(settings, tmp_path, job(max_sequence_length=32))
    assert result["model"]["id"] == "my-flux"


async def test_two_jobs_wait_for_one_load(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = Settings.from_environment({"MODEL_VOLUME": str(tmp_path)})
    async with a_worker(settings, tmp_path) as worker:
        results = await asyncio.gather(worker.run(job("a")), worker.run(job("b")))
    assert sorted("cold_start" in result["model"] for result in results) == [False, True]
    assert caplog.messages.count("model loaded") == 1


async def test_jobs_in_flight_reach_the_gpu_in_the_order_they_were_taken(worker: Worker) -> None:
    """Those that look in the cache and on the volume first, and those that need not."""
    made: list[str] = []

    async def run(identity: str, *, cache: bool) -> None:
        order = job(identity, cache=cache, seed=len(identity))
        pictures(await worker.run(order, on_made=partial(made.append, identity)))

    names = ["a" * length for length in range(1, 9)]
    await asyncio.gather(*(run(name, cache=len(name) % 2 == 1) for name in names))
    assert made == names


async def test_a_job_that_downloads_holds_nobody_up(warm: tuple[FluxModelManager, GpuThread], tmp_path: Path) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow(_: web.Request) -> web.Response:
        asked.set()
        await answer.wait()
        return web.Response(body=a_picture())

    settings = Settings.from_environment({"MODEL_VOLUME": str(tmp_path)})
    serving, trusting = own_certificate(tmp_path, "files.example")
    fetcher = Fetcher(allow_private=True, resolve=loopback, tls=trusting)
    parts = {
        "models": warm[0],
        "gpu": warm[1],
        "inputs": InputFetcher(LoraStore.from_settings(settings), PictureSource(fetcher)),
    }
    async with server(slow, tls=serving) as port, a_worker(settings, tmp_path, **parts) as worker:
        url = f"https://files.example:{port}/a.png"
        downloading = asyncio.create_task(worker.run(job("first", image=url)))
        await asked.wait()
        pictures(await worker.run(job("second")))
        assert not downloading.done()
        answer.set()
        pictures(await downloading)


async def test_cancelled_failed_and_twin_side_by_side_in_the_log(
    worker: Worker, warm: tuple[FluxModelManager, GpuThread], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each line names its job, whichever task or thread wrote it."""
    set_up_logs("INFO", as_json=True)
    release, waiting, written = threading.Event(), asyncio.Event(), list[str]()
    busy = asyncio.create_task(warm[1].run(lambda _: release.wait(60)))

    async def send(update: Update) -> None:
        waiting.set()

    def has_a_twin_to_wait_for() -> bool:
        written.extend(capsys.readouterr().err.splitlines())
        return any("waiting for a twin" in line for line in written)

    twins = [asyncio.create_task(worker.run(job(name, seed=31, cache=True), send)) for name in ("one", "other")]
    cancelled = asyncio.create_task(worker.run(job("cancelled"), send, min_interval_s=0.0))
    failed = await worker.run(job("failed", model="schnell"))
    refused = await worker.run(job("refused", width=5))
    await waiting.wait()
    cancelled.cancel()
    await asyncio.wait([cancelled])
    await until(has_a_twin_to_wait_for)  # else the first of them may be done before the second one looks
    release.set()
    await busy
    assert sorted(result["cached"] for result in await asyncio.gather(*twins)) == [False, True]
    assert "error" in failed
    assert "error" in refused
    told = [json.loads(line) for line in (*written, *capsys.readouterr().err.splitlines())]
    assert sorted((line["job_id"], line["event"]) for line in told if line["event"].startswith("job")) == [
        ("cancelled", "job cancelled"),
        ("failed", "job failed"),
        ("one", "job done"),
        ("other", "job done"),
        ("refused", "job refused"),
    ]
    (waiter,) = (line["job_id"] for line in told if line["event"] == "waiting for a twin")
    assert waiter in ("one", "other")
    assert [line for line in told if "job_id" not in line] == []


async def test_the_unforeseen_is_internal_with_a_reference(
    warm: tuple[FluxModelManager, GpuThread], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_worker(Settings.from_environment({}), tmp_path, models=warm[0], gpu=BrokenThread()) as worker:
        error = error_of(await worker.run(job()))
    assert (error["code"], error["retryable"]) == ("internal", True)
    reference = error["message"].rsplit(" ", 1)[1]
    assert any(getattr(record, "reference", None) == reference for record in caplog.records)
    assert "ZeroDivisionError" not in error["message"]


class BrokenThread(GpuThread):
    """A GPU thread with a defect."""

    async def run(self, work: Callable[[Cancellation], Result], *, turn: Turn | None = None) -> Result:
        raise ZeroDivisionError(work)


async def test_the_loop_goes_on_while_the_gpu_is_looked_at(tmp_path: Path) -> None:
    asked, loop_went_on, seen = threading.Event(), threading.Event(), list[bool]()

    def slow_driver() -> GpuProperties:
        asked.set()
        seen.append(loop_went_on.wait(20))
        return cpu_machine(total_bytes=8 * GIB)

    served = ServedModels(None, volume=tmp_path, has_gpu=False)
    models = FluxModelManager(served, gpu=slow_driver, volume=tmp_path, lora_max_bytes=GIB)
    async with a_worker(Settings.from_environment({}), tmp_path, models=models) as worker:
        running = asyncio.create_task(worker.run(job()))
        await asyncio.to_thread(asked.wait)
        loop_went_on.set()
        pictures(await running)
    assert seen == [True]


async def test_a_hit_does_not_wait_for_the_gpu(worker: Worker, warm: tuple[FluxModelManager, GpuThread]) -> None:
    await worker.run(job("one", seed=12, cache=True))
    release = threading.Event()
    busy = asyncio.create_task(warm[1].run(lambda _: release.wait(60)))
    hit = await worker.run(job("two", seed=12, cache=True))
    assert not busy.done()
    release.set()
    await busy
    assert hit["cached"]


@pytest.mark.parametrize("is_lost", [True, False])
async def test_warming_that_fails_is_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, is_lost: bool
) -> None:
    settings = Settings.from_environment({"MODEL_VOLUME": str(tmp_path)})
    gpu = LostDevice() if is_lost else BrokenThread()
    async with a_worker(settings, tmp_path, gpu=gpu) as worker:
        await worker.warm()
        assert worker.is_broken is is_lost
    (record,) = (record for record in caplog.records if record.name == "flux_engine.worker.worker")
    assert record.message == ("device broken" if is_lost else "not warmed")
    assert record.exc_info is not None


class LostDevice(GpuThread):
    """The GPU thread of a card that no longer answers."""

    async def run(self, work: Callable[[Cancellation], Result], *, turn: Turn | None = None) -> Result:
        raise DeviceBroken("the GPU stopped answering")


async def test_a_lost_device_has_a_reference_that_the_log_has_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_worker(Settings.from_environment({}), tmp_path, gpu=LostDevice()) as worker:
        result = await worker.run(job())
    assert result.pop("refresh_worker") is True
    error = error_of(result)
    assert (error["code"], error["retryable"]) == ("internal", True)
    reference = error["message"].rsplit(" ", 1)[1]
    assert [vars(record).get("reference") for record in caplog.records if record.message == "device broken"] == [
        reference
    ]


def outputs_of(tmp_path: Path) -> tuple[Path, Settings]:
    """Where results go, and the settings of a worker that stores them there."""
    outputs = tmp_path / "outputs"
    return outputs, Settings.from_environment({"OUTPUT_DIR": str(outputs), "MODEL_VOLUME": str(tmp_path / "volume")})


async def test_a_folder_that_cannot_be_written_is_storage_failed(
    warm: tuple[FluxModelManager, GpuThread], tmp_path: Path
) -> None:
    models, gpu = warm
    outputs, settings = outputs_of(tmp_path)
    outputs.write_text("a file where the folder should be")
    async with a_worker(settings, tmp_path, is_local=True, models=models, gpu=gpu) as worker:
        error = error_of(await worker.run(job(cache=True)))
        assert (error["code"], error["retryable"]) == ("storage_failed", True)
        assert str(tmp_path) not in error["message"]
        outputs.unlink()
        retried = await worker.run(job(cache=True))
    assert retried["timings"]["denoise_ms"] == 0  # kept from the first try, only delivered
    assert Path(unquote(urlsplit(retried["images"][0]["url"]).path)).stat().st_size == retried["images"][0]["bytes"]


class OnceOutOfMemory(FluxModelManager):
    """A model whose memory runs out at the first work that it is used for."""

    failures = 1

    def use(self, spec: ModelSpec, work: Callable[[LoadedModel], Made], *, demand: Demand = NO_DEMAND) -> Made:
        def failing(model: LoadedModel) -> Made:
            if self.failures:
                self.failures -= 1
                raise torch.OutOfMemoryError("made up")
            return work(model)

        return super().use(spec, failing)


async def test_what_a_leaner_plan_made_is_not_kept_for_the_retry(tmp_path: Path) -> None:
    outputs, settings = outputs_of(tmp_path)
    outputs.write_text("a file where the folder should be")
    leaner = OnceOutOfMemory(
        ServedModels(None, volume=tmp_path / "volume", has_gpu=False),
        gpu=read_device,
        volume=tmp_path / "volume",
        lora_max_bytes=1,
    )
    async with a_worker(settings, tmp_path, is_local=True, models=leaner) as worker:
        assert error_of(await worker.run(job(cache=True)))["code"] == "storage_failed"
    outputs.unlink()
    async with a_worker(settings, tmp_path, is_local=True) as worker:
        retried = await worker.run(job(cache=True))
    assert retried["timings"]["denoise_ms"] > 0
    made = Path(unquote(urlsplit(retried["images"][0]["url"]).path))
    with Image.open(made) as picture:
        assert json.loads(picture.info["model"])["precision"] == retried["model"]["precision"]


async def test_without_the_cache_a_job_is_answered_by_what_it_left_itself(
    warm: tuple[FluxModelManager, GpuThread], tmp_path: Path
) -> None:
    models, gpu = warm
    outputs, settings = outputs_of(tmp_path)
    async with a_worker(settings, tmp_path, is_local=True, models=models, gpu=gpu) as worker:
        outputs.write_text("a file where the folder should be")
        assert error_of(await worker.run(job("one", seed=5)))["code"] == "storage_failed"
        outputs.unlink()
        other = await worker.run(job("other", seed=5))
        assert other["timings"]["denoise_ms"] > 0
        assert (await worker.run(job("one", seed=5)))["timings"]["denoise_ms"] == 0  # the other left it where it was
        outputs.rename(tmp_path / "moved")
        outputs.write_text("a file where the folder should be")
        assert error_of(await worker.run(job("two", seed=6)))["code"] == "storage_failed"
        outputs.unlink()
        retried = await worker.run(job("two", seed=6))
    assert retried["timings"]["denoise_ms"] == 0


@pytest.mark.parametrize("cache", [True, False])
async def test_what_is_too_large_for_the_platform_comes_by_links_where_there_is_a_bucket(
    warm: tuple[FluxModelManager, GpuThread], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: bool
) -> None:
    models, gpu = warm
    settings = Settings.from_environment({"OUTPUT_DIR": str(tmp_path / "outputs"), "MODEL_VOLUME": str(tmp_path)})
    asked = job(seed=11, num_images=2, output_format="png", response_format="b64_json", cache=cache)
    async with a_worker(settings, tmp_path, is_local=True, models=models, gpu=gpu) as worker:
        inline = await worker.run(asked)
        monkeypatch.setattr("flux_engine.results.limit.RUN_LIMIT_BYTES", 40_000)
        linked = await worker.run(asked)
        open_format = await worker.run(job(seed=11, num_images=2, response_format="b64_json", cache=cache))
    assert (inline["warnings"], linked["cached"]) == ([], cache)
    assert linked["parameters"]["response_format"] == "url"
    assert "links came instead" in linked["warnings"][0]
    files = [Path(unquote(urlsplit(image["url"]).path)).read_bytes() for image in linked["images"]]
    assert files == pictures(inline)
    assert [image["content_type"] for image in open_format["images"]] == ["image/jpeg"] * 2  # which fit


async def test_the_same_job_again_is_a_hit_that_says_so(worker: Worker) -> None:
    first = await worker.run(job("one", seed=9, cache=True))
    again = await worker.run(job("two", seed=9, cache=True, metadata={"try": 2}))
    assert (first["cached"], again["cached"]) == (False, True)
    assert pictures(first) == pictures(again)
    assert again["timings"]["denoise_ms"] == 0
    assert again["usage"] == {"work": 0, "gpu_seconds": 0.0}
    assert again["metadata"] == {"try": 2}
    other = await worker.run(job("three", seed=10, cache=True))
    assert not other["cached"]


async def test_one_lora_or_picture_by_another_name_is_the_same_file(worker: Worker, tmp_path: Path) -> None:
    folder = tmp_path / "volume" / "loras"
    folder.mkdir(parents=True)
    shutil.copy(SHIPPED_LORA, folder / "unreleased-product.safetensors")
    inline = base64.b64encode(SHIPPED_LORA.read_bytes()).decode()
    picture = base64.b64encode(a_picture()).decode()
    one = await worker.run(job(seed=3, loras=["unreleased-product"], image=picture, strength=0.5))
    other = await worker.run(job(seed=3, loras=[inline], image=f"data:image/png;base64,{picture}", strength=0.5))
    assert pictures(one) == pictures(other)
    said = json.loads(Image.open(io.BytesIO(pictures(one)[0])).info["parameters"])
    assert said["loras"] == [{"sha256": hashlib.sha256(SHIPPED_LORA.read_bytes()).hexdigest(), "scale": 1.0}]
    assert said["image"] == hashlib.sha256(a_picture()).hexdigest()


async def test_twins_at_once_are_made_once(worker: Worker) -> None:
    updates: list[Update] = []

    async def send(update: Update) -> None:
        updates.append(update)

    twins = [job(f"twin-{i}", seed=11, cache=True, num_inference_steps=20) for i in range(4)]
    results = await asyncio.gather(worker.run(twins[0]), *(worker.run(twin, send) for twin in twins[1:]))
    assert sorted(result["cached"] for result in results) == [False, True, True, True]
    assert len({pictures(result)[0] for result in results}) == 1
    assert updates


def a_picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(buffer, "PNG")
    return buffer.getvalue()


async def run_alone(settings: Settings, folder: Path, raw: dict[str, Any]) -> dict[str, Any]:
    async with a_worker(settings, folder) as worker:
        return await worker.run(raw)


@asynccontextmanager
async def a_worker(settings: Settings, folder: Path, **parts: Any) -> AsyncIterator[Worker]:
    """A worker of one test, closed at its end."""
    worker = build_worker(settings, **{"is_local": False, "cache_folder": folder / "cache", **parts})
    yield worker
    await worker.close()
