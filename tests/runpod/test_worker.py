"""The real handler, in processes of its own, against the stand-in: what the platform asks of a worker, line by line.

One worker with the bundled model serves most tests of this file, over connections that the platform closes after a
second of silence.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import psutil
import pytest
import pytest_asyncio

from flux_engine.job.base import derived_seed
from flux_engine.results.limit import RUN_LIMIT_BYTES, RUNSYNC_LIMIT_BYTES
from local_platform.endpoint import PATIENCE_S
from local_platform.faults import FaultKind, FaultPlan
from local_platform.job import Job, Limits, Status
from local_platform.processes import REPOSITORY
from local_platform.server import Platform
from tests.runpod.live import (
    IN_HAND,
    LONG,
    REFUSED,
    SLOW_S,
    SUN,
    Live,
    error,
    last_step,
    output,
    picture,
    updates,
)
from tests.runpod.pool import LoggedPool

pytestmark = pytest.mark.asyncio(loop_scope="module")

STAGES = ["queued", "loading", "lora", "text", "denoising", "decoding", "encoding", "uploading"]


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="live")
async def _live() -> AsyncIterator[Live]:
    limits = Limits(lease_s=600, execution_timeout_s=3_600)  # a stall is no failure
    async with Platform(limits=limits, keepalive_s=1, poll_s=60, faults=FaultPlan(slow_s=SLOW_S)) as platform:
        async with LoggedPool(platform) as pool:
            await pool.start()
            yield Live(platform, pool)
            for worker in pool.workers:
                worker.terminate()
                await worker.wait()  # whatever it had to post has arrived
            late = [job.id for job in platform.endpoint.queue.jobs if job.events_of("late_progress")]
            assert late == [], "progress arrived after the result of these jobs"


# ---------------------------------------------------------------------------------------------- results


async def test_a_picture_by_run_and_by_runsync(live: Live) -> None:
    one, other = await live.run(SUN), await live.run(SUN, is_sync=True)
    assert output(one)["parameters"]["seed"] == 7
    assert picture(one) == picture(other)


async def test_a_refusal_tells_the_client_what_to_do_and_nothing_else(live: Live) -> None:
    job = await live.run(REFUSED)
    told = error(job)
    assert set(told) == {"code", "message", "field", "retryable", "job_id"}
    assert (told["code"], told["field"], told["job_id"]) == ("invalid_input", "width", job.id)
    assert "output" not in job.result


@pytest.mark.parametrize("job_input", ["text", 7, [], {}, {"prompt": None}])
async def test_any_input_ends_in_one_answer(live: Live, job_input: Any) -> None:
    assert error(await live.run(job_input))["code"] == "invalid_input"


async def test_a_lone_surrogate_in_the_prompt_is_dropped(live: Live) -> None:
    assert output(await live.run({**SUN, "prompt": "a red \ud800sun"}))["parameters"]["prompt"] == "a red sun"


async def test_a_lone_surrogate_in_metadata_costs_no_picture(live: Live) -> None:
    job = await live.run({**SUN, "metadata": {"note": "one \ud800sun"}})
    picture(job)
    assert output(job)["metadata"] == {"note": "one sun"}


async def test_the_limits_are_the_platform_s() -> None:
    assert Limits().run_max_bytes >= RUN_LIMIT_BYTES
    assert Limits().runsync_max_bytes >= RUNSYNC_LIMIT_BYTES


# --------------------------------------------------------------------------------------------- delivery


@pytest.mark.parametrize(
    "kind",
    [
        *("500", "503", "408", "429", "reset", "lost_answer", "close", "slow"),
    ],
)
async def test_a_result_gets_through(live: Live, kind: FaultKind) -> None:
    live.platform.faults.script("job-done", kind)  # a refusal posts no progress: the next post is the result
    job_id = live.submit(REFUSED)
    following = live.submit(REFUSED)
    await live.result(following)
    job = live.platform.endpoint.cancel(job_id)  # one whose result was lost must not come back in another test
    assert error(job)["code"] == "invalid_input"
    assert job.attempts == 1


async def test_trouble_with_takes_and_stops_is_waited_out(live: Live) -> None:
    live.platform.faults.script("job-take", "500", "reset", "slow", "close")
    live.platform.faults.script("job-stop", "500", "reset")
    live.platform.faults.script("ping", "500", "reset")
    assert error(await live.run(REFUSED))["code"] == "invalid_input"


# --------------------------------------------------------------------------------------------- progress


async def shown(live: Live, shows: Callable[[Job], bool], **fields: Any) -> Job:
    """A finished job that `shows` it, of some that are each longer than the last: however quick this machine is."""
    for longer in ({}, {"num_images": 4}, {"num_images": 4, "negative_prompt": "a sun", "true_cfg_scale": 2}):
        job = await live.run({**LONG, **longer, **fields})
        output(job)
        if shows(job):
            return job
    raise AssertionError(f"not shown by {updates(job)}")


async def test_progress_as_a_client_sees_it(live: Live) -> None:
    job = await shown(live, lambda job: "denoising" in (update["stage"] for update in updates(job)))
    told = updates(job)
    stages = [update["stage"] for update in told]
    assert [update["seq"] for update in told] == list(range(1, len(told) + 1))
    assert stages == sorted(stages, key=STAGES.index)
    assert "queued" in stages
    shares = [update["progress"] for update in told]
    assert shares == sorted(shares)
    assert 0 <= shares[0] <= shares[-1] < 1
    assert job.started_at is not None
    assert job.finished_at is not None
    for count in Counter(stages).values():
        assert count <= job.finished_at - job.started_at + 1  # one a second


async def test_previews_arrive(live: Live) -> None:
    job = await shown(live, lambda job: any("preview" in update for update in updates(job)), preview=True)
    previews = [update["preview"] for update in updates(job) if "preview" in update]
    assert all(preview.startswith("data:image/webp;base64,") for preview in previews)


async def test_progress_that_does_not_get_through_costs_nothing(live: Live) -> None:
    undisturbed = picture(await live.run(SUN))
    live.platform.faults.script("job-done", "reset", "500", "429", "slow")
    assert picture(await live.run(SUN)) == undisturbed


# ----------------------------------------------------------------------------------------- cancellation


async def test_a_cancelled_job_frees_the_gpu_and_leaves_no_trace(live: Live) -> None:
    undisturbed = picture(await live.run(SUN))
    cpu = psutil.Process(live.worker.pid).cpu_times  # whose time goes on in no stall
    began = cpu().user
    cancelled = live.submit({**LONG, "num_images": 4})
    following = live.submit(SUN)
    await live.until_step(cancelled, 2)
    steps, cancelled_at = last_step(live.job(cancelled)), cpu().user
    live.platform.endpoint.cancel(cancelled)
    assert picture(await live.result(following)) == undisturbed
    assert cpu().user - cancelled_at < 100 * (cancelled_at - began) / steps  # of about 200 steps that were left
    assert live.job(cancelled).status is Status.CANCELLED
    assert live.job(cancelled).events_of("late_result") == []
    assert "never retrieved" not in live.worker.text


# ------------------------------------------------------------------------------- heartbeats and freezing


async def test_heartbeats_go_on_while_the_gpu_works(live: Live) -> None:
    """They alone renew a job's lease."""

    def is_renewed(job: Job) -> bool:
        assert job.started_at is not None
        return job.lease_until > job.started_at + live.platform.endpoint.queue.limits.lease_s

    assert (await shown(live, is_renewed)).attempts == 1


