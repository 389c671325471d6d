"""Tasks are never lost: what the queue forgets, what workers drop, what takes too long."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flux_engine.cache.flight import Lookup
from flux_engine.cache.manager import CacheManager
from flux_engine.cache.notices import Offer
from flux_engine.cache.redis_link import RedisLink, RemoteServer
from flux_engine.gateway.assembly import LEAST_IN_FLIGHT
from flux_engine.gateway.gateway import end
from flux_engine.gateway.limits.line import LineCounts
from flux_engine.gateway.limits.manager import LEFT_OPEN_S, LimitsManager, LimitTerms
from flux_engine.gateway.tasks.ledger.agenda import Due
from flux_engine.gateway.tasks.ledger.news import Ending
from flux_engine.gateway.tasks.pace import Pace
from flux_engine.gateway.tasks.sweep import Sweep
from flux_engine.job.fingerprint import ModelIdentity
from flux_engine.models.spec import ModelSpec
from flux_engine.queues.job_queue import Report
from flux_engine.queues.runpod import RunPodQueue
from flux_engine.results.entry import Withheld
from local_platform.job import Job, Limits
from local_platform.server import Platform
from tests import waiting
from tests.cache.results_of import stored
from tests.gateway.world import QUICK, SUN, World, failure, picture, result_of, world
from tests.servers import RedisProcess


def forget(gw: World, job: Job) -> None:
    """The queue loses a job."""
    queue, endpoint = gw.platform.endpoint.queue, gw.platform.endpoint
    queue.cancel(job.id, now=endpoint.now())
    queue.drain_final()
    queue.expire(now=endpoint.now() + 1_000_000)


async def test_a_job_that_the_queue_forgot_comes_again_as_the_same(gw: World) -> None:
    made = await gw.create()
    first = await gw.hand.take()
    forget(gw, first)
    second = await gw.hand.take()
    assert second.id != first.id
    assert second.payload["input"] == first.payload["input"]
    gw.hand.finish(second)
    done = await gw.until(made["task_id"], "completed", "failed")
    assert done["status"] == "completed"


async def test_a_job_that_the_queue_forgot_whose_result_its_worker_stored(
    gw: World, shared_redis: RedisProcess
) -> None:
    """Nothing is made twice, and the result says all that the worker's said of its pictures."""
    made = await gw.create(seed=7, num_images=2)
    job = await gw.hand.take()
    entry = (await stored(gw.gateway.results.store, "e" * 64, picture(7))).model_copy(
        update={
            "enhanced_prompt": "a red sun over mountains at dawn",
            "withheld": (Withheld(index=1, seed=8, label="nsfw", score=0.9),),
            "warnings": ("one was withheld",),
        }
    )
    cache = CacheManager(RemoteServer(shared_redis.url), namespace=gw.gateway.settings.namespace)
    async with cache.flight(
        Lookup(entry.fingerprint, job_id=made["task_id"], store=gw.gateway.results.store)
    ) as flight:
        await flight.complete(entry)
    await cache.close()
    forget(gw, job)
    said = await gw.until(made["task_id"], "completed", "failed")
    result = said["result"]
    assert (said["status"], said["warnings"]) == ("completed", ["one was withheld"])
    assert result["enhanced_prompt"] == entry.enhanced_prompt
    assert [(one["index"], one["reason"]) for one in result["withheld"]] == [(1, "content_filtered")]
    assert result["parameters"]["num_inference_steps"] == said["parameters"]["num_inference_steps"]
    assert (await gw.get(f"/task/{made['task_id']}/result")).content == picture(7)
    assert len(gw.platform.endpoint.queue.jobs) == 0


async def test_a_queue_that_always_forgets(shared_redis: RedisProcess, tmp_path: Path) -> None:
    async with world(shared_redis.url, tmp_path, TASK_MAX_ATTEMPTS="2") as gw:
        made = await gw.create()
        for _ in range(2):
            forget(gw, await gw.hand.take())
        done = await gw.until(made["task_id"], "completed", "failed")
        assert (done["status"], done["error"]["code"], done["error"]["retryable"]) == ("failed", "internal", True)
        assert "2 times" in done["error"]["message"]
        await gw.until_settled(made["task_id"])
        assert await _left_of_work(gw) == await _quota(gw)


