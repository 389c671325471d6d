"""What is laid over the SDK's loop, against the SDK itself; tests/runpod/ has the whole of it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

import pytest
from runpod.serverless.modules import rp_scale
from runpod.serverless.modules.worker_state import JobsProgress

from flux_engine.runpod_sdk import Deliveries, GracefulStop, Unprinted, wake_on_events


async def test_no_job_is_asked_for_once_the_end_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is given up at once may have been answered: that job would wait for its lease to run out."""
    asked: list[str] = []

    async def take() -> list[str]:
        asked.append("a job")
        await asyncio.sleep(0)
        return asked

    monkeypatch.setattr(rp_scale, "get_job", take)
    stop, in_hand = GracefulStop(), JobsProgress()
    assert stop.install()
    assert await rp_scale.get_job() == ["a job"]
    in_hand.add("in hand")  # which the end waits for
    try:
        stop.begin("a test")
        assert await rp_scale.get_job() is None
        assert asked == ["a job"]
        assert stop.concurrency(2) == 1
    finally:
        ending = asyncio.all_tasks() - {asyncio.current_task()}
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        in_hand.remove("in hand")


async def test_jobs_begin_and_follow_one_another_without_a_look_at_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the SDK's own looks would cost a tenth of a second or a whole one: 200 jobs would take minutes."""
    monkeypatch.setattr(rp_scale, "JobScaler", rp_scale.JobScaler)  # put back afterwards
    assert wake_on_events(2, Deliveries())
    waiting, done = [{"id": f"job-{number}", "input": {}} for number in range(200)], list[str]()
    all_done = asyncio.Event()

    async def take(_session: Any, count: int) -> list[dict[str, Any]]:
        if not waiting:
            await all_done.wait()
            scaler.kill_worker()
            return []
        taken, waiting[:] = waiting[:count], waiting[count:]
        return taken

    async def handle(_session: Any, _config: Any, job: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        done.append(job["id"])
        if len(done) == 200:
            all_done.set()

    scaler = rp_scale.JobScaler({"concurrency_modifier": lambda _: 2})
    scaler.jobs_handler = handle
    scaler.take_from_platform = take
    async with asyncio.timeout(30):
        await asyncio.gather(scaler.get_jobs(None), scaler.run_jobs(None))
    assert sorted(done) == sorted(f"job-{number}" for number in range(200))
    assert JobsProgress().get_job_count() == 0


async def test_a_job_is_taken_once_the_gpu_has_done_with_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """While that is delivered, and not earlier: an idle worker could begin it."""
    monkeypatch.setattr(rp_scale, "JobScaler", rp_scale.JobScaler)  # put back afterwards
    deliveries = Deliveries()
    assert wake_on_events(1, deliveries)
    told, asked_for = list[str](), list[int]()
    made = {name: asyncio.Event() for name in ("first", "second")}
    taken = {name: asyncio.Event() for name in ("first", "second", "nothing")}
    waiting: list[dict[str, Any]] = [{"id": name, "input": {}} for name in made]
    delivered = asyncio.Event()

    async def take(_session: Any, count: int) -> list[dict[str, Any]]:
        asked_for.append(count)
        if not waiting:
            taken["nothing"].set()
            await delivered.wait()
            scaler.kill_worker()
            return []
        job = waiting.pop(0)
        told.append(f"{job['id']} taken")
        taken[job["id"]].set()
        return [job]

    async def handle(_session: Any, _config: Any, job: dict[str, Any]) -> None:
        await made[job["id"]].wait()
        told.append(f"{job['id']} made")
        deliveries.begin(job["id"])
        await (taken["second"] if job["id"] == "first" else taken["nothing"]).wait()
        told.append(f"{job['id']} delivered")
        if job["id"] == "second":
            delivered.set()

    scaler = rp_scale.JobScaler({"concurrency_modifier": lambda _: 2})
    scaler.jobs_handler = handle
    scaler.take_from_platform = take
    async with asyncio.timeout(30), asyncio.TaskGroup() as loops:
        loops.create_task(scaler.get_jobs(None))
        loops.create_task(scaler.run_jobs(None))
        await taken["first"].wait()
        for _ in range(20):
            await asyncio.sleep(0)
        assert told == ["first taken"]
        made["first"].set()
        await taken["second"].wait()
        made["second"].set()
    assert told == [
        "first taken", "first made", "second taken", "first delivered", "second made", "second delivered"
    ]  # fmt: skip
    assert set(asked_for) == {1}
    assert len(deliveries) == 0


def test_a_result_is_not_written_out_for_a_log_that_nobody_reads() -> None:
    result = Unprinted({"images": [{"b64_json": "A" * 100}], "cached": True})
    assert f"{result}" == "<result with images, cached>"
    assert json.loads(json.dumps(result)) == {"images": [{"b64_json": "A" * 100}], "cached": True}


SDK_ALONE = """
import sys
from flux_engine.runpod_sdk import import_runpod

runpod = import_runpod()
print(len({name for name in sys.modules if name.partition(".")[0] in ("paramiko", "invoke", "nacl", "cpuinfo")}))
from runpod.cli.groups.ssh import functions
from runpod.serverless.utils import rp_debugger
print(functions.paramiko.RSAKey.__module__, rp_debugger.PROCESSOR)
import cpuinfo
print(hasattr(cpuinfo, "get_cpu_info_json"))
"""


def test_the_sdk_comes_without_what_a_worker_never_uses() -> None:
    """And what was left out comes when it is used."""
    done = subprocess.run((sys.executable, "-c", SDK_ALONE), capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["0", "paramiko.rsakey Unable to get processor info.", "True"]
