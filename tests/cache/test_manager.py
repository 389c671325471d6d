from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from flux_engine.cache.flight import AWAY, Flight, Lookup
from flux_engine.cache.lua import WAKE, Terms
from flux_engine.cache.manager import CacheManager
from flux_engine.cache.redis_link import RETRY_REFUSED_S, RedisLink, RemoteServer
from flux_engine.errors import OutOfMemory, StorageFailed
from flux_engine.results.entry import CacheEntry
from flux_engine.results.folder import FolderStore
from tests.cache import twin_worker
from tests.cache.results_of import entry_of, read_back, stored
from tests.servers import RedisProcess, S3Process, fetched
from tests.waiting import PATIENCE_S, until
from tests.worker.faults.plan import Calls, Fault, Way
from tests.worker.faults.seams import RedisProxy

ONE, TWO, THREE = "1" * 64, "2" * 64, "3" * 64
LEASE_S = 600.0  # no stall outlasts it
QUICK = Terms(lease_s=LEASE_S, entry_s=3_600)


def cache_at(
    url: str, *, terms: Terms = QUICK, namespace: str = "test", call_timeout_s: float = PATIENCE_S
) -> CacheManager:
    return CacheManager(
        RemoteServer(url), namespace=namespace, terms=terms, call_timeout_s=call_timeout_s, retry_after_s=0.2
    )


@pytest.fixture
async def cache(redis: RedisProcess) -> AsyncIterator[CacheManager]:
    manager = cache_at(redis.url)
    yield manager
    await manager.close()


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "results")


async def make(
    cache: CacheManager, store: FolderStore, *, fingerprint: str = ONE, job_id: str = "job-1", **more: Any
) -> str:
    """One job: `hit` or `made`."""
    async with cache.flight(Lookup(fingerprint, job_id=job_id, store=store, **more)) as flight:
        if flight.hit is not None:
            return "hit"
        await asyncio.sleep(0.05)
        await flight.complete(await stored(store, fingerprint, b"picture of " + fingerprint.encode()))
        return "made" if flight.warning is None else "made without the cache"


async def is_cached(cache: CacheManager, store: FolderStore) -> bool:
    """Whether jobs go through Redis, which is not tried for a moment after it failed."""
    return await make(cache, store, fingerprint=THREE) != "made without the cache"


async def keys(redis: RedisProcess, pattern: str = "*") -> list[str]:
    async with Redis.from_url(redis.url, decode_responses=True) as client:
        return [str(key) for key in await client.keys(pattern)]


async def has_lease(redis: RedisProcess) -> bool:
    return bool(await keys(redis, "*:lease"))


async def has_progress(redis: RedisProcess) -> bool:
    return bool(await keys(redis, "*:progress"))


async def stored_entry(redis: RedisProcess) -> tuple[str, dict[str, Any]]:
    """The one entry that is there: its key and its JSON."""
    (key,) = await keys(redis, "*:entry")
    async with Redis.from_url(redis.url) as client:
        return key, json.loads(await client.get(key) or b"")


# -------------------------------------------------------------------------------------------------- hits


async def test_the_second_job_is_a_hit_with_the_facts_of_the_first(cache: CacheManager, store: FolderStore) -> None:
    assert await make(cache, store) == "made"
    async with cache.flight(Lookup(ONE, job_id="job-2", store=store)) as flight:
        assert flight.hit is not None
        (file,) = flight.hit.files
        assert (file.seed, file.width, file.content_type) == (7, 16, "image/png")
        assert await read_back(store, picture := b"picture of " + ONE.encode(), file.key) == picture
        assert flight.warning is None


async def test_jobs_of_another_fingerprint_namespace_or_store_never_meet(
    cache: CacheManager, store: FolderStore, redis: RedisProcess, tmp_path: Path
) -> None:
    elsewhere = cache_at(redis.url, namespace="other")
    assert await make(cache, store) == "made"
    assert await make(cache, store, fingerprint=TWO) == "made"
    assert await make(elsewhere, store) == "made"
    assert await make(cache, FolderStore(tmp_path / "another")) == "made"
    await elsewhere.close()


async def test_a_hit_is_one_round_trip(cache: CacheManager, store: FolderStore, redis: RedisProcess) -> None:
    await make(cache, store)
    sent = []
    async with Redis.from_url(redis.url, decode_responses=True) as client, Redis.from_url(redis.url) as watching:
        async with watching.monitor() as monitor:
            assert await make(cache, store, job_id="job-2") == "hit"
            await client.echo("the end")
            while "the end" not in (command := await monitor.next_command())["command"]:
                if command["client_type"] != "lua":  # those are inside of the one call
                    sent.append(command["command"].split(" ")[0])
    assert [name for name in sent if name not in ("CLIENT", "HELLO")] == ["EVAL"]


