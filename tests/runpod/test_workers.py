"""Real worker processes and the official clients against the stand-in, with a small handler of our own."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from local_platform.endpoint import PATIENCE_S
from local_platform.faults import FaultKind
from local_platform.job import Job, Limits, Status
from local_platform.processes import WorkerDied, WorkerProcess
from local_platform.server import Platform
from tests.runpod.conftest import ECHO
from tests.runpod.pool import LoggedPool

Official = Callable[[Platform], Any]

# The reason for a worker's own retries: the plain SDK loses a result to all but a 5xx.
SDK_RETRIES: dict[FaultKind, bool] = {"503": True, "lost_answer": True, "reset": False, "408": False, "429": False}


@asynccontextmanager
async def running(workers: int = 1, **options: Any) -> AsyncIterator[tuple[Platform, LoggedPool]]:
    async with Platform(**options) as platform:
        async with LoggedPool(platform, command=ECHO) as pool:
            await pool.start(workers)
            yield platform, pool


def submit(platform: Platform, order: dict[str, object], *, is_sync: bool = False) -> str:
    return platform.endpoint.submit({"input": order}, is_sync=is_sync).id


async def done(platform: Platform, job_id: str) -> Job:
    return await platform.endpoint.finished(job_id)


def group_is_empty(group: int) -> bool:
    """Whether no process of the group runs; one that is dead but not yet reaped does not."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, process_group = stat.read_text().rsplit(")", 1)[1].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(process_group) == group and state != "Z":
            return False
    return True


async def test_the_official_clients(official: Official) -> None:
    async with running() as (platform, _):
        runpod = official(platform)
        endpoint = runpod.Endpoint("local")
        run = await asyncio.to_thread(endpoint.run, {"echo": "hello"})
        assert (await asyncio.to_thread(run.output, PATIENCE_S))["echo"] == "hello"
        assert await asyncio.to_thread(run.status) == "COMPLETED"
        synced = await asyncio.to_thread(endpoint.run_sync, {"echo": "sync"})
        assert synced["echo"] == "sync"
        assert synced["id"].startswith("sync-")
        failed = await asyncio.to_thread(endpoint.run, {"error": "no"})
        assert await asyncio.to_thread(failed.output, PATIENCE_S) is None
        assert await asyncio.to_thread(failed.status) == "FAILED"
        long = await asyncio.to_thread(endpoint.run, {"progress": "begun", "sleep_s": 600})
        job = platform.endpoint.queue[long.job_id]
        # The SDK forgets a stop signal for a job that it has taken but not begun.
        await platform.endpoint.until(lambda: bool(platform.endpoint.queue[job.id].events_of("progress")))
        assert (await asyncio.to_thread(long.cancel))["status"] == "CANCELLED"
        health = await asyncio.to_thread(endpoint.health)
        assert (health["jobs"]["completed"], health["jobs"]["failed"]) == (2, 1)
        assert (await asyncio.to_thread(endpoint.purge_queue))["status"] == "completed"

        async with aiohttp.ClientSession() as session:
            asynchronous = runpod.AsyncioEndpoint("local", session)
            asked = await asynchronous.run({"echo": "async"})
            assert (await asked.output(timeout=PATIENCE_S))["echo"] == "async"
            assert (await asynchronous.health())["jobs"]["completed"] == 3


async def frozen(platform: Platform, worker: WorkerProcess, order: dict[str, object]) -> Job:
    """The job of `order`, sent to `worker`, which stands still and has not read it."""
    endpoint = platform.endpoint
    await endpoint.until(lambda: (seen := endpoint.worker(worker.id)) is not None and seen.is_asking)
    worker.freeze()
    job_id = submit(platform, order)
    await endpoint.until(lambda: endpoint.queue[job_id].worker == worker.id)
    return endpoint.queue[job_id]


