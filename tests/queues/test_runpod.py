"""RunPod's queue over HTTP, against the stand-in for the platform and against servers that misbehave."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from flux_engine.queues.job_queue import QueueAway, QueuedJob, QueueRefused
from flux_engine.queues.runpod import RunPodQueue
from local_platform.server import API_KEY, Platform
from tests.gateway.world import Hand
from tests.web_server import server

JOB = QueuedJob(
    id="0b6c5c0e-0000-4000-8000-000000000001",
    input={"prompt": "a red sun", "seed": 1},
    request_id="order-1",
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    timeout_s=600.0,
    priority="low",
)


@pytest.fixture
async def platform() -> AsyncIterator[Platform]:
    async with Platform() as made:
        yield made


@pytest.fixture
async def queue(platform: Platform) -> AsyncIterator[RunPodQueue]:
    made = RunPodQueue(platform.endpoint.id, api_key=API_KEY, base_url=platform.client_url)
    yield made
    await made.close()


async def test_a_job_from_submit_to_result(platform: Platform, queue: RunPodQueue) -> None:
    ticket = await queue.submit(JOB)
    assert (await queue.status(ticket)).state == "queued"
    hand = Hand(platform)
    job = await hand.take()
    assert job.id == ticket
    sent: Any = job.payload["input"]
    assert (sent["prompt"], sent["seed"]) == ("a red sun", 1)
    assert sent["gateway"] == {"task_id": JOB.id, "request_id": "order-1", "traceparent": JOB.traceparent}
    assert (await queue.status(ticket)).state == "running"
    hand.progress(job, 0.5, seq=2)
    report = await queue.status(ticket)
    assert report.progress is not None
    assert (report.state, report.progress["progress"]) == ("running", 0.5)
    hand.finish(job, {"images": []})
    report = await queue.status(ticket)
    assert (report.state, report.output, report.error) == ("completed", {"images": []}, None)


async def test_a_failed_job_has_the_workers_words(platform: Platform, queue: RunPodQueue) -> None:
    ticket = await queue.submit(JOB)
    hand = Hand(platform)
    hand.finish(await hand.take(), error='{"code": "out_of_memory"}')
    report = await queue.status(ticket)
    assert (report.state, report.error, report.output) == ("failed", '{"code": "out_of_memory"}', None)


async def test_cancelling_queued_running_and_unknown_jobs(platform: Platform, queue: RunPodQueue) -> None:
    ticket = await queue.submit(JOB)
    assert (await queue.cancel(ticket)).state == "cancelled"
    ticket = await queue.submit(JOB)
    await Hand(platform).take()
    assert (await queue.cancel(ticket)).state == "cancelled"
    assert (await queue.status("no-such-job")).state == "unknown"
    assert (await queue.cancel("no-such-job")).state == "unknown"


async def test_health_counts_jobs(platform: Platform, queue: RunPodQueue) -> None:
    await queue.submit(replace(JOB, timeout_s=1.0))  # less than the platform takes
    health = await queue.health()
    assert health.jobs["inQueue"] == 1
    assert set(health.workers) >= {"idle", "running", "initializing", "throttled"}


ANSWERS: dict[str, tuple[int, str, type[Exception]]] = {
    "too many": (429, "{}", QueueAway),
    "broken": (500, "oops", QueueAway),
    "away": (503, "", QueueAway),
    "a wrong key": (401, "{}", QueueRefused),
    "an unknown endpoint": (404, "{}", QueueRefused),
    "too large": (413, "{}", QueueRefused),
    "a page": (200, "<html>", QueueAway),
    "a list": (200, "[]", QueueAway),
    "no id": (200, '{"status": "IN_QUEUE"}', QueueAway),
    "an id that is none": (200, '{"id": 5}', QueueAway),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_answers_to_a_submission_that_are_none(name: str) -> None:
    status, body, error = ANSWERS[name]

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=body, headers={"Retry-After": "3"})

    async with server(answer) as port:
        queue = RunPodQueue("e", api_key="secret-key", base_url=f"http://127.0.0.1:{port}")
        with pytest.raises(error) as raised:
            await queue.submit(JOB)
        await queue.close()
    assert "secret-key" not in str(raised.value)
    if status == 429:
        assert isinstance(raised.value, QueueAway)
        assert raised.value.retry_after_s == 3


async def test_the_health_of_an_unknown_endpoint() -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=404, text="{}")

    async with server(answer) as port:
        queue = RunPodQueue("deleted", api_key="k", base_url=f"http://127.0.0.1:{port}")
        with pytest.raises(QueueRefused, match="no such endpoint"):
            await queue.health()
        await queue.close()


@pytest.mark.parametrize("body", ['{"status": "A_NEW_STATE"}', "{}", '{"status": null}'])
async def test_a_state_that_is_none(body: str) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=body)

    async with server(answer) as port:
        queue = RunPodQueue("e", api_key="k", base_url=f"http://127.0.0.1:{port}")
        with pytest.raises(QueueAway):
            await queue.status("j")
        await queue.close()


async def test_a_platform_that_is_not_there() -> None:
    with socket.socket() as taken:  # so that no other process listens there
        taken.bind(("127.0.0.1", 0))
        queue = RunPodQueue("e", api_key="k", base_url=f"http://127.0.0.1:{taken.getsockname()[1]}/v2")
        for call in (queue.submit(JOB), queue.status("j"), queue.cancel("j"), queue.health()):
            with pytest.raises(QueueAway, match="does not answer"):
                await call
        await queue.close()


async def test_at_most_ten_cancellations_at_once() -> None:
    """The platform takes 20, for all replicas."""
    open_now, most = 0, 0
    full = asyncio.Event()
    may_end = asyncio.Event()

    async def answer(_: web.Request) -> web.Response:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        if open_now == 10:
            full.set()
        await may_end.wait()
        open_now -= 1
        return web.json_response({"id": "j", "status": "CANCELLED"})

    async with server(answer) as port:
        queue = RunPodQueue("e", api_key="k", base_url=f"http://127.0.0.1:{port}")
        async with asyncio.TaskGroup() as group:
            for number in range(30):
                group.create_task(queue.cancel(f"j{number}"))
            await full.wait()
            may_end.set()
        await queue.close()
    assert most == 10