async def test_a_frozen_worker_takes_up_its_work_when_it_wakes(live: Live) -> None:
    await live.until_asking()
    live.worker.freeze()
    job_id = live.submit(SUN)
    await live.platform.endpoint.until(lambda: live.job(job_id).worker is not None)  # sent, and not read
    live.worker.thaw()
    assert picture(await live.result(job_id)) == picture(await live.run(SUN))


async def test_nothing_confidential_is_printed(live: Live) -> None:
    await live.run({**SUN, "prompt": "a confidential sun"})
    assert "confidential" not in live.worker.text
    assert "b64_json" not in live.worker.text


async def test_importing_the_handler_starts_nothing() -> None:
    look = "import handler, sys, threading; print(threading.active_count(), 'torch' in sys.modules)"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", look), cwd=REPOSITORY, stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await process.communicate()
    assert printed.split() == [b"1", b"False"]


# --------------------------------------------------------------------------------------- ends of workers


async def test_a_killed_worker_s_job_gives_the_same_picture_elsewhere(live: Live) -> None:
    job_input = {"prompt": SUN["prompt"], "num_inference_steps": 6, "cache": False}
    job_id = live.platform.endpoint.new_job_id(is_sync=False)
    expected = picture(await live.run({**job_input, "seed": derived_seed(job_id)}))
    live.platform.endpoint.queue.submit(job_id, {"input": job_input}, now=live.platform.endpoint.now())
    live.platform.endpoint.changed()
    await live.platform.endpoint.until(lambda: live.job(job_id).worker is not None)
    await live.pool.replace(live.worker)
    live.platform.endpoint.queue.expire(now=live.job(job_id).lease_until)
    job = await live.result(job_id)
    assert (job.attempts, picture(job)) == (2, expected)


async def test_sigterm_delivers_the_job_in_hand_and_loses_none(live: Live) -> None:
    in_hand = live.submit(IN_HAND)
    await live.until_stage(in_hand, "denoising")
    old = live.worker
    old.terminate()
    later = live.submit(REFUSED)
    output(await live.result(in_hand))
    assert await old.wait(timeout_s=PATIENCE_S) == 0
    await live.pool.start()
    assert error(await live.result(later))["code"] == "invalid_input"


async def test_an_idle_worker_ends_promptly_on_sigterm(live: Live) -> None:
    (worker,) = await live.pool.start()
    worker.terminate()
    assert await worker.wait(timeout_s=30) == 0  # its take would be held for a minute
