"""What a worker looks at before its first job: what ends it, and what it says in its log and works on."""

from __future__ import annotations

import logging
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web

from flux_engine.build import build_checks, try_own_bucket
from flux_engine.health import Unfit, cuda_in, cuda_of_torch, fitness_checks
from flux_engine.models.planning.device import Driver, read_driver
from flux_engine.models.served import ServedModels
from flux_engine.models.weights import BUNDLED_FOLDER
from flux_engine.settings import Settings, SettingsError
from tests.servers import ACCESS_KEY, SECRET_KEY, S3Process
from tests.web_server import server_thread


def run_checks(volume: Path, **environment: str) -> None:
    for check in build_checks(Settings.from_environment({"MODEL_VOLUME": str(volume), **environment})):
        check()


def run_on(
    folder: Path,
    *,
    driver: Callable[[], Driver | None] = lambda: None,
    torch_cuda: str | None = "13.0",
    min_free_bytes: int = 0,
) -> None:
    served = ServedModels(None, volume=folder, has_gpu=False)
    for check in fitness_checks(
        served,
        volume=folder,
        cache_folder=folder / "cache",
        driver=driver,
        torch_cuda=torch_cuda,
        min_free_bytes=min_free_bytes,
    ):
        check()


# ------------------------------------------------------------------------------ the volume and the model


def test_the_bundled_model_needs_no_volume(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run_checks(tmp_path / "not attached")
    assert caplog.messages == []


@pytest.mark.parametrize(("model", "is_told"), [("FLUX.1-dev", True), ("FLUX.2-dev", True), ("FLUX.1-schnell", False)])
def test_a_licence_that_asks_for_a_filter_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, model: str, is_told: bool
) -> None:
    run_checks(tmp_path, FLUX_MODEL=model)
    assert any(f"the licence of {model} asks for a content filter" in said for said in caplog.messages) is is_told


def test_a_model_on_the_volume_is_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copytree(BUNDLED_FOLDER, tmp_path / "my-model")
    run_checks(tmp_path, FLUX_MODEL="my-model")
    assert caplog.messages == []
    assert {path.name for path in tmp_path.iterdir()} == {"my-model"}


@pytest.mark.parametrize("model", ["FLUX.1-schnell", "owner/a-fine-tune"])
def test_a_missing_model_is_said_and_ends_no_worker(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, model: str
) -> None:
    run_checks(tmp_path, FLUX_MODEL=model)
    assert {record.levelname for record in caplog.records} == {"ERROR"}
    assert "the default model is missing" in caplog.text
    assert model in caplog.text


def test_the_way_to_get_a_missing_model_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run_checks(tmp_path, FLUX_MODEL="FLUX.1-schnell")
    assert "fetch_models.py" in caplog.text


def test_a_volume_that_is_a_file_stops_the_worker(tmp_path: Path) -> None:
    (tmp_path / "volume").write_text("")
    with pytest.raises(SettingsError, match="MODEL_VOLUME: must be a folder"):
        run_checks(tmp_path / "volume")


@pytest.mark.skipif(not os.path.ismount("/proc"), reason="a folder that root cannot write either")
def test_a_volume_that_cannot_be_written_is_said(caplog: pytest.LogCaptureFixture) -> None:
    run_checks(Path("/proc"))
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "MODEL_VOLUME cannot be written" in record.message


def test_a_volume_with_little_room_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checks = fitness_checks(
        ServedModels(None, volume=tmp_path, has_gpu=False),
        volume=tmp_path,
        cache_folder=tmp_path,
        min_free_bytes=2**62,
    )
    next(check for check in checks if check.__name__ == "volume_is_usable")()
    assert "MODEL_VOLUME has" in caplog.text


# ------------------------------------------------------------------------------------------------ the bucket


def bucket_environment(url: str) -> dict[str, str]:
    return {
        "BUCKET_ENDPOINT_URL": url,
        "BUCKET_ACCESS_KEY_ID": ACCESS_KEY,
        "BUCKET_SECRET_ACCESS_KEY": SECRET_KEY,
    }