async def test_a_completed_job_without_its_output(gw: World) -> None:
    made = await gw.create()
    gw.hand.finish(await gw.hand.take(), output={"note": "too large"})
    gw.hand.finish(await gw.hand.take())
    assert (await gw.until(made["task_id"], "completed", "failed"))["status"] == "completed"


async def test_a_result_that_was_damaged_on_its_way(gw: World) -> None:
    made = await gw.create()
    job = await gw.hand.take()
    output = result_of(job)
    output["images"][0]["b64_json"] = base64.b64encode(picture(99)).decode()
    gw.hand.finish(job, output)
    done = await gw.until(made["task_id"], "completed", "failed")
    assert (done["status"], done["error"]["code"]) == ("failed", "internal")


async def test_a_result_outlives_the_queue(gw: World) -> None:
    made = await gw.create(seed=5)
    gw.hand.finish(await gw.hand.take())
    await gw.until(made["task_id"], "completed")
    gw.platform.endpoint.queue.expire(now=gw.platform.endpoint.now() + 1_000_000)
    assert gw.platform.endpoint.queue.jobs == ()
    assert (await gw.get(f"/task/{made['task_id']}/result")).content == picture(5, width=128, height=128)


async def test_a_job_past_the_platforms_time_fails(shared_redis: RedisProcess, tmp_path: Path) -> None:
    async with (
        Platform(limits=Limits(execution_timeout_s=0.2), tick_s=0.02) as platform,
        world(shared_redis.url, tmp_path, platform=platform) as gw,
    ):
        made = await gw.create()
        await gw.hand.take()
        done = await gw.until(made["task_id"], "completed", "failed")
        assert (done["status"], done["error"]["retryable"]) == ("failed", False)
        assert "time limit" in done["error"]["message"]


async def test_nothing_is_processing_for_ever(shared_redis: RedisProcess, tmp_path: Path) -> None:
    """Progress that arrives after the result reopens a job on the platform, where it then stays."""
    async with world(shared_redis.url, tmp_path, TASK_TIMEOUT_SECONDS="10") as gw:
        made = await gw.create()
        job = await gw.hand.take()
        gw.hand.progress(job, 0.9, seq=3)
        await gw.until(made["task_id"], "processing")
        task = await gw.gateway.ledger.get(made["task_id"])
        assert task is not None
        await gw.gateway.redis.hset(gw.gateway.ledger.keys.task(task.id), "submitted_at", str(task.created_at - 11))
        done = await gw.until(made["task_id"], "completed", "failed")
        assert (done["status"], done["error"]["retryable"]) == ("failed", True)


NEVER = replace(QUICK, least=3600.0, most=3600.0)  # looks at what the queue has: only when it is nudged


async def _look_late(gw: World, task_id: str) -> None:
    """The gateway was away, and the task's time of ten seconds passed."""
    task = await gw.until_submitted(task_id)
    assert task.status == "queued"
    await gw.gateway.redis.hset(gw.gateway.ledger.keys.task(task_id), "submitted_at", str(task.created_at - 11))
    await gw.gateway.sweep.nudge(task_id)


async def test_a_result_that_stands_ready_is_given_however_late_it_is_asked_for(
    shared_redis: RedisProcess, tmp_path: Path
) -> None:
    async with world(shared_redis.url, tmp_path, pace=NEVER, TASK_TIMEOUT_SECONDS="10") as gw:
        made = await gw.create()
        gw.hand.finish(await gw.hand.take())
        await _look_late(gw, made["task_id"])
        done = await gw.until(made["task_id"], "completed", "failed")
        assert (done["status"], done["work_used"]) == ("completed", pytest.approx(made["work"], abs=0.001))


