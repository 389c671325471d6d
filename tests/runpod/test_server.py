"""Both sides of the stand-in over HTTP, spoken by hand: what is on the wire, and the faults on it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from local_platform.faults import FaultPlan, Faults
from local_platform.job import Limits, Status
from local_platform.server import Platform


@asynccontextmanager
async def talking(platform: Platform) -> AsyncIterator[aiohttp.ClientSession]:
    async with platform:
        base = f"{platform.client_url}/{platform.endpoint.id}/"
        async with aiohttp.ClientSession(base, headers={"Authorization": "Bearer any"}) as session:
            yield session


async def posted(session: aiohttp.ClientSession, path: str, body: object = None) -> tuple[int, Any]:
    async with session.post(path, json=body) as response:
        return response.status, await response.json()


async def got(session: aiohttp.ClientSession, path: str) -> tuple[int, Any]:
    async with session.get(path) as response:
        return response.status, await response.json() if response.status != 204 else None


async def taking(platform: Platform, session: aiohttp.ClientSession) -> asyncio.Task[tuple[int, Any]]:
    """A take of worker `w` that the platform holds open."""
    take = asyncio.create_task(got(session, "job-take/w?gpu=none&job_in_progress=0"))
    await platform.endpoint.until(lambda: is_asking(platform))
    return take


def is_asking(platform: Platform) -> bool:
    seen = platform.endpoint.worker("w")
    return seen is not None and seen.is_asking


async def test_a_take_is_held_until_there_is_a_job() -> None:
    platform = Platform()
    async with talking(platform) as session:
        take = await taking(platform, session)
        assert not take.done()
        _, run = await posted(session, "run", {"input": {"n": 1}, "webhook": "", "s3Config": {"bucketName": "b"}})
        assert run["status"] == "IN_QUEUE"
        assert await take == (200, {"id": run["id"], "input": {"n": 1}, "webhook": "", "s3Config": {"bucketName": "b"}})


async def test_a_take_without_a_job_ends_with_204() -> None:
    async with talking(Platform(poll_s=0.1)) as session:
        began = time.monotonic()
        assert (await got(session, "job-take/w?gpu=none"))[0] == 204
        assert (await got(session, "job-stop/w?gpu=none"))[0] == 204
        assert time.monotonic() - began > 0.19


async def test_a_batch_is_a_list() -> None:
    async with talking(Platform()) as session:
        ids = [(await posted(session, "run", {"input": {"n": n}}))[1]["id"] for n in range(3)]
        _, jobs = await got(session, "job-take-batch/w?gpu=none&batch_size=2")
        assert [job["id"] for job in jobs] == ids[:2]


async def test_a_hung_up_worker_is_given_no_job() -> None:
    platform = Platform(tick_s=0.02)
    async with talking(platform) as session:
        take = await taking(platform, session)
        take.cancel()
        await platform.endpoint.until(lambda: not is_asking(platform))
        _, run = await posted(session, "run", {"input": {}})
        assert (await got(session, f"status/{run['id']}"))[1]["status"] == "IN_QUEUE"


async def test_cancelling_reaches_the_worker_at_once() -> None:
    """Neither a tick of the platform's clock nor the end of a poll brings the news here."""
    async with talking(Platform(tick_s=600, poll_s=600)) as session:
        _, run = await posted(session, "run", {"input": {}})
        await got(session, "job-take/w?gpu=none")
        stop = asyncio.create_task(got(session, "job-stop/w?gpu=none"))
        assert await posted(session, f"cancel/{run['id']}") == (200, {"id": run["id"], "status": "CANCELLED"})
        assert await stop == (200, {"jobsToStop": [run["id"]]})


