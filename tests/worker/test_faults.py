"""A job with one fault in it, at each of its calls in turn and in each way: what may come of it, and what may not."""

from __future__ import annotations

import io
import itertools
import shutil
from pathlib import Path

import pytest
from PIL import Image

from flux_engine.generate.gpu import GpuThread
from flux_engine.models.manager import FluxModelManager
from tests.servers import RedisProcess
from tests.web_server import own_certificate
from tests.worker.faults.claims import Sound, check_fault, sound_run
from tests.worker.faults.jobs import CASES, LORA_PATH, PICTURE_PATH, Case
from tests.worker.faults.plan import WAYS, Fault
from tests.worker.faults.site import Parts

APART = 11
SHIPPED_LORA = Path(__file__).parents[2] / "examples" / "loras" / "mosaic.safetensors"


@pytest.fixture(name="parts")
def _parts(warm: tuple[FluxModelManager, GpuThread], redis: RedisProcess, tmp_path: Path) -> Parts:
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(picture, "PNG")
    return Parts(
        models=warm[0],
        gpu=warm[1],
        redis=redis,
        tls=own_certificate(tmp_path, "files.example"),
        files={PICTURE_PATH: picture.getvalue(), LORA_PATH: SHIPPED_LORA.read_bytes()},
        lora=SHIPPED_LORA,
    )


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_each_call_fails_in_each_way(parts: Parts, tmp_path: Path, case: Case) -> None:
    sound = await sound_run(parts, tmp_path / "sound", case)
    await check_all(parts, tmp_path, case, faults_of(sound), sound)


async def test_some_calls_fail_in_some_ways(parts: Parts, tmp_path: Path) -> None:
    """One of those above for each job, each time further on in their order."""
    for place, case in enumerate(CASES):
        sound = await sound_run(parts, tmp_path / f"sound-{place}", case)
        faults = faults_of(sound)
        await check_all(parts, tmp_path, case, [faults[place * APART % len(faults)]], sound)


def faults_of(sound: Sound) -> list[Fault]:
    return [
        Fault(seam, number, way)
        for seam, count in sorted(sound.counted.items())
        for way, number in itertools.product(WAYS[seam], range(1, count + 1))
    ]


async def check_all(parts: Parts, folder: Path, case: Case, faults: list[Fault], sound: Sound) -> None:
    failed: list[str] = []
    for fault in faults:
        try:
            await check_fault(parts, folder / "faulty", case, fault, sound)
        except AssertionError as error:
            failed.append(f"{case.name}, {fault}: {error}")
        shutil.rmtree(folder / "faulty", ignore_errors=True)
    assert not failed, "\n".join(failed)