async def test_cache_false_neither_reads_nor_writes(
    cache: CacheManager, store: FolderStore, redis: RedisProcess
) -> None:
    assert await make(cache, store, use_cache=False) == "made"
    assert [key for key in await keys(redis) if not key.startswith("flux:test:task:")] == []
    await make(cache, store)
    assert await make(cache, store, use_cache=False) == "made"


async def test_an_entry_ends_with_its_time(redis: RedisProcess, store: FolderStore) -> None:
    cache = cache_at(redis.url, terms=replace(QUICK, entry_s=900))
    assert await make(cache, store) == "made"
    (key,) = await keys(redis, "*:entry")
    async with Redis.from_url(redis.url) as client:
        assert 0 < await client.ttl(key) <= 900
        await client.expire(key, 0)
    assert await make(cache, store) == "made"
    await cache.close()


async def test_an_hour_old_hit_is_given_a_url_that_works(cache: CacheManager, s3: S3Process) -> None:
    bucket = s3.store()
    async with cache.flight(Lookup(ONE, job_id="job-1", store=bucket)) as flight:
        entry = await stored(bucket, ONE, b"an old picture")
        old = entry_of(ONE, b"an old picture", prefix="flux", created_at=datetime.now(UTC) - timedelta(hours=1))
        assert old.files == entry.files
        await flight.complete(old)
    async with cache.flight(Lookup(ONE, job_id="job-2", store=bucket)) as flight:
        assert flight.hit is not None
        link = await bucket.url(flight.hit.files[0].key)
    assert fetched(link.url)[:2] == (200, b"an old picture")
    assert link.expires_at is not None
    assert link.expires_at > datetime.now(UTC) + timedelta(minutes=30)
    bucket.close()


# ---------------------------------------------------------------------------------------------- bad values


@pytest.mark.parametrize(
    "damage",
    [
        *("no JSON", "not UTF-8", "a list", "empty", "another version", "a field more", "another's", "outside"),
        *("upwards", "a key of other content", "no files", "huge", "another type"),
    ],
)
async def test_a_value_of_no_use_is_a_miss_and_is_removed(
    cache: CacheManager, tmp_path: Path, redis: RedisProcess, damage: str
) -> None:
    bucket_like = FolderStore(tmp_path, prefix="flux")
    await make(cache, bucket_like)
    key, good = await stored_entry(redis)
    file = good["files"][0]
    bad: dict[str, bytes] = {
        "no JSON": b"{",
        "not UTF-8": b"\xff\xfe",
        "a list": b"[]",
        "empty": b"",
        "another version": json.dumps(good | {"version": 2}).encode(),
        "a field more": json.dumps(good | {"pickle": "x"}).encode(),
        "another's": json.dumps(good | {"fingerprint": TWO}).encode(),
        "outside": json.dumps(good | {"files": [file | {"key": f"other/{file['sha256']}.png"}]}).encode(),
        "upwards": json.dumps(good | {"files": [file | {"key": f"flux/../{file['sha256']}.png"}]}).encode(),
        "a key of other content": json.dumps(good | {"files": [file | {"key": "flux/x.png"}]}).encode(),
        "no files": json.dumps(good | {"files": []}).encode(),
        "huge": json.dumps(good | {"warnings": ["x" * 70_000]}).encode(),
    }
    async with Redis.from_url(redis.url) as client:
        if damage == "another type":
            await client.delete(key)
            await client.sadd(key, "x")
        else:
            await client.set(key, bad[damage])
    async with cache.flight(Lookup(ONE, job_id="job-2", store=bucket_like)) as flight:
        assert (flight.hit, flight.warning) == (None, None)
        assert await keys(redis, "*:entry") == []
    assert await make(cache, bucket_like) == "made"
    assert await make(cache, bucket_like) == "hit"


async def test_a_hit_whose_object_is_gone_is_a_miss(cache: CacheManager, store: FolderStore, tmp_path: Path) -> None:
    await make(cache, store)
    for path in (tmp_path / "results").glob("*.png"):
        path.unlink()
    assert await make(cache, store) == "made"
    assert await make(cache, store) == "hit"