def test_a_bucket_that_takes_an_object_is_fit(s3: S3Process, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run_checks(tmp_path, **bucket_environment(f"{s3.url}/pictures"))
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_bucket_that_refuses_ends_the_worker(s3: S3Process, tmp_path: Path) -> None:
    settings = Settings.from_environment({"MODEL_VOLUME": str(tmp_path), **bucket_environment(f"{s3.url}/missing")})
    with pytest.raises(Unfit, match="the bucket does not exist; correct BUCKET_NAME"):
        try_own_bucket(settings)


def test_a_bucket_that_does_not_answer_ends_no_worker_and_is_tried_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked = []

    def answer(request: web.Request) -> web.Response:
        asked.append(request.method)
        return web.Response(status=503)

    with server_thread(answer) as port:
        environment = {"MODEL_VOLUME": str(tmp_path), **bucket_environment(f"http://127.0.0.1:{port}/pictures")}
        checks = build_checks(Settings.from_environment(environment))
        checks[-1]()
        tries = len(asked)
        checks[-1]()
    assert tries == len(asked) == 3
    assert "bucket does not answer" in caplog.text


# --------------------------------------------------------------------------------- the machine's own faults


def test_a_full_disk_is_unfit(tmp_path: Path) -> None:
    with pytest.raises(Unfit, match=r"own disk has .* MiB left"):
        run_on(tmp_path, min_free_bytes=2**62)


@pytest.mark.parametrize(
    ("version", "torch_cuda", "is_fit"),
    [
        ("580.65.06", "13.0", True),
        ("590.12", "13.0", True),
        ("570.195.03", "13.0", False),
        ("570.195.03", "12.8", True),  # an image with a build for older drivers
        ("515.105", "12.6", False),
        ("570.195.03", None, True),  # torch without CUDA asks nothing of a driver
        (None, "13.0", True),
    ],
)
def test_the_driver_must_be_new_enough_for_torch(
    tmp_path: Path, version: str | None, torch_cuda: str | None, is_fit: bool
) -> None:
    told = None if version is None else Driver(version, (9, 0))
    if is_fit:
        run_on(tmp_path, driver=lambda: told, torch_cuda=torch_cuda)
        return
    with pytest.raises(Unfit, match=f"driver is {version} .* select CUDA {torch_cuda}"):
        run_on(tmp_path, driver=lambda: told, torch_cuda=torch_cuda)


@pytest.mark.parametrize(
    ("capability", "torch_cuda", "refusal"),
    [
        ((7, 5), "13.0", None),
        ((7, 0), "13.0", r"capability 7\.0 .* needs 7\.5"),  # V100
        ((6, 1), "13.2", r"capability 6\.1 .* needs 7\.5"),
        ((7, 0), "12.6", None),
        (None, "13.0", None),
    ],
)
def test_the_card_must_be_one_that_torch_has_code_for(
    tmp_path: Path, capability: tuple[int, int] | None, torch_cuda: str, refusal: str | None
) -> None:
    driver = Driver("590.12", capability)
    if refusal is None:
        run_on(tmp_path, driver=lambda: driver, torch_cuda=torch_cuda)
        return
    with pytest.raises(Unfit, match=refusal):
        run_on(tmp_path, driver=lambda: driver, torch_cuda=torch_cuda)


def test_a_driver_that_does_not_answer_is_unfit(tmp_path: Path) -> None:
    def dead() -> Driver:
        raise subprocess.CalledProcessError(9, "nvidia-smi")

    with pytest.raises(Unfit, match="does not answer"):
        run_on(tmp_path, driver=dead)


def test_the_driver_s_own_tool_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "nvidia0").touch()

    def answering(script: str) -> None:
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)

    answering("echo '570.195.03, 8.6'; echo '570.195.03, 7.0'")
    assert read_driver(tmp_path) == Driver("570.195.03", (8, 6))
    answering("echo '570.195.03, [N/A]'")
    assert read_driver(tmp_path) == Driver("570.195.03", None)
    answering("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18")
    with pytest.raises(subprocess.CalledProcessError):
        read_driver(tmp_path)
    assert read_driver(tmp_path / "no devices") is None


def test_torch_s_cuda_is_told_as_torch_tells_it() -> None:
    look = "import torch; print(torch.version.cuda)"
    told = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout.strip()
    assert str(cuda_of_torch()) == told


@pytest.mark.parametrize(
    ("lines", "cuda"),
    [
        ("__version__ = '2.13.0'\ncuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n", "13.0"),
        ("__all__ = ['cuda']\n__version__ = '2.6.0+cu126'\ncuda = '12.6'\n", "12.6"),
        ("cuda: Optional[str] = None\nhip: Optional[str] = '6.4'\n", None),
    ],
)
def test_torch_s_cuda_is_read_from_its_version_file(tmp_path: Path, lines: str, cuda: str | None) -> None:
    (tmp_path / "version.py").write_text(lines)
    assert cuda_in(tmp_path / "version.py") == cuda
