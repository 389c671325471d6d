"""How workers end: by SIGTERM, by a job past its time, by a lost device, each on a platform of its own."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest

from local_platform.endpoint import PATIENCE_S
from local_platform.faults import FaultPlan
from local_platform.job import Limits, Status
from local_platform.processes import REPOSITORY
from local_platform.server import Platform
from tests.runpod.live import IN_HAND, LEASE_S, LONG, REFUSED, SLOW_S, SUN, Live, error, output, picture
from tests.runpod.pool import LoggedPool

GRACE_S = 60.0


async def test_a_missing_default_model_costs_no_job_for_another(tmp_path: Path) -> None:
    environment = {"FLUX_MODEL": "FLUX.1-schnell", "MODEL_VOLUME": str(tmp_path)}
    async with Platform() as platform, LoggedPool(platform, environment=environment) as pool:
        (worker,) = await pool.start()
        live = Live(platform, pool)
        missing = error(await live.run({"prompt": "a sun"}))
        assert (missing["code"], missing["retryable"]) == ("model_unavailable", False)
        picture(await live.run({**SUN, "model": "flux-tiny"}))
        assert "the default model is missing" in worker.text


async def test_at_sigterm_every_job_that_was_taken_is_delivered_and_no_other_is_taken() -> None:
    """With two jobs in flight, one of them waiting behind the other for the GPU."""
    async with Platform() as platform, LoggedPool(platform, environment={"WORKER_CONCURRENCY": "2"}) as pool:
        (worker,) = await pool.start()
        live = Live(platform, pool)
        running, waiting = live.submit(IN_HAND), live.submit(SUN)
        await live.until_stage(running, "denoising")
        await platform.endpoint.until(lambda: live.job(waiting).worker is not None)
        assert not live.job(waiting).status.is_final
        worker.terminate()
        later = live.submit(REFUSED)
        output(await live.result(running))
        picture(await live.result(waiting))
        assert await worker.wait(timeout_s=PATIENCE_S) == 0
        assert live.job(later).worker is None


async def test_a_job_that_arrives_with_sigterm_is_not_stranded_in_the_second_slot() -> None:
    """The second slot waits for a job when SIGTERM comes: what is handed over then is answered, or never taken."""
    async with Platform(limits=Limits(lease_s=LEASE_S)) as platform:
        async with LoggedPool(platform, environment={"WORKER_CONCURRENCY": "2"}) as pool:
            (worker,) = await pool.start()
            live = Live(platform, pool)
            in_hand = live.submit(IN_HAND)
            await live.until_stage(in_hand, "denoising")
            later = live.submit(REFUSED)
            worker.terminate()
            output(await live.result(in_hand))
            assert await worker.wait(timeout_s=PATIENCE_S) == 0
            await pool.start()
            assert error(await live.result(later))["code"] == "invalid_input"


async def test_a_job_past_its_time_costs_its_worker_and_no_other_job() -> None:
    async with Platform(limits=Limits(lease_s=LEASE_S)) as platform, LoggedPool(platform, stop_grace_s=GRACE_S) as pool:
        (worker,) = await pool.start()
        live = Live(platform, pool)
        picture(await live.run(SUN))
        late = platform.endpoint.submit({"input": {**LONG, "num_images": 4}}, execution_timeout_s=2).id
        following = live.submit(REFUSED)
        assert (await live.result(late)).status is Status.TIMED_OUT
        assert await worker.wait(timeout_s=PATIENCE_S) == 0  # within the grace
        await pool.start()
        assert error(await live.result(following))["code"] == "invalid_input"
        assert live.job(late).events_of("late_result") == []


@pytest.mark.parametrize(
    ("concurrency", "stop_grace_s"),
    [pytest.param(1, GRACE_S, marks=pytest.mark.slow), (2, GRACE_S), pytest.param(2, None, marks=pytest.mark.slow)],
)
async def test_a_lost_device_is_told_and_takes_no_further_job(concurrency: int, stop_grace_s: float | None) -> None:
    """The worker ends by itself, and a job that arrives before the platform knows of the loss is answered all the same:
    it stays in the queue, or comes back to it."""
    lost = (sys.executable, "-u", str(REPOSITORY / "tests" / "runpod" / "handlers" / "broken_device.py"))
    waiting: list[str] = []

    def at_the_loss(_worker: str, line: str) -> None:
        if "device broken" in line and not waiting:
            platform.faults.script("job-done", "slow", "slow")
            waiting.append(platform.endpoint.submit({"input": REFUSED}).id)

    async with Platform(limits=Limits(lease_s=LEASE_S), faults=FaultPlan(slow_s=SLOW_S)) as platform:
        environment = {"WORKER_CONCURRENCY": str(concurrency)}
        async with LoggedPool(
            platform, command=lost, environment=environment, on_line=at_the_loss, stop_grace_s=stop_grace_s
        ) as pool:
            (worker,) = await pool.start()
            job = platform.endpoint.submit({"input": SUN})
            told = error(await platform.endpoint.finished(job.id))
            assert (told["code"], told["retryable"]) == ("internal", True)
            assert "another worker" in told["message"]
            assert "AcceleratorError" not in json.dumps(told)
            status = await worker.wait(timeout_s=PATIENCE_S)
            assert status == 1 or (stop_grace_s is not None and status == -signal.SIGTERM)  # that may strike at the end
            seen = platform.endpoint.worker(worker.id)
            assert seen is not None
            assert seen.is_to_stop
            await pool.start()
            refused = await platform.endpoint.finished(waiting[0])
            assert error(refused)["code"] == "invalid_input"