async def test_a_job_outlives_its_worker() -> None:
    limits = Limits(lease_s=600, execution_timeout_s=3_600)  # whose lease runs out, and when, is said here
    async with running(2, limits=limits) as (platform, pool):
        queue = platform.endpoint.queue
        kept = submit(platform, {"sleep_s": 3})
        await platform.endpoint.until(lambda: queue[kept].worker is not None)
        (victim,) = (worker for worker in pool.workers if worker.id != queue[kept].worker)
        killed = await frozen(platform, victim, {"echo": 1})
        await victim.kill()
        assert group_is_empty(victim.pid)
        assert [w.id for w in pool.outgoing()] == [victim.id]
        await platform.endpoint.until(  # heartbeats renew it
            lambda: queue[kept].lease_until > killed.lease_until or queue[kept].status.is_final
        )
        queue.expire(now=killed.lease_until)
        assert queue[killed.id].status is Status.IN_QUEUE
        moved = await done(platform, killed.id)
        assert (moved.status, moved.attempts) == (Status.COMPLETED, 2)
        assert moved.worker != victim.id
        assert (await done(platform, kept)).attempts == 1

        (survivor,) = (worker for worker in pool.workers if worker is not victim)
        lost = await frozen(platform, survivor, {"sleep_s": 0.5})
        queue.expire(now=lost.lease_until)
        assert queue[lost.id].status is Status.IN_QUEUE
        survivor.thaw()
        assert (await done(platform, lost.id)).status is Status.COMPLETED
        pids = [worker.pid for worker in pool.workers]
        assert not all(group_is_empty(pid) for pid in pids)
    assert all(group_is_empty(pid) for pid in pids)


async def test_what_becomes_of_a_result() -> None:
    """Sizes, what the plain SDK retries, and a worker's wish to be replaced."""
    async with running(limits=Limits(run_max_bytes=10_000)) as (platform, pool):
        big = await done(platform, submit(platform, {"bytes": 10_000}))
        assert (big.status, dict(big.result)) == (Status.COMPLETED, {})
        assert (await done(platform, submit(platform, {"bytes": 10_000}, is_sync=True))).result["output"]

        for kind, is_delivered in SDK_RETRIES.items():
            platform.faults.script("job-done", kind)
            struck, next_one = submit(platform, {}), submit(platform, {})
            assert (await done(platform, next_one)).status is Status.COMPLETED
            status = platform.endpoint.queue[struck].status
            assert status is (Status.COMPLETED if is_delivered else Status.IN_PROGRESS), kind
            platform.endpoint.cancel(struck)

        await done(platform, submit(platform, {"refresh": True}))
        assert pool.outgoing() == pool.workers
        successor = await pool.replace(pool.workers[0])
        assert (await done(platform, submit(platform, {"echo": 2}))).worker == successor.id


async def test_a_worker_is_stopped_after_a_time_out_and_on_request() -> None:
    """SIGTERM first: a worker that hears nothing while it works is killed after the grace."""
    async with Platform() as platform, LoggedPool(platform, command=ECHO, stop_grace_s=0.5) as pool:
        one, other = await pool.start(2)
        late = platform.endpoint.submit({"input": {"block_s": 600}}, execution_timeout_s=1).id
        assert (await done(platform, late)).status is Status.TIMED_OUT
        holder, idle = (one, other) if platform.endpoint.queue[late].worker == one.id else (other, one)
        assert await holder.wait(timeout_s=PATIENCE_S) == -signal.SIGKILL
        assert idle.returncode is None
        assert (await done(platform, submit(platform, {"refresh": True}))).worker == idle.id
        ends = (0, -signal.SIGTERM, -signal.SIGKILL)  # the SDK ends by itself after this one, and a signal may strike
        assert await idle.wait(timeout_s=PATIENCE_S) in ends


async def test_a_worker_killed_at_its_start_is_replaced(tmp_path: Path) -> None:
    killed_once = f'[ -e {tmp_path}/killed ] || {{ touch {tmp_path}/killed; kill -9 $$; }}; exec "$@"'
    said: list[str] = []
    async with Platform() as platform, LoggedPool(platform, command=("sh", "-c", killed_once, "sh", *ECHO)) as pool:
        keeping = asyncio.create_task(pool.keep(1, say=said.append))
        job = await done(platform, submit(platform, {"say": "hello"}))
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
    assert job.status is Status.COMPLETED
    assert said[0].startswith("worker-1 ended with status -9 before it asked for a job")
    assert said[1:] == ["worker-1 is replaced"]


@pytest.mark.parametrize("end", ["exit 1", "ulimit -c 0; kill -ABRT $$"])
async def test_a_worker_that_cannot_start_says_why(end: str) -> None:
    async with Platform() as platform:
        async with LoggedPool(platform, command=("sh", "-c", f"echo no model; {end}")) as pool:
            with pytest.raises(WorkerDied, match="no model"):
                await pool.keep(1)
