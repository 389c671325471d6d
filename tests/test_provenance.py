"""PROVENANCE from the setting to the client's bytes: pictures, films, thumbnails, previews, hits and retries."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import pytest

from flux_engine.build import build_worker
from flux_engine.generate.gpu import GpuThread
from flux_engine.media.marks.manifest import NO_MANIFEST
from flux_engine.media.marks.statement import VOCABULARY
from flux_engine.models.manager import FluxModelManager
from flux_engine.progress import Update
from flux_engine.settings import Settings, SettingsError
from flux_engine.worker.worker import Worker
from tests.media.marks.certificates import issued, key_pem
from tests.media.marks.samples import picture, pixels
from tests.media.marks.test_manifest import KEY, OTHER, actions, read
from tests.servers import RedisProcess, S3Process, fetched

MADE = f"{VOCABULARY}trainedAlgorithmicMedia".encode()
COMPOSITE = f"{VOCABULARY}compositeWithTrainedAlgorithmicMedia".encode()
QUICK = {"prompt": "a red sun", "num_inference_steps": 1, "width": 64, "height": 64, "seed": 7}
FILM = {**QUICK, "type": "video", "num_frames": 2, "fps": 4}

Warm = tuple[FluxModelManager, GpuThread]


def worker_with(warm: Warm, folder: Path, **variables: str) -> Worker:
    """A worker; those of one folder share cache and volume."""
    (folder / "volume").mkdir(exist_ok=True)
    settings = Settings.from_environment({"MODEL_VOLUME": str(folder / "volume"), **variables})
    models, gpu = warm
    return build_worker(settings, is_local=False, cache_folder=folder / "cache", models=models, gpu=gpu)


def bucket(s3: S3Process) -> dict[str, str]:
    return {
        "BUCKET_ENDPOINT_URL": s3.url,
        "BUCKET_NAME": "pictures",
        "BUCKET_ACCESS_KEY_ID": "key",
        "BUCKET_SECRET_ACCESS_KEY": "secret",
    }


def files(result: dict[str, Any]) -> list[bytes]:
    """The files of a result, each as the result describes it."""
    assert "error" not in result, result
    described = result["images"] if "images" in result else [result["video"]]
    data = [base64.b64decode(file["b64_json"]) if "b64_json" in file else fetched(file["url"])[1] for file in described]
    for file, each in zip(described, data, strict=True):
        assert (file["sha256"], file["bytes"]) == (hashlib.sha256(each).hexdigest(), len(each))
    if "thumbnail" in result:
        thumbnail = result["thumbnail"]
        data.append(
            base64.b64decode(thumbnail["b64_json"]) if "b64_json" in thumbnail else fetched(thumbnail["url"])[1]
        )
    return data


@pytest.mark.parametrize(
    ("fields", "mark"),
    [
        (QUICK, MADE),
        ({**QUICK, "output_format": "jpg"}, MADE),
        ({**QUICK, "image": base64.b64encode(picture("png")).decode(), "strength": 0.9}, COMPOSITE),
        ({**FILM, "output_format": "webp"}, MADE),
        ({**FILM, "output_format": "mp4"}, MADE),
    ],
    ids=["png", "jpg", "edited", "animation", "film"],
)
async def test_marks_are_on_by_default(worker: Worker, fields: dict[str, Any], mark: bytes) -> None:
    for data in files(await worker.run({"id": "one", "input": fields})):
        assert mark in data


async def test_off_leaves_none(warm: Warm, tmp_path: Path) -> None:
    worker = worker_with(warm, tmp_path, PROVENANCE="off")
    updates: list[Update] = []

    async def send(update: Update) -> None:
        updates.append(update)

    fields = {**QUICK, "num_inference_steps": 4, "preview": True}
    result = await worker.run({"id": "one", "input": fields}, send, min_interval_s=0.0)
    assert VOCABULARY.encode() not in files(result)[0]
    previews = [base64.b64decode(u["preview"].partition(",")[2]) for u in updates if "preview" in u]
    assert previews
    assert not any(VOCABULARY.encode() in preview for preview in previews)
    await worker.close()


async def test_previews_are_marked(worker: Worker) -> None:
    updates: list[Update] = []

    async def send(update: Update) -> None:
        updates.append(update)

    for fields in ({**QUICK, "num_inference_steps": 4}, FILM):
        await worker.run({"id": "one", "input": {**fields, "preview": True}}, send, min_interval_s=0.0)
        previews = [base64.b64decode(u["preview"].partition(",")[2]) for u in updates if "preview" in u]
        assert previews
        assert all(MADE in preview for preview in previews)
        updates.clear()


@pytest.mark.parametrize("output_format", ["png", "jpg", "webp", "mp4", "webm", "gif"])
async def test_a_hit_with_another_setting_is_marked_anew_and_generates_nothing(
    warm: Warm, tmp_path: Path, output_format: str
) -> None:
    fields = {**(QUICK if output_format in ("png", "jpg", "webp") else FILM), "output_format": output_format}
    made: list[bytes] | None = None
    by_setting: dict[str, list[bytes]] = {}
    for setting in ("marks", "off", "marks", "off"):
        worker = worker_with(warm, tmp_path, PROVENANCE=setting)
        result = await worker.run({"id": setting, "input": fields})
        data = files(result)
        assert result["cached"] is (made is not None)
        assert (result["usage"]["work"] > 0) is (made is None)
        assert all((MADE in each) is (setting == "marks") for each in data)
        shown = [pixels(each, f"x.{'webp' if i else output_format}") for i, each in enumerate(data)]
        assert shown == (made := made or shown)
        assert by_setting.setdefault(setting, data) == data
        again = await worker.run({"id": "again", "input": fields})
        assert (again["cached"], files(again)) == (True, data)
        await worker.close()


async def test_a_bucket_gets_the_files_as_they_are_marked_now(
    warm: Warm, tmp_path: Path, s3: S3Process, redis: RedisProcess
) -> None:
    shared = {**bucket(s3), "REDIS_URL": redis.url}
    for setting, is_cached in (("off", False), ("marks", True), ("marks", True)):
        worker = worker_with(warm, tmp_path, PROVENANCE=setting, **shared)
        result = await worker.run({"id": setting, "input": FILM})
        assert result["cached"] is is_cached
        assert all((MADE in each) is (setting == "marks") for each in files(result))
        await worker.close()


async def test_a_result_that_waits_for_its_retry_is_marked_as_the_retry_marks(
    warm: Warm, tmp_path: Path, s3: S3Process
) -> None:
    """The store fails, the setting changes, the job comes again."""
    fields = {"id": "retried", "input": {**QUICK, "response_format": "url"}}
    broken = bucket(s3) | {"BUCKET_NAME": "no-such-bucket"}
    worker = worker_with(warm, tmp_path, PROVENANCE="off", **broken)
    assert "storage_failed" in (await worker.run(fields))["error"]
    await worker.close()
    worker = worker_with(warm, tmp_path, **bucket(s3))
    result = await worker.run(fields)
    assert (result["cached"], result["usage"]["work"]) == (False, 0)
    assert MADE in files(result)[0]
    await worker.close()


async def test_a_hit_is_signed_without_generating(warm: Warm, tmp_path: Path) -> None:
    given = {**QUICK, "image": base64.b64encode(picture("png")).decode(), "strength": 0.9}
    for i, fields in enumerate((QUICK, given)):
        plain = worker_with(warm, tmp_path)
        first = files(await plain.run({"id": "plain", "input": fields}))
        await plain.close()
        signing = worker_with(warm, tmp_path, PROVENANCE="c2pa")
        result = await signing.run({"id": "signed", "input": fields})
        assert (result["cached"], result["usage"]["work"]) == (True, 0)
        (data,) = files(result)
        assert pixels(data, "x.png") == pixels(first[0], "x.png")
        said = read(data, "x.png")
        assert said["validation_state"] == "Valid"
        assert [action["action"] for action in actions(said)] == [["c2pa.created"], ["c2pa.opened", "c2pa.edited"]][i]
        again = await signing.run({"id": "again", "input": fields})
        assert (again["cached"], files(again)) == (True, [data])
        await signing.close()


async def test_a_signed_film_has_a_marked_thumbnail(warm: Warm, tmp_path: Path) -> None:
    worker = worker_with(warm, tmp_path, PROVENANCE="c2pa")
    film, thumbnail = files(await worker.run({"id": "film", "input": FILM}))
    assert read(film, "x.mp4")["validation_state"] == read(thumbnail, "x.webp")["validation_state"] == "Valid"
    result = await worker.run({"id": "film", "input": {**FILM, "output_format": "webm"}})
    assert NO_MANIFEST in result["warnings"]
    assert MADE in files(result)[0]
    await worker.close()


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"C2PA_CERTIFICATES": "/no/such/file", "C2PA_PRIVATE_KEY": "/no/such/file"}, "cannot be read"),
        ({"C2PA_CERTIFICATES": issued(KEY), "C2PA_PRIVATE_KEY": key_pem(OTHER)}, "does not belong"),
        ({"C2PA_CERTIFICATES": issued(KEY, use=None), "C2PA_PRIVATE_KEY": key_pem(KEY)}, "C2PA refuses"),
        ({"C2PA_CERTIFICATES": issued(KEY)}, "must both be set"),
        ({"C2PA_CERTIFICATES": "x\ny", "C2PA_PRIVATE_KEY": key_pem(KEY)}, "PEM text"),
        ({"C2PA_ALGORITHM": "rs256"}, "C2PA_ALGORITHM"),
        ({"C2PA_TIMESTAMP_URL": "tsa"}, "C2PA_TIMESTAMP_URL"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_certificate_stops_the_worker_at_start(
    warm: Warm, tmp_path: Path, variables: dict[str, str], says: str
) -> None:
    with pytest.raises(SettingsError, match=says) as refused:
        worker_with(warm, tmp_path, PROVENANCE="c2pa", **variables)
    assert "C2PA" in str(refused.value)
    assert not any(secret[40:80] in str(refused.value) for secret in (key_pem(KEY), key_pem(OTHER)))


async def test_an_operators_certificate_comes_as_text_or_as_files(warm: Warm, tmp_path: Path) -> None:
    (tmp_path / "chain.pem").write_text(issued(KEY))
    (tmp_path / "key.pem").write_text(key_pem(KEY))
    for certificates, key in (
        (str(tmp_path / "chain.pem"), str(tmp_path / "key.pem")),
        (issued(KEY).replace("\n", "\\n"), f"  {key_pem(KEY)}  "),
    ):
        worker = worker_with(warm, tmp_path, PROVENANCE="C2PA", C2PA_CERTIFICATES=certificates, C2PA_PRIVATE_KEY=key)
        (data,) = files(await worker.run({"id": "one", "input": QUICK}))
        assert read(data, "x.png")["manifests"].popitem()[1]["signature_info"]["issuer"] == "A Publisher"
        await worker.close()