async def test_an_error_that_stands_ready_is_told_however_late_it_is_asked_for(
    shared_redis: RedisProcess, tmp_path: Path
) -> None:
    async with world(shared_redis.url, tmp_path, pace=NEVER, TASK_TIMEOUT_SECONDS="10") as gw:
        made = await gw.create()
        gw.hand.finish(await gw.hand.take(), error=failure("content_filtered", "withheld"))
        await _look_late(gw, made["task_id"])
        error = (await gw.until(made["task_id"], "completed", "failed"))["error"]
        assert (error["code"], error["message"], error["retryable"]) == ("content_filtered", "withheld", False)


async def test_a_result_that_the_platform_dropped_is_not_made_again_so_late(
    shared_redis: RedisProcess, tmp_path: Path
) -> None:
    async with world(shared_redis.url, tmp_path, pace=NEVER, TASK_TIMEOUT_SECONDS="10") as gw:
        made = await gw.create()
        gw.hand.finish(await gw.hand.take(), output={"note": "too large"})
        await _look_late(gw, made["task_id"])
        done = await gw.until(made["task_id"], "completed", "failed")
        assert (done["status"], done["error"]["retryable"]) == ("failed", True)
        assert len(gw.platform.endpoint.queue.jobs) == 1


async def test_work_goes_back_where_nothing_was_made(gw: World) -> None:
    quota = await _quota(gw)
    made = await gw.create()
    assert await _left_of_work(gw) == pytest.approx(quota - made["work"], abs=0.001)
    await gw.delete(f"/task/{made['task_id']}")
    await gw.until(made["task_id"], "cancelled")
    await gw.until_settled(made["task_id"])
    assert await _left_of_work(gw) == quota


async def test_work_is_settled_with_what_was_used(gw: World) -> None:
    quota = await _quota(gw)
    made = await gw.create()
    job = await gw.hand.take()
    gw.hand.finish(job, result_of(job, usage={"work": 0.02, "gpu_seconds": 1}))
    await gw.until(made["task_id"], "completed")
    await gw.until_settled(made["task_id"])
    assert await _left_of_work(gw) == pytest.approx(quota - 0.02, abs=0.001)


async def test_a_task_whose_creation_was_not_answered_is_charged_for_what_it_used(gw: World) -> None:
    """Redis had the task, its answer was lost, and the gateway gave the reservation back."""
    quota = await _quota(gw)
    made = await gw.create()
    await gw.gateway.limits.give_back(made["task_id"])
    assert await _left_of_work(gw) == quota
    gw.hand.finish(await gw.hand.take())
    done = await gw.until(made["task_id"], "completed")
    await gw.until_settled(made["task_id"])
    assert await _left_of_work(gw) == pytest.approx(quota - done["work_used"], abs=0.001)


async def test_what_a_gateway_reserved_and_died_over_is_closed(gw: World) -> None:
    """Before the ledger had the task, and after its end."""
    quota, settings = await _quota(gw), gw.gateway.settings
    made = await gw.create()
    gw.hand.finish(await gw.hand.take())
    done = await gw.until(made["task_id"], "completed")
    spent = done["work_used"]
    await gw.until_settled(made["task_id"])
    assert await _left_of_work(gw) == pytest.approx(quota - spent, abs=0.001)
    link = RedisLink(RemoteServer(str(settings.shared.redis_url.get_secret_value())))  # type: ignore[union-attr]
    terms = LimitTerms(work_per_minute=settings.max_work_per_minute)
    died = LimitsManager(link, terms, root=settings.redis_root, clock=lambda: time.time() - 2 * LEFT_OPEN_S)
    taken = await died.reserve("ada", "00000000-0000-4000-8000-00000000000b", 40)  # or TooMany, and nothing was taken
    assert taken.work == 40
    await gw.gateway.endings.check_reservations()  # or the sweep, where it has just asked which are open

    async def is_closed() -> bool:
        return await _left_of_work(gw) == pytest.approx(quota - spent, abs=0.001)

    await waiting.until(is_closed)
    await link.close()


async def test_an_end_whose_replica_died_before_it_was_settled(gw: World) -> None:
    """The ledger knows that the task has ended; another replica does the rest."""
    quota = await _quota(gw)
    made = await gw.create()
    task = await gw.gateway.ledger.get(made["task_id"])
    assert task is not None
    await gw.gateway.ledger.finish(task, Ending(status="cancelled"))
    await gw.until_settled(made["task_id"])
    assert await _left_of_work(gw) == quota