async def test_runsync_waits_for_the_result_and_no_longer_than_asked() -> None:
    async with talking(Platform(sync_wait_s=0.1)) as session:
        status, body = await posted(session, "runsync", {"input": {}})
        assert (status, body["status"]) == (200, "IN_QUEUE")
        assert body["id"].startswith("sync-")
        waiting = asyncio.create_task(posted(session, "runsync?wait=120000", {"input": {}}))
        await got(session, "job-take/w?gpu=none")
        _, job = await got(session, "job-take/w?gpu=none")
        async with session.post(
            f"job-done/w/{job['id']}?gpu=none&isStream=false", data=b'{"output": {"a": 1}}'
        ) as done:
            assert done.status == 200
        assert (await waiting)[1]["output"] == {"a": 1}


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("run", {"prompt": "x"}, 400, "`input`"),
        ("run", [1], 400, "`input`"),
        ("run", {"input": {}, "policy": {"ttl": 1}}, 400, "policy.ttl"),
        ("run", {"input": {}, "policy": {"executionTimeout": 5000}}, 400, "policy.executionTimeout"),
        ("run", {"input": {}, "policy": {"executionTimeout": True}}, 400, "policy.executionTimeout"),
        ("run", {"input": {"filler": "x" * 3000}}, 400, "at most 2000"),
        ("runsync?wait=5", {"input": {}}, 400, "`wait`"),
        ("cancel/nothing", None, 404, "no such job"),
        ("retry/nothing", None, 404, "no such job"),
        ("status/nothing", None, 404, "no such job"),
    ],
)
async def test_refusals(path: str, body: object, status: int, said: str) -> None:
    async with talking(Platform(limits=Limits(run_max_bytes=2000))) as session:
        answer = await posted(session, path, body)
        assert answer[0] == status
        assert said in answer[1]["error"]


async def test_an_api_key_is_needed() -> None:
    async with talking(Platform()) as session:
        async with session.get("health", headers={"Authorization": ""}) as response:
            assert response.status == 401


async def test_an_oversized_or_broken_result_is_a_400() -> None:
    async with talking(Platform(limits=Limits(run_max_bytes=1000))) as session:
        _, run = await posted(session, "run", {"input": {}})
        await got(session, "job-take/w?gpu=none")
        for body in (b"{nonsense", b'{"output": NaN}', b"[]"):
            async with session.post(f"job-done/w/{run['id']}?gpu=none", data=body) as done:
                assert done.status == 400
        assert (await got(session, f"status/{run['id']}"))[1]["status"] == "IN_PROGRESS"
        async with session.post(f"job-done/w/{run['id']}?gpu=none", json={"output": "x" * 1000}) as done:
            assert done.status == 400
        status = (await got(session, f"status/{run['id']}"))[1]
        assert status["status"] == "COMPLETED"
        assert "output" not in status


async def test_streamed_parts() -> None:
    async with talking(Platform()) as session:
        _, run = await posted(session, "run", {"input": {}})
        await got(session, "job-take/w?gpu=none")

        async def read() -> tuple[int, Any]:
            while not (answer := await got(session, f"stream/{run['id']}"))[1]["stream"]:  # nothing within two seconds
                pass
            return answer

        reading = asyncio.create_task(read())
        async with session.post(f"job-stream/w/{run['id']}?gpu=none", json={"output": "part"}) as done:
            assert done.status == 200
        assert await reading == (200, {"status": "IN_PROGRESS", "stream": [{"output": "part"}]})


async def test_a_lease_runs_out_by_itself() -> None:
    async with talking(Platform(limits=Limits(lease_s=0.1), tick_s=0.02)) as session:
        _, run = await posted(session, "run", {"input": {}})
        await got(session, "job-take/dead?gpu=none")
        _, again = await got(session, "job-take/alive?gpu=none")
        assert again["id"] == run["id"]


async def test_a_time_out_takes_effect_by_itself() -> None:
    async with talking(Platform(limits=Limits(execution_timeout_s=0.1), tick_s=0.02)) as session:
        _, run = await posted(session, "run", {"input": {}})
        await got(session, "job-take/w?gpu=none")
        assert (await got(session, "job-stop/w?gpu=none"))[1] == {"jobsToStop": [run["id"]]}
        assert (await got(session, f"status/{run['id']}"))[1]["status"] == "TIMED_OUT"