@pytest.mark.parametrize("name", ["../flux:test", "a b\r\nFLUSHALL", "x:entry", "*", "é🌞", "\ud800", "", "x" * 5000])
async def test_no_name_from_outside_steers_a_key(redis: RedisProcess, store: FolderStore, name: str) -> None:
    cache = cache_at(redis.url, namespace=name)
    await make(cache, store, job_id=name)
    for key in await keys(redis):
        assert len(key) < 20_000
        assert set(key) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:%._~-")
        assert len(key.split(":")) in (4, 5)
    status = await cache.task_status(name)
    assert status is not None
    assert status.status == "completed"
    for wrong in ("1" * 63, ONE.upper()[:-1] + "G", f"{ONE}:entry"):
        with pytest.raises(ValueError, match="two hashes"):
            await make(cache, store, fingerprint=wrong)
    await cache.close()


# --------------------------------------------------------------------------------------------------- twins


async def test_fifty_identical_jobs_in_two_processes_are_one_generation(redis: RedisProcess, tmp_path: Path) -> None:
    workers = [twin(redis, tmp_path, jobs=25, work_s=1.0, twins=49) for _ in range(2)]
    results = [job for worker in workers for job in json.loads((await ended(worker)).splitlines()[-1])]
    assert len(results) == 50
    assert len((tmp_path / "generated").read_text().splitlines()) == 1
    assert {job["sha256"] for job in results} == {results[0]["sha256"]}
    assert {job["warning"] for job in results} == {None}
    assert sum(job["was_hit"] for job in results) == 49
    waited = [job["progress"] for job in results if job["progress"]]
    assert len(waited) > 20  # those saw the owner's progress as their own
    assert all(seen == sorted(seen) for seen in waited)


async def test_a_waiter_takes_over_from_an_owner_that_was_killed(redis: RedisProcess, tmp_path: Path) -> None:
    owner = twin(redis, tmp_path, jobs=1, work_s=600)
    assert owner.stdout is not None
    await asyncio.to_thread(owner.stdout.readline)
    waiters = twin(redis, tmp_path, jobs=3, work_s=0.2)
    await until_waiting(redis, 3)
    owner.kill()
    await asyncio.to_thread(owner.communicate)
    (lease,) = await keys(redis, "*:lease")
    async with Redis.from_url(redis.url) as client:  # the waiters see the end of a lease that has a second to go
        (channel,) = await client.pubsub_channels("*:events")
        await client.pexpire(lease, 1_000)
        await client.publish(channel, WAKE)
    results = json.loads((await ended(waiters)).splitlines()[-1])
    assert [job["was_hit"] for job in results].count(False) == 1
    assert len((tmp_path / "generated").read_text().splitlines()) == 2


def twin(redis: RedisProcess, folder: Path, *, jobs: int, work_s: float, twins: int = 0) -> subprocess.Popen[str]:
    arguments = [redis.url, str(folder), str(jobs), str(work_s), str(LEASE_S), str(twins)]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.cache.twin_worker", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONPATH": "."},
    )


async def ended(process: subprocess.Popen[str]) -> str:
    output, _ = await asyncio.to_thread(process.communicate, timeout=300)
    assert process.returncode == 0
    return output


async def until_waiting(redis: RedisProcess, count: int) -> None:
    await twin_worker.until_waiting(redis.url, count)


async def test_a_job_is_told_before_it_waits_and_only_then(
    cache: CacheManager, store: FolderStore, redis: RedisProcess
) -> None:
    told = asyncio.Event()
    async with cache.flight(Lookup(ONE, job_id="owner", store=store, before_waiting=told.set)) as owner:
        assert not told.is_set()
        waiter = asyncio.create_task(make(cache, store, job_id="waiter", before_waiting=told.set))
        await told.wait()
        told.clear()
        await owner.complete(await stored(store, ONE, b"x"))
    assert await waiter == "hit"
    told.clear()
    assert await make(cache, store, before_waiting=told.set) == "hit"
    assert told.is_set()  # the store is asked for the file


async def a_twin_of(
    owner: Flight, cache: CacheManager, store: FolderStore, redis: RedisProcess
) -> tuple[asyncio.Task[str], asyncio.Queue[dict[str, Any]]]:
    """A job that waits for `owner` and has seen it half done; and what else it will see."""
    seen: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    owner.share_progress({"stage": "denoising", "progress": 0.5})
    await until(lambda: has_progress(redis))  # so that its look finds it, and no message brings it once more
    waiter = asyncio.create_task(make(cache, store, job_id="waiter", on_progress=seen.put_nowait))
    assert await seen.get() == {"stage": "denoising", "progress": 0.5}
    return waiter, seen


