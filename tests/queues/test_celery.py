"""Jobs on Celery, with real workers in processes of their own."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from flux_engine.queues.celery import CeleryQueue
from flux_engine.queues.celery_settings import CelerySettings
from flux_engine.queues.job_queue import QueueAway, QueuedJob, Report
from tests import waiting
from tests.servers import RedisProcess

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
QUICK = {"prompt": "a red sun over a lake", "num_inference_steps": 2, "width": 128, "height": 128, "seed": 3}
# Many times a second on any machine: progress is told once a second.
LONG = {**QUICK, "width": 512, "height": 512, "num_inference_steps": 50, "num_images": 4, "cache": False}


class Endpoint:
    """A broker, and workers started on demand; `environment` is what gateway and workers share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "redis").mkdir()
        self.redis = RedisProcess(folder / "redis")
        self.redis.start()
        self.environment = {
            "REDIS_URL": self.redis.url,
            "CELERY_FOLDER": str(folder / "parcels"),
            "CELERY_LEASE_SECONDS": "5",
            "MODEL_VOLUME": str(folder / "volume"),
            "CELERY_HEALTH_PORT": "0",
        }
        self.workers: list[subprocess.Popen[bytes]] = []

    def start_worker(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "celery", "-A", "flux_engine.queues.celery_worker", "worker"]
        command += ["--pool", "threads", "--concurrency", "1", "--without-gossip", "--without-mingle"]
        environment = os.environ | self.environment | {"PYTHONWARNINGS": "ignore"}
        with (self._folder / f"worker-{len(self.workers)}.log").open("wb") as output:
            worker = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
            )
        self.workers.append(worker)
        return worker

    def live_worker(self) -> subprocess.Popen[bytes]:
        """The one that runs, started where there is none."""
        running = [worker for worker in self.workers if worker.poll() is None]
        return running[0] if running else self.start_worker()

    def close(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                os.killpg(worker.pid, signal.SIGKILL)
                worker.wait()
        self.redis.kill()


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    made = Endpoint(tmp_path_factory.mktemp("celery"))
    yield made
    made.close()


@pytest.fixture
async def queue(endpoint: Endpoint) -> AsyncIterator[CeleryQueue]:
    made = CeleryQueue(CelerySettings.from_environment(endpoint.environment))
    yield made
    await made.close()


async def until(queue: CeleryQueue, ticket: str, is_so: Callable[[Report], bool]) -> Report:
    while not is_so(report := await queue.status(ticket)):  # noqa: ASYNC110  (the seam is asked, it does not call)
        await asyncio.sleep(0.05)
    return report


def has_ended(report: Report) -> bool:
    return report.state not in ("queued", "running")


def is_painting(report: Report) -> bool:
    return has_ended(report) or bool(report.progress and report.progress.get("step"))


def picture(report: Report) -> bytes:
    assert report.output is not None, report
    return base64.b64decode(report.output["images"][0]["b64_json"])


async def test_a_picture_with_its_progress(endpoint: Endpoint, queue: CeleryQueue) -> None:
    endpoint.live_worker()
    ticket = await queue.submit(QueuedJob(id="first", input=QUICK))
    seen = await until(queue, ticket, lambda report: has_ended(report) or report.progress is not None)
    assert seen.progress is None or seen.progress["stage"] in ("queued", "loading", "text", "denoising")
    report = await until(queue, ticket, has_ended)
    assert report.state == "completed"
    assert Image.open(io.BytesIO(picture(report))).size == (128, 128)
    assert (await queue.health()).workers == {"idle": 1}


async def test_a_refusal_is_the_worker_s_own(endpoint: Endpoint, queue: CeleryQueue) -> None:
    endpoint.live_worker()
    ticket = await queue.submit(QueuedJob(id="bad", input={**QUICK, "num_inference_steps": 999}))
    report = await until(queue, ticket, has_ended)
    assert report.state == "failed"
    assert report.error is not None
    assert '"field": "num_inference_steps"' in report.error


async def test_a_cancelled_job_frees_its_worker_and_the_next_picture_is_the_same(
    endpoint: Endpoint, queue: CeleryQueue
) -> None:
    endpoint.live_worker()
    before = await until(queue, await queue.submit(QueuedJob(id="x", input={**QUICK, "cache": False})), has_ended)
    ticket = await queue.submit(QueuedJob(id="long", input=LONG))
    waiting = await queue.submit(QueuedJob(id="behind", input=LONG))
    await until(queue, ticket, is_painting)
    assert (await queue.cancel(waiting)).state == "cancelled"
    await queue.cancel(ticket)
    assert (await until(queue, ticket, has_ended)).state == "cancelled"
    after = await until(queue, await queue.submit(QueuedJob(id="x", input={**QUICK, "cache": False})), has_ended)
    assert picture(after) == picture(before)


async def test_a_picture_over_a_megabyte_goes_beside_the_message(endpoint: Endpoint, queue: CeleryQueue) -> None:
    endpoint.live_worker()
    noise = Image.frombytes("RGB", (700, 700), os.urandom(700 * 700 * 3))
    buffer = io.BytesIO()
    noise.save(buffer, "PNG")
    image = base64.b64encode(buffer.getvalue()).decode()
    ticket = await queue.submit(QueuedJob(id="big", input={**QUICK, "image": image, "strength": 0.5}))
    assert (await until(queue, ticket, has_ended)).state == "completed"


async def test_a_killed_worker_s_job_is_unknown_and_runs_again_elsewhere(
    endpoint: Endpoint, queue: CeleryQueue
) -> None:
    worker = endpoint.live_worker()
    ticket = await queue.submit(QueuedJob(id="killed", input=LONG))
    await until(queue, ticket, is_painting)
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    assert (await until(queue, ticket, lambda report: report.state != "running")).state == "unknown"
    endpoint.live_worker()
    again = await queue.submit(QueuedJob(id="killed", input=QUICK))
    assert (await until(queue, again, has_ended)).state == "completed"


async def test_sigterm_lets_the_job_in_hand_finish(endpoint: Endpoint, queue: CeleryQueue) -> None:
    worker = endpoint.live_worker()
    ticket = await queue.submit(QueuedJob(id="last", input={**LONG, "num_images": 1}))
    await until(queue, ticket, is_painting)
    worker.terminate()
    assert await asyncio.to_thread(worker.wait) == 0
    assert (await queue.status(ticket)).state == "completed"

    async def is_alone() -> bool:
        return (await queue.health()).workers == {}  # once a killed worker's word has lapsed too

    await waiting.until(is_alone)


async def test_a_broker_that_is_away_is_said(endpoint: Endpoint) -> None:
    queue = CeleryQueue(CelerySettings.from_environment({**endpoint.environment, "REDIS_URL": "redis://127.0.0.1:9/0"}))
    for call in (queue.submit(QueuedJob(id="a", input=QUICK)), queue.status("flux:0:a:b"), queue.health()):
        with pytest.raises(QueueAway, match="does not answer"):
            await call
    await queue.close()