async def test_a_webhook_is_tried_three_times() -> None:
    calls: list[Any] = []
    is_over = asyncio.Event()

    async def receive(request: web.Request) -> web.Response:
        calls.append(await request.json())
        if len(calls) == 3:
            is_over.set()
        return web.Response(status=200 if len(calls) == 3 else 500)

    app = web.Application()
    app.router.add_post("/hook", receive)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    hook = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    async with talking(Platform(webhook_retry_s=0.01, tick_s=0.01)) as session:
        _, run = await posted(session, "run", {"input": {}, "webhook": hook})
        await posted(session, f"cancel/{run['id']}")
        await is_over.wait()
    await runner.cleanup()
    assert [(call["id"], call["status"]) for call in calls] == [(run["id"], "CANCELLED")] * 3


async def test_a_job_id_is_the_same_in_every_run_with_a_seed() -> None:
    ids = []
    for _ in range(2):
        async with talking(Platform(id_seed=7)) as session:
            ids.append((await posted(session, "run", {"input": {}}))[1]["id"])
    assert ids[0] == ids[1]


async def test_an_unhealthy_worker_shows_in_health() -> None:
    async with talking(Platform(poll_s=0.05)) as session:
        await got(session, "job-take/fit?gpu=none")
        await got(session, "ping/sick?gpu=none&status=unhealthy&check=disk&reason=full")
        workers = (await got(session, "health"))[1]["workers"]
        assert (workers["idle"], workers["unhealthy"]) == (1, 1)


@pytest.mark.parametrize("kind", ["500", "502", "503", "408", "429"])
async def test_a_status_on_demand(kind: Any) -> None:
    platform = Platform()
    async with talking(platform) as session:
        platform.faults.script("ping", kind)
        async with session.get("ping/w?gpu=none") as response:
            assert response.status == int(kind)
        async with session.get("ping/w?gpu=none") as response:
            assert response.status == 200


@pytest.mark.parametrize(("kind", "status"), [("reset", Status.IN_PROGRESS), ("lost_answer", Status.COMPLETED)])
async def test_a_reset_before_or_after_the_deed(kind: Any, status: Status) -> None:
    platform = Platform()
    async with talking(platform) as session:
        _, run = await posted(session, "run", {"input": {}})
        await got(session, "job-take/w?gpu=none")
        platform.faults.script("job-done", kind)
        with pytest.raises(aiohttp.ClientError):
            await posted(session, f"job-done/w/{run['id']}?gpu=none", {"output": 1})
        assert platform.endpoint.queue[run["id"]].status is status


async def test_a_slow_answer_and_a_closed_connection() -> None:
    platform = Platform(faults=FaultPlan(slow_s=0.2))
    async with talking(platform) as session:
        platform.faults.script("ping", "slow", "close")
        began = time.monotonic()
        await got(session, "ping/w?gpu=none")
        assert time.monotonic() - began > 0.19
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", int(platform.client_url.split(":")[2].split("/")[0])
        )
        writer.write(b"GET /v2/local/ping/w?gpu=none HTTP/1.1\r\nHost: x\r\nAuthorization: k\r\n\r\n")
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"connection: close" not in answer.lower()
        writer.close()


def test_faults_by_chance_repeat_with_their_seed() -> None:
    plan = FaultPlan(rates={"reset": 0.1, "500": 0.2}, seed=3)
    drawn = [[faults.draw("ping") for _ in range(1000)] for faults in (Faults(plan), Faults(plan))]
    assert drawn[0] == drawn[1]
    assert 60 < drawn[0].count("reset") < 140
    assert 150 < drawn[0].count("500") < 250
    assert Faults(plan).draw("status") is None


@pytest.mark.parametrize("rates", [{"fire": 0.1}, {"reset": 0.6, "500": 0.6}, {"reset": -0.1}])
def test_a_senseless_plan_is_refused(rates: Any) -> None:
    with pytest.raises(ValueError, match=r"fault|rates"):
        FaultPlan(rates=rates)