async def test_waiters_sleep_until_they_are_woken(cache: CacheManager, store: FolderStore, redis: RedisProcess) -> None:
    patient = cache_at(redis.url, terms=Terms(lease_s=LEASE_S))
    async with patient.flight(Lookup(ONE, job_id="owner", store=store)) as owner:
        waiter, seen = await a_twin_of(owner, patient, store, redis)
        async with Redis.from_url(redis.url) as client:
            before = (await client.info("commandstats"))["cmdstat_eval"]["calls"]
            await asyncio.sleep(0.5)  # the time is the subject: a poll, were there one, would come within it
            after = (await client.info("commandstats"))["cmdstat_eval"]["calls"]
        assert after == before  # nobody asks anything meanwhile
        await owner.complete(await stored(store, ONE, b"x"))
        async with asyncio.timeout(PATIENCE_S):  # it was woken: the lease has longer to go
            assert await waiter == "hit"
    assert seen.empty()
    status = await patient.task_status("waiter")
    assert status is not None
    assert status.status == "completed"
    await patient.close()


async def test_a_wake_that_is_sent_while_the_subscription_is_broken_is_not_lost(
    redis: RedisProcess, store: FolderStore
) -> None:
    """The server handles the three commands in one go, before the waiter can subscribe again."""
    patient = cache_at(redis.url, terms=Terms(lease_s=LEASE_S))
    async with patient.flight(Lookup(ONE, job_id="owner", store=store)) as owner:
        waiter, _ = await a_twin_of(owner, patient, store, redis)
        (lease,) = await keys(redis, "*:lease")
        async with Redis.from_url(redis.url) as client, client.pipeline(transaction=False) as commands:
            (channel,) = await client.pubsub_channels("*:events")
            commands.client_kill_filter(_type="pubsub")
            commands.delete(lease)
            commands.publish(channel, WAKE)
            assert (await commands.execute())[-1] == 0  # nobody heard it
        async with asyncio.timeout(PATIENCE_S):  # the lease has longer to go
            assert await waiter == "made"
    await patient.close()


async def test_a_message_that_is_older_than_a_look_is_not_passed_on(
    cache: CacheManager, store: FolderStore, redis: RedisProcess
) -> None:
    """A waiter subscribes and then looks: what was sent between the two arrives after what the look has found."""
    async with cache.flight(Lookup(ONE, job_id="owner", store=store)) as owner:
        waiter, seen = await a_twin_of(owner, cache, store, redis)
        async with Redis.from_url(redis.url) as client:
            (channel,) = await client.pubsub_channels("*:events")
            for progress in (0.4, 0.5, 0.6):
                await client.publish(channel, json.dumps({"stage": "denoising", "progress": progress}))
        assert [(await seen.get())["progress"] for _ in range(2)] == [0.5, 0.6]
        await owner.complete(await stored(store, ONE, b"x"))
    assert await waiter == "hit"


@pytest.mark.parametrize("way", ["error", "cancelled", "forgotten"])
async def test_when_the_owner_does_not_finish_one_waiter_takes_over_at_once(
    redis: RedisProcess, store: FolderStore, way: str
) -> None:
    cache = cache_at(redis.url, terms=Terms(lease_s=LEASE_S))
    claimed = asyncio.Event()

    async def own() -> None:
        async with cache.flight(Lookup(ONE, job_id="owner", store=store)):
            claimed.set()
            if way == "cancelled":
                await asyncio.sleep(60)
            await until_waiting(redis, 3)
            if way == "error":
                raise OutOfMemory("it did not fit")

    owner = asyncio.create_task(own())
    await claimed.wait()
    waiters = [asyncio.create_task(make(cache, store, job_id=f"waiter-{i}")) for i in range(3)]
    if way == "cancelled":
        await until_waiting(redis, 3)  # else the owner itself looks, and they are gone once it has seen them
        owner.cancel()
    await asyncio.wait([owner])
    async with asyncio.timeout(PATIENCE_S):
        assert sorted(await asyncio.gather(*waiters)) == ["hit", "hit", "made"]
    status = await cache.task_status("owner")
    assert status is not None
    expected = {
        "error": ("failed", "out_of_memory"),
        "cancelled": ("failed", "cancelled"),
        "forgotten": ("completed", None),
    }
    assert (status.status, status.error) == expected[way]
    assert owner.cancelled() is (way == "cancelled")
    await cache.close()