async def test_a_task_whose_replica_died_before_the_line(gw: World) -> None:
    """The ledger has it, and nobody has let it wait."""
    made = await gw.create()
    task = await gw.gateway.ledger.get(made["task_id"])
    assert task is not None
    first = await gw.hand.take()
    gw.hand.finish(first)
    await gw.until(made["task_id"], "completed")
    job_input = {k: v for k, v in dict(first.payload["input"]).items() if k != "gateway"}  # type: ignore[call-overload]
    orphan = {"id": "00000000-0000-4000-8000-00000000000a", "status": "queued", "attempt": 0}
    fresh = _copied(task, **orphan)
    await gw.gateway.ledger.beginnings.create(fresh, job_input, body_hash="h")
    await gw.gateway.sweep.nudge(fresh.id)
    second = await gw.hand.take()
    gw.hand.finish(second)
    assert (await gw.until(fresh.id, "completed"))["status"] == "completed"


async def test_a_task_that_ended_as_it_entered_the_line_takes_no_turn(gw: World) -> None:
    """Its replica was slow between the ledger and the line, and `deadline_seconds` passed."""
    made = await gw.create()
    await gw.delete(f"/task/{made['task_id']}")
    await gw.until(made["task_id"], "cancelled")
    await gw.gateway.line.enter("ada", made["task_id"], "normal")
    gw.gateway.dispatcher.kick()

    async def is_free() -> bool:
        return await gw.gateway.line.counts("ada") == LineCounts(waiting=0, in_flight=0)

    await waiting.until(is_free)


async def test_a_task_is_with_the_queue_once(gw: World) -> None:
    """Its first submission took longer than its lease, and another replica has submitted it meanwhile."""
    ledger, made = gw.gateway.ledger, await gw.create()

    async def ticket() -> str | None:
        task = await ledger.get(made["task_id"])
        return None if task is None else task.ticket

    first = (await gw.until_submitted(made["task_id"])).ticket
    assert await ledger.agenda.set_ticket(made["task_id"], "late", look_at=time.time()) == "cancel"
    assert await ticket() == first


async def test_the_queues_hook_is_a_nudge(shared_redis: RedisProcess, tmp_path: Path) -> None:
    """With no poll due for an hour, a task ends when the platform says so."""
    pace = Pace(tick=0.02, least=3600.0, most=3600.0, told=3600.0)
    async with world(shared_redis.url, tmp_path, pace=pace) as gw:
        made = await gw.create()
        job = await gw.hand.take()
        await gw.until_submitted(made["task_id"])
        gw.hand.finish(job)
        path = gw.gateway.dispatcher.hook_path(made["task_id"])
        forged = path[:-1] + ("0" if path[-1] != "0" else "1")
        assert (await gw.client.post(forged, headers={"Authorization": ""})).status_code == 404
        assert (await gw.status(made["task_id"]))["status"] == "queued"
        assert (await gw.client.post(path, json={"status": "FAILED"})).status_code == 200
        assert (await gw.until(made["task_id"], "completed"))["status"] == "completed"


async def test_a_worker_tells_its_progress_through_redis(shared_redis: RedisProcess, tmp_path: Path) -> None:
    pace = Pace(tick=0.02, least=3600.0, most=3600.0, ending=0.02)
    async with world(shared_redis.url, tmp_path, pace=pace) as gw:
        made = await gw.create()
        job = await gw.hand.take()
        await gw.until_submitted(made["task_id"])
        notices = gw.gateway.offers.notices
        update = {"stage": "denoising", "progress": 0.4, "seq": 2, "step": 1, "total_steps": 2}
        await notices.progress(made["task_id"], update)
        said = await gw.until(made["task_id"], "processing")
        assert (said["progress"], said["step"]) == (0.4, 1)
        await notices.ended(made["task_id"])
        gw.hand.finish(job)
        assert (await gw.until(made["task_id"], "completed"))["status"] == "completed"