async def test_a_cancelled_waiter_leaves_the_owner_alone(
    cache: CacheManager, store: FolderStore, redis: RedisProcess
) -> None:
    async with cache.flight(Lookup(ONE, job_id="owner", store=store)) as owner:
        waiter = asyncio.create_task(make(cache, store, job_id="waiter"))
        await until_waiting(redis, 1)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        assert any(key.endswith(":lease") for key in await keys(redis))
        await owner.complete(await stored(store, ONE, b"x"))
    assert await make(cache, store) == "hit"
    status = await cache.task_status("waiter")
    assert status is not None
    assert status.error == "cancelled"


@pytest.mark.parametrize("stage", ["entering", "generating", "completing"])
async def test_cancelling_at_any_moment_leaves_no_lease_behind(
    redis: RedisProcess, store: FolderStore, stage: str
) -> None:
    cache = cache_at(redis.url, terms=Terms(lease_s=LEASE_S))
    entry = await stored(store, ONE, b"x")
    were_cancelled = 0
    for number in range(40):
        reached = asyncio.Event()
        job = asyncio.create_task(run_to(stage, reached, cache, store, entry, f"{number:064x}"))
        await reached.wait()
        if number % 2:
            for _ in range(number // 2):
                await asyncio.sleep(0)
        else:
            await asyncio.sleep(number / 20_000)
        job.cancel()
        await asyncio.wait([job])
        were_cancelled += job.cancelled()
    assert were_cancelled > 5
    assert await keys(redis, "*:lease") == []
    await cache.close()


async def run_to(
    stage: str, reached: asyncio.Event, cache: CacheManager, store: FolderStore, entry: CacheEntry, fingerprint: str
) -> None:
    """One job that sets `reached` when it comes to `stage`."""
    if stage == "entering":
        reached.set()
    async with cache.flight(Lookup(fingerprint, job_id=fingerprint, store=store)) as flight:
        if stage == "generating":
            reached.set()
            await asyncio.sleep(60)
        if stage == "completing":
            reached.set()
        await flight.complete(entry.model_copy(update={"fingerprint": fingerprint}))


async def test_no_cancellation_is_lost_on_the_way_to_redis(redis: RedisProcess) -> None:
    link = RedisLink(RemoteServer(redis.url))

    async def ask_for_ever() -> None:
        while True:
            await link.eval("return 1", [], [])

    for turns in range(120):  # a cancellation at every point of a call
        asking = asyncio.create_task(ask_for_ever())
        for _ in range(turns % 40 + 1):
            await asyncio.sleep(0)
        asking.cancel()
        done, _ = await asyncio.wait([asking], timeout=PATIENCE_S)
        assert done, f"lost after {turns} turns"
    await link.close()


async def test_a_lease_outlives_its_length_while_the_work_goes_on(redis: RedisProcess, store: FolderStore) -> None:
    lease_ms = 4_000
    cache = cache_at(redis.url, terms=replace(QUICK, lease_s=lease_ms / 1000))
    async with cache.flight(Lookup(ONE, job_id="owner", store=store)) as owner, Redis.from_url(redis.url) as client:
        waiter = asyncio.create_task(make(cache, store, job_id="waiter"))
        (lease,) = await keys(redis, "*:lease")
        added_ms, left_ms = 0, await client.pttl(lease)
        while added_ms <= lease_ms:
            await asyncio.sleep(0.02)
            before_ms, left_ms = left_ms, await client.pttl(lease)
            added_ms += max(0, left_ms - before_ms)
        assert not waiter.done()
        await owner.complete(await stored(store, ONE, b"x"))
    assert await waiter == "hit"
    await cache.close()


async def test_an_owner_that_hangs_is_not_waited_for_for_ever(redis: RedisProcess, store: FolderStore) -> None:
    cache = cache_at(redis.url, terms=replace(QUICK, wait_limit_s=0.5))
    async with cache.flight(Lookup(ONE, job_id="owner", store=store)):
        async with cache.flight(Lookup(ONE, job_id="waiter", store=store)) as waiter:
            assert waiter.hit is None
            assert waiter.warning is not None
    await cache.close()


# ------------------------------------------------------------------------------------------- task status


async def test_the_status_of_a_task(cache: CacheManager, store: FolderStore) -> None:
    assert await cache.task_status("job-1") is None
    async with cache.flight(Lookup(ONE, job_id="job-1", store=store)) as flight:
        under_way = await cache.task_status("job-1")
        assert under_way is not None
        assert (under_way.status, under_way.finished_at, under_way.result) == ("processing", None, None)
        await flight.complete(await stored(store, ONE, b"x"))
    await make(cache, store, job_id="job-2")
    for job_id in ("job-1", "job-2"):
        done = await cache.task_status(job_id)
        assert done is not None
        assert done.status == "completed"
        assert done.result is not None
        assert await read_back(store, b"x", done.result.files[0].key) == b"x"
        assert done.finished_at is not None
        assert done.started_at <= done.finished_at


async def test_a_job_without_the_cache_waits_for_no_server(redis: RedisProcess, store: FolderStore) -> None:
    cache = cache_at(redis.url, call_timeout_s=60)
    assert await cache.task_status("job-1") is None  # connected
    redis.freeze()
    async with cache.flight(Lookup(ONE, job_id="job-1", store=store, use_cache=False)) as flight:
        assert flight.warning is None
    redis.thaw()
    status = await cache.task_status("job-1")
    assert status is not None
    assert (status.status, status.result) == ("completed", None)
    await cache.close()


# ----------------------------------------------------------------------------------------- Redis is away


async def test_redis_is_away_from_the_start_and_comes_later(
    redis: RedisProcess, store: FolderStore, caplog: pytest.LogCaptureFixture
) -> None:
    cache = cache_at(redis.url)
    redis.kill()
    for _ in range(3):
        assert await make(cache, store) == "made without the cache"
    assert await cache.task_status("job-1") is None
    assert caplog.text.count("result cache unreachable") == 1
    redis.start()
    await until(lambda: is_cached(cache, store))
    assert await make(cache, store, fingerprint=TWO) == "made"
    assert await make(cache, store, fingerprint=TWO) == "hit"
    assert caplog.text.count("result cache reachable again") == 1
    await cache.close()


async def test_what_was_made_while_redis_was_away_is_a_hit_once_it_is_back(
    redis: RedisProcess, store: FolderStore
) -> None:
    cache, other = cache_at(redis.url), cache_at(redis.url)
    async with cache.flight(Lookup(ONE, job_id="owner", store=store)) as owner:
        redis.kill()
        assert not await owner.complete(await stored(store, ONE, b"x"))
    redis.start()
    await until(lambda: is_hit(other, store))
    assert not await has_lease(redis)
    status = await other.task_status("owner")
    assert status is not None
    assert status.status == "completed"
    assert status.result is not None
    for manager in (cache, other):
        await manager.close()


async def is_hit(cache: CacheManager, store: FolderStore) -> bool:
    return await cache.find_stored(ONE, store=store) is not None


async def test_a_server_that_refuses_connections_is_asked_again_soon(redis: RedisProcess, store: FolderStore) -> None:
    cache = CacheManager(RemoteServer(redis.url), namespace="test", terms=QUICK, retry_after_s=3600)
    redis.kill()
    assert await make(cache, store) == "made without the cache"
    redis.start()
    await until(lambda: is_cached(cache, store))
    await cache.close()


async def test_a_server_that_does_not_answer_is_left_alone(redis: RedisProcess, store: FolderStore) -> None:
    cache = CacheManager(RemoteServer(redis.url), namespace="test", terms=QUICK, call_timeout_s=0.5, retry_after_s=3600)
    redis.freeze()
    assert await make(cache, store) == "made without the cache"
    redis.thaw()
    await asyncio.sleep(RETRY_REFUSED_S)  # by now one that refuses connections would be asked again
    assert await make(cache, store) == "made without the cache"
    await cache.close()


@pytest.mark.parametrize("fault", ["killed", "frozen"])
@pytest.mark.parametrize("stage", ["generating", "waiting"])
async def test_redis_goes_away_during_a_job(redis: RedisProcess, store: FolderStore, stage: str, fault: str) -> None:
    cache = cache_at(redis.url, terms=replace(QUICK, lease_s=2), call_timeout_s=0.5)
    async with cache.flight(Lookup(ONE, job_id="owner", store=store)) as owner:
        waiter = None
        if stage == "waiting":
            waiter = asyncio.create_task(make(cache, store, job_id="waiter"))
            await until_waiting(redis, 1)
        if fault == "killed":
            redis.kill()
        else:
            redis.freeze()
        async with asyncio.timeout(PATIENCE_S):
            await owner.complete(await stored(store, ONE, b"x"))
        assert owner.warning == AWAY
    if waiter is not None:
        async with asyncio.timeout(PATIENCE_S):
            assert await waiter == "made without the cache"
    redis.kill()
    redis.start()
    await until(lambda: is_cached(cache, store))
    assert await make(cache, store, fingerprint=TWO) == "made"
    assert await make(cache, store, fingerprint=TWO) == "hit"
    await cache.close()


async def test_redis_restarts_during_a_job_without_anyone_noticing(redis: RedisProcess, store: FolderStore) -> None:
    cache = cache_at(redis.url, terms=replace(QUICK, lease_s=3))
    async with cache.flight(Lookup(ONE, job_id="owner", store=store)) as owner:
        async with Redis.from_url(redis.url) as client:
            await client.flushall()  # a server without a disk forgets the lease
        redis.kill()
        redis.start()
        await until(lambda: has_lease(redis))  # taken back at the next renewal
        await owner.complete(await stored(store, ONE, b"x"))
        assert owner.warning is None
    assert await make(cache, store) == "hit"
    await cache.close()


@pytest.mark.parametrize(
    "url", ["redis://:wrong-password@127.0.0.1:1/0", "redis://127.0.0.1:1", "unix:///no/such.sock"]
)
async def test_a_server_that_was_never_there(url: str, store: FolderStore, caplog: pytest.LogCaptureFixture) -> None:
    cache = cache_at(url)
    assert await make(cache, store) == "made without the cache"
    assert "wrong-password" not in caplog.text
    await cache.close()


@pytest.mark.parametrize("way", ["full", "read-only"])
async def test_a_server_that_refuses_writes_still_gives_hits(
    redis: RedisProcess, store: FolderStore, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache = cache_at(redis.url)
    assert await make(cache, store) == "made"
    await redis.refuse_writes(way)
    for _ in range(2):
        assert await make(cache, store, fingerprint=TWO) == "made without the cache"
        async with cache.flight(Lookup(ONE, job_id="job-2", store=store)) as flight:
            assert flight.hit is not None
            assert flight.warning is None
    assert caplog.text.count("result cache refused a call") == 1
    await redis.take_writes()
    assert await make(cache, store, fingerprint=THREE) == "made"  # the other's late write may have come by now
    assert await make(cache, store, fingerprint=THREE) == "hit"
    await cache.close()


@pytest.mark.parametrize("ends", ["completed", "failed"])
async def test_a_server_that_is_full_meanwhile_keeps_no_lease(
    redis: RedisProcess, store: FolderStore, ends: str
) -> None:
    cache = cache_at(redis.url, terms=Terms(lease_s=LEASE_S))

    async def own() -> None:
        async with cache.flight(Lookup(ONE, job_id="owner", store=store)) as owner:
            await redis.refuse_writes("full")
            if ends == "failed":
                raise OutOfMemory("it did not fit")
            await owner.complete(await stored(store, ONE, b"x"))

    await asyncio.wait([asyncio.create_task(own())])
    assert await keys(redis, "*:lease") == []
    await redis.take_writes()
    async with asyncio.timeout(PATIENCE_S):
        assert await make(cache, store) in ("made", "hit")
    await cache.close()


# --------------------------------------------------------------------------- a store that shows not everything


class Reserved(FolderStore):
    """A bucket that answers 403 to whoever asks for a file."""

    async def exists(self, key: str, *, size: int) -> bool | None:
        return None


async def test_an_entry_whose_files_are_not_shown_is_a_miss_and_stays_for_the_others(
    cache: CacheManager, store: FolderStore, redis: RedisProcess, tmp_path: Path
) -> None:
    assert await make(cache, store) == "made"
    _, before = await stored_entry(redis)
    async with cache.flight(Lookup(ONE, job_id="reserved", store=Reserved(tmp_path / "results"))) as flight:
        assert (flight.hit, flight.warning) == (None, None)
        assert (await stored_entry(redis))[1] == before
        assert await make(cache, store) == "hit"
        await flight.complete(await stored(store, ONE, b"anew"))
    assert (await stored_entry(redis))[1] != before
    assert await make(cache, store) == "hit"
    assert await keys(redis, "*:lease") == []


# -------------------------------------------------------------------------------------------------- calls that fail


async def test_a_result_that_was_not_delivered_stays_failed(redis: RedisProcess, store: FolderStore) -> None:
    """Also where the server takes only late that it was made."""
    cache, other = cache_at(redis.url), cache_at(redis.url)
    with suppress(StorageFailed):
        async with cache.flight(Lookup(ONE, job_id="job", store=store)) as flight:
            redis.kill()
            assert not await flight.complete(await stored(store, ONE, b"x"))
            redis.start()
            raise StorageFailed("no URL")
    await until(lambda: is_hit(other, store))
    status = await other.task_status("job")
    assert status is not None
    assert (status.status, status.error) == ("failed", "storage_failed")
    for manager in (cache, other):
        await manager.close()


@pytest.mark.parametrize("use_cache", [True, False])
async def test_the_end_of_a_job_is_told_once_redis_is_back(
    redis: RedisProcess, store: FolderStore, use_cache: bool
) -> None:
    """And its lease is free then, not after its length."""
    terms = Terms(lease_s=3600)
    cache, other = cache_at(redis.url, terms=terms), cache_at(redis.url)
    with suppress(OutOfMemory):
        async with cache.flight(Lookup(ONE, job_id="job", store=store, use_cache=use_cache)):
            assert await cache.task_status("job") is not None  # its beginning
            redis.kill()
            raise OutOfMemory("made up")
    await cache.task_status("job")  # what was to be written soon has been tried
    redis.start()

    async def is_told() -> bool:
        status = await other.task_status("job")
        return status is not None and status.error == "out_of_memory"

    await until(is_told)
    assert not await has_lease(redis)
    for manager in (cache, other):
        await manager.close()


async def test_the_late_end_of_a_job_says_nothing_of_its_next_try(redis: RedisProcess, store: FolderStore) -> None:
    first, second = cache_at(redis.url), cache_at(redis.url)
    with suppress(OutOfMemory):
        async with first.flight(Lookup(ONE, job_id="job", store=store)):
            redis.kill()
            raise OutOfMemory("made up")
    redis.start()
    async with second.flight(Lookup(TWO, job_id="job", store=store)) as flight:
        await flight.complete(await stored(store, TWO, b"x"))
    await until(lambda: _is_free(redis))  # the first try's end has been told
    status = await second.task_status("job")
    assert status is not None
    assert status.status == "completed"
    for manager in (first, second):
        await manager.close()


async def _is_free(redis: RedisProcess) -> bool:
    return not await has_lease(redis)


async def test_what_no_store_can_be_named_for_is_not_remembered(cache: CacheManager, tmp_path: Path) -> None:
    """So that the volume notes it."""
    (tmp_path / "results").write_text("a file where the folder should be")
    store = FolderStore(tmp_path / "results")
    async with cache.flight(Lookup(ONE, job_id="job", store=store)) as flight:
        assert not await flight.complete(entry_of(ONE, b"x"))
    status = await cache.task_status("job")
    assert status is not None
    assert status.status == "completed"


async def test_what_was_found_in_time_is_not_lost_while_the_subscription_is_closed(
    redis: RedisProcess, store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_s = 3.0
    cache = cache_at(redis.url, terms=Terms(lease_s=60, wait_limit_s=limit_s))
    waiting, close = asyncio.Event(), PubSub.aclose

    async def slow_close(messages: PubSub) -> None:
        await asyncio.sleep(limit_s)
        await close(messages)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(PubSub, "aclose", slow_close)
    async with cache.flight(Lookup(ONE, job_id="owner", store=store)) as owner:
        lookup = Lookup(ONE, job_id="waiter", store=store, before_waiting=waiting.set)
        waiter = cache.flight(lookup)
        entering = asyncio.create_task(waiter.__aenter__())
        await waiting.wait()
        await owner.complete(await stored(store, ONE, b"x"))
    await entering
    assert waiter.hit is not None
    assert waiter.warning is None
    await waiter.__aexit__(None, None, None)
    await cache.close()


@pytest.mark.parametrize("way", ["lost", "cancelled, read late"])
async def test_a_claim_whose_answer_does_not_arrive(redis: RedisProcess, store: FolderStore, way: Way) -> None:
    """It is renewed for as long as the job runs, and freed however the job ends."""
    calls = Calls()
    proxy, terms = RedisProxy(redis.port, calls), Terms(lease_s=1.5)
    async with proxy.serving() as url, Redis.from_url(redis.url) as client:
        cache = cache_at(url, terms=terms if way == "lost" else Terms(lease_s=3600))

        async def run() -> None:
            async with cache.flight(Lookup(ONE, job_id="job", store=store)):
                (lease,) = await client.keys("*:lease")
                left_ms = await client.pttl(lease)
                while (now_ms := await client.pttl(lease)) <= left_ms:
                    assert now_ms > 0, "the lease lapsed"
                    await asyncio.sleep(0.02)

        running = asyncio.create_task(run())
        calls.arm(running, Fault("redis", 1, way))
        await asyncio.wait([running])
        assert running.cancelled() is (way != "lost")
        assert running.cancelled() or running.exception() is None
        await cache.close()
        assert await client.keys("*:lease") == []