async def test_a_workers_end_that_comes_while_its_task_is_looked_at_is_not_put_off(
    shared_redis: RedisProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue's answer was on its way: by what it says, the next look would be in an hour."""
    pace = Pace(tick=3600.0, least=3600.0, most=3600.0, told=3600.0, ending=200.0)
    async with world(shared_redis.url, tmp_path, pace=pace) as gw:
        made, ledger, queue = await gw.create(), gw.gateway.ledger, gw.gateway.queue
        await gw.hand.take()
        await gw.until_submitted(made["task_id"])
        await gw.gateway.offers.notices.progress(made["task_id"], {"stage": "denoising", "progress": 0.4, "seq": 2})
        await gw.until(made["task_id"], "processing")
        status, has_asked, may_answer = queue.status, asyncio.Event(), asyncio.Event()

        async def slow(ticket: str) -> Report:
            report = await status(ticket)
            has_asked.set()
            await may_answer.wait()
            return report

        async def has_ended() -> bool:
            task = await ledger.get(made["task_id"])
            return task is not None and task.ended_at is not None

        async def look() -> None:
            await ledger.agenda.look_at(made["task_id"], time.time())
            (due,) = await ledger.agenda.claim_due(at_most=1, rate=1000, burst=1000)
            await gw.gateway.sweep.look.at(due.task_id, leased_until=due.leased_until)

        began = time.time()
        await look()
        assert (await gw.gateway.redis.zscore(ledger.keys.due, made["task_id"]) or 0) > began + 3000
        monkeypatch.setattr(queue, "status", slow)
        looking = asyncio.create_task(look())
        await has_asked.wait()
        await gw.gateway.offers.notices.ended(made["task_id"])
        await waiting.until(has_ended)
        due_at = await gw.gateway.redis.zscore(ledger.keys.due, made["task_id"])
        may_answer.set()
        await looking
        assert await gw.gateway.redis.zscore(ledger.keys.due, made["task_id"]) == due_at


async def test_a_workers_end_that_nobody_heard_is_seen_once_the_gateway_listens_again(
    redis: RedisProcess, tmp_path: Path
) -> None:
    """While a worker tells its progress its task rests, here for an hour."""
    async with world(redis.url, tmp_path, pace=replace(QUICK, told=3600.0)) as gw:
        made, key = await gw.create(), gw.gateway.ledger.keys.due
        job = await gw.hand.take()
        await gw.until_submitted(made["task_id"])
        await gw.gateway.offers.notices.progress(made["task_id"], {"stage": "denoising", "progress": 0.4, "seq": 2})

        async def rests() -> bool:
            return (await gw.gateway.redis.zscore(key, made["task_id"]) or 0) > time.time() + 3000

        await waiting.until(rests)
        gw.hand.finish(job)
        await gw.gateway.redis.client_kill_filter(_type="pubsub")
        assert (await gw.until(made["task_id"], "completed"))["status"] == "completed"


class Dues:
    """An agenda that answers late: what it is asked to look at has been claimed by then."""

    def __init__(self, *dues: str) -> None:
        self.agenda = self
        self.dues = list(dues)

    async def claim_due(self, **_bounds: float) -> list[Due]:
        claimed, self.dues = self.dues, []
        return [Due(task_id, 0.0) for task_id in claimed]

    async def look_at(self, task_id: str, _at: float) -> None:
        self.dues.append(task_id)
        while self.dues:  # noqa: ASYNC110 - the claim says nothing
            await asyncio.sleep(0)


class Looks:
    """Counts looks; each ends when it may."""

    def __init__(self) -> None:
        self.count = 0
        self.may_end = asyncio.Event()

    async def at(self, _task_id: str, **_more: float) -> None:
        self.count += 1
        await self.may_end.wait()

    async def in_flight(self) -> int:
        return 1

    async def check_reservations(self) -> None: ...


async def test_a_task_that_is_due_again_while_it_is_looked_at_is_looked_at_again() -> None:
    dues, looks = Dues("a"), Looks()
    seams: Any = {"ledger": dues, "look": looks, "line": looks, "endings": looks}
    sweep = Sweep(**seams, rates=RunPodQueue.rates, pace=QUICK)
    running = asyncio.create_task(sweep.run())
    try:
        await waiting.until(lambda: looks.count == 1)
        dues.dues.append("a")
        await waiting.until(lambda: not dues.dues)
        looks.may_end.set()
        await waiting.until(lambda: looks.count == 2)
    finally:
        await end([running])


async def test_words_that_are_no_progress_are_passed_over(shared_redis: RedisProcess, tmp_path: Path) -> None:
    pace = Pace(tick=0.02, least=3600.0, most=3600.0)
    async with world(shared_redis.url, tmp_path, pace=pace) as gw:
        made = await gw.create()
        await gw.until_submitted(made["task_id"])
        channel = gw.gateway.offers.notices.channel
        for word in ("NaN", "Infinity", f"1{'0' * 400}", '"half"', "null", "true"):
            notice = (
                f'{{"task": "{made["task_id"]}", "progress": {{"progress": {word}, "eta_seconds": {word}, "seq": 1}}}}'
            )
            await gw.gateway.redis.publish(channel, notice)
        await gw.gateway.offers.notices.progress(made["task_id"], {"stage": "denoising", "progress": 0.4, "seq": 2})
        assert (await gw.until(made["task_id"], "processing"))["progress"] == 0.4


async def test_tasks_that_redis_has_lost_keep_no_places(gw: World) -> None:
    """A Redis that evicts keys without an expiry: as many lost tasks as may be in flight would stop the line."""
    lost = [await gw.create() for _ in range(LEAST_IN_FLIGHT)]
    for made in lost:
        await gw.until_submitted(made["task_id"])
        await gw.hand.take()
    await gw.gateway.redis.delete(*(gw.gateway.ledger.keys.task(made["task_id"]) for made in lost))
    made = await gw.create()
    gw.hand.finish(await gw.hand.take())
    assert (await gw.until(made["task_id"], "completed"))["status"] == "completed"


async def test_a_task_that_cannot_be_read_stops_no_other(gw: World) -> None:
    """As another version may have left it, with work reserved."""
    redis, ledger = gw.gateway.redis, gw.gateway.ledger
    broken, reserved = await gw.create(), f"{gw.gateway.settings.redis_root}:open"
    await gw.hand.take()
    await redis.hset(ledger.keys.task(broken["task_id"]), "files", "no JSON")
    await redis.zadd(reserved, {broken["task_id"]: 0})

    async def is_asked_for() -> bool:
        return bool(await redis.zscore(reserved, broken["task_id"]))

    await waiting.until(is_asked_for)
    made = await gw.create()
    gw.hand.finish(await gw.hand.take())
    assert (await gw.until(made["task_id"], "completed"))["status"] == "completed"


async def test_what_was_read_before_a_workers_word_tells_nothing_after_it(
    shared_redis: RedisProcess, tmp_path: Path
) -> None:
    """Neither an older status, nor an older progress, nor as the task's end."""
    pace = Pace(tick=3600.0, least=3600.0, most=3600.0)
    async with world(shared_redis.url, tmp_path, pace=pace) as gw:
        made = await gw.create()
        await gw.until_submitted(made["task_id"])  # else whoever submits it sees the wish to cancel it, and ends it
        ledger = gw.gateway.ledger
        before = await ledger.get(made["task_id"])
        assert before is not None
        await gw.gateway.offers.notices.progress(made["task_id"], {"stage": "denoising", "progress": 0.4, "seq": 2})
        await gw.until(made["task_id"], "processing")
        assert not await ledger.note(before, waiting_for="busy")
        assert await ledger.wish_cancelled(before)
        assert await ledger.finish(before, Ending(status="cancelled")) is not None
        events = await gw.gateway.hub.replay(task=before, after="0-0")
        said = [json.loads(event.data) for event in events]
        progress = [one["progress"] for one in said if "progress" in one]
        statuses = [one["status"] for one in said if "status" in one]
        assert progress == sorted(progress) == [0.0, 0.4, 0.4]
        assert statuses == ["queued", "processing", "cancelled"]


async def test_a_hit_needs_no_worker(gw: World) -> None:
    await gw.gateway.offers.notices.makes(ModelIdentity(id="flux-tiny", revision="r", precision="float32"))
    made = await gw.create(seed=5)
    gw.hand.finish(await gw.hand.take())
    await gw.until_settled(made["task_id"])
    quota = await _left_of_work(gw)
    answer = await gw.post("/generate-image", json=SUN | {"seed": 5})
    said = answer.json()
    assert (answer.status_code, said["status"], said["cached"], said["work_used"]) == (200, "completed", True, 0.0)
    assert (await gw.get(f"/task/{said['task_id']}/result")).content == picture(5, width=128, height=128)
    assert await _left_of_work(gw) == quota
    assert len(gw.platform.endpoint.queue.jobs) == 1
    other = await gw.post("/generate-image", json=SUN | {"seed": 5, "cache": False})
    assert other.status_code == 202


async def test_a_hit_costs_nothing_where_a_price_is_set(shared_redis: RedisProcess, tmp_path: Path) -> None:
    async with world(shared_redis.url, tmp_path, GPU_PRICE_PER_HOUR="1.2") as gw:
        await gw.gateway.offers.notices.makes(ModelIdentity(id="flux-tiny", revision="r", precision="float32"))
        made = await gw.create(seed=6)
        gw.hand.finish(await gw.hand.take())
        await gw.until_settled(made["task_id"])
        hit = (await gw.post("/generate-image", json=SUN | {"seed": 6})).json()
    assert (hit["cached"], hit["result"]["usage"]) == (True, {"work": 0, "gpu_seconds": 0, "cost_usd": 0.0})


async def test_a_hit_with_other_marks_than_workers_make_now_is_left_to_a_worker(
    shared_redis: RedisProcess, tmp_path: Path, tiny: ModelSpec
) -> None:
    offer = Offer(default_model="flux-tiny", models=(tiny.limits,), has_urls=False, max_video_work=9.0, marks="marks-1")
    async with world(shared_redis.url, tmp_path, CACHE_NAMESPACE="marks") as gw:
        await gw.gateway.offers.notices.makes(ModelIdentity(id="flux-tiny", revision="r", precision="float32"))
        await gw.gateway.offers.notices.offer(offer)
        made = await gw.create(seed=5)
        gw.hand.finish(await gw.hand.take())
        await gw.until(made["task_id"], "completed")
        assert (await gw.post("/generate-image", json=SUN | {"seed": 5})).status_code == 200
        await gw.gateway.offers.notices.offer(replace(offer, marks="off"))
    async with world(shared_redis.url, tmp_path, CACHE_NAMESPACE="marks") as gw:
        assert (await gw.post("/generate-image", json=SUN | {"seed": 5})).status_code == 202


async def test_files_are_what_the_worker_made(gw: World) -> None:
    made = await gw.create(seed=300, num_images=2)
    job = await gw.hand.take()
    both = result_of(job)
    second = picture(301, width=128, height=128)
    both["images"].append(
        both["images"][0]
        | {
            "seed": 301,
            "sha256": hashlib.sha256(second).hexdigest(),
            "bytes": len(second),
            "b64_json": base64.b64encode(second).decode(),
        }
    )
    gw.hand.finish(job, both)
    done = await gw.until(made["task_id"], "completed")
    for index, seed in enumerate((300, 301)):
        answer = await gw.client.get(done["result"]["images"][index]["url"])
        assert answer.content == picture(seed, width=128, height=128)


def _copied(task: Any, **changes: Any) -> Any:
    held = task.to_hash() | {name: str(value) for name, value in changes.items()}
    for name in ("ticket", "result", "files", "is_settled", "finished_at", "submitted_at"):
        held.pop(name, None)
    return type(task).from_hash(held)


async def _quota(gw: World) -> float:
    return float(gw.gateway.settings.max_work_per_day)


async def _left_of_work(gw: World) -> float:
    """Of the day's, which nothing falls out of while a test stalls."""
    usage = await gw.gateway.limits.usage("ada")
    return min(standing.remaining for standing in usage if standing.policy.name == "work-day")
