"""Requests and work: exact, once a task, given back, and counted on while Redis is away."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Literal

import pytest

from flux_engine.cache.redis_link import CacheAway, RedisLink, RemoteServer
from flux_engine.gateway.limits.manager import DAY_S, LimitsManager, LimitTerms
from flux_engine.gateway.limits.memory import MemoryWork
from flux_engine.gateway.limits.policy import Policy
from flux_engine.gateway.limits.work import RedisWork, WorkWindows
from flux_engine.gateway.problems import TooMany
from tests.servers import RedisProcess

Kind = Literal["redis", "memory"]
Make = Callable[[Kind], WorkWindows]


class Clock:
    """Time that a test moves, from the beginning of a slot on."""

    def __init__(self) -> None:
        self.now = 1_000_000_800.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


MINUTE = Policy(name="minute", quota=100, window_s=60)
DAY = Policy(name="day", quota=250, window_s=DAY_S, slots=48)
NOW = time.time()  # stands still, so that nothing falls out of a minute


@pytest.fixture
def make(link: RedisLink, root: str, clock: Clock) -> Make:
    """Work windows of either kind, with a clock of the test's."""

    def made(kind: Kind) -> WorkWindows:
        if kind == "redis":
            return RedisWork(link, (MINUTE, DAY), root=root, clock=clock)
        return MemoryWork((MINUTE, DAY), clock=clock)

    return made


def limits_of(
    link: RedisLink, root: str, *, minute: int = 100, day: int = 10_000, requests: int = 100
) -> LimitsManager:
    terms = LimitTerms(requests_per_minute=requests, work_per_minute=minute, work_per_day=day)
    return LimitsManager(link, terms, root=root, clock=lambda: NOW)


async def settle(limits: LimitsManager, task_id: str, work_used: float, *, user: str = "ada") -> None:
    await limits.settle(task_id, work_used, user=user, at=NOW)


async def ask(limits: LimitsManager, *, times: int) -> None:
    for _ in range(times):
        await limits.check_request("ada")


async def test_200_clients_are_counted_to_the_unit(link: RedisLink, root: str) -> None:
    """On two replicas, with amounts that do not divide the quota: not one unit too many, and none is left unused."""
    replicas = [limits_of(link, root, minute=1000), limits_of(link, root, minute=1000)]
    granted: list[float] = []

    async def client(number: int) -> None:
        for attempt in range(5):
            work = random.Random(number * 5 + attempt).choice((0.5, 1.25, 7, 33))
            try:
                reservation = await replicas[number % 2].reserve("ada", f"t{number}-{attempt}", work)
            except TooMany:
                continue
            granted.append(reservation.work)

    await asyncio.gather(*(client(number) for number in range(200)))
    standing = (await replicas[0].usage("ada"))[0]
    assert sum(granted) == 1000 - standing.remaining
    assert 0 <= standing.remaining < 0.5  # the smallest request no longer fits


async def test_reserve_settle_and_give_back_by_200_clients_leave_no_trace(link: RedisLink, root: str) -> None:
    limits = limits_of(link, root, minute=10**6, day=10**6)
    used = {f"t{number}": number / 8 for number in range(200)}

    async def client(task_id: str, work_used: float) -> None:
        await limits.reserve("ada", task_id, 40)
        await limits.reserve("ada", task_id, 40)  # sent again: no second charge
        if work_used < 5:
            await asyncio.gather(*(limits.give_back(task_id) for _ in range(3)))
        else:
            await asyncio.gather(*(settle(limits, task_id, work_used) for _ in range(3)))
            await limits.give_back(task_id)  # too late

    await asyncio.gather(*(client(*item) for item in used.items()))
    for standing in await limits.usage("ada"):
        assert 10**6 - standing.remaining == sum(work for work in used.values() if work >= 5)


@pytest.mark.parametrize("kind", ["redis", "memory"])
async def test_no_minute_holds_more_than_its_quota(kind: Kind, make: Make, clock: Clock) -> None:
    work, taken = make(kind), []
    for second in range(400):
        clock.now += 1
        for attempt in range(3):
            if (await work.reserve("ada", f"{second}-{attempt}", 7_000)).is_reserved:
                taken.append((clock.now, 7))
    for end, _ in taken:
        assert sum(amount for moment, amount in taken if end - 60 < moment <= end) <= 100
    assert sum(amount for _, amount in taken) == 245  # the day's quota, of which another 7 would be too many


@pytest.mark.parametrize("kind", ["redis", "memory"])
async def test_how_long_to_wait_is_true(kind: Kind, make: Make, clock: Clock) -> None:
    work = make(kind)
    await work.reserve("ada", "a", 60_000)
    clock.now += 30
    await work.reserve("ada", "b", 40_000)
    outcome = await work.reserve("ada", "c", 70_000)
    assert not outcome.is_reserved
    assert outcome.waits_s[0] == 63.0  # both have to go: the later one's slot of 3 s leaves the window then
    assert (outcome.standings[0].remaining, outcome.standings[0].reset_s) == (0, 33.0)
    clock.now += outcome.waits_s[0] - 0.001
    assert not (await work.reserve("ada", "c", 70_000)).is_reserved
    clock.now += 0.001
    assert (await work.reserve("ada", "c", 70_000)).is_reserved


@pytest.mark.parametrize("kind", ["redis", "memory"])
async def test_what_is_given_back_goes_to_the_slot_it_came_from(kind: Kind, make: Make, clock: Clock) -> None:
    work = make(kind)
    await work.reserve("ada", "a", 100_000)
    clock.now += 70  # out of the minute, still in the day
    await work.reserve("ada", "b", 100_000)
    assert await work.give_back("a")
    minute, day = await work.standing("ada")
    assert (minute.remaining, day.remaining) == (0, 150)
    assert not await work.give_back("a")
    assert not await work.give_back("unknown")
    assert (await work.standing("bob"))[1].remaining == 250


@pytest.mark.parametrize("kind", ["redis", "memory"])
async def test_more_used_than_reserved_is_charged(kind: Kind, make: Make, clock: Clock) -> None:
    work = make(kind)
    await work.reserve("ada", "a", 10_000)
    assert await work.settle("a", 130_000, user="ada", at=clock())
    minute, day = await work.standing("ada")
    assert (minute.remaining, day.remaining) == (-30, 120)
    assert '"minute";r=0;' in minute.header()


async def test_headers_and_problem_are_those_of_the_draft(link: RedisLink, root: str) -> None:
    limits = limits_of(link, root)
    reservation = await limits.reserve("ada", "a", 99.5)
    assert reservation.headers["RateLimit-Policy"] == (
        '"work-minute";q=100;qu="work";w=60, "work-day";q=10000;qu="work";w=86400'
    )
    assert reservation.headers["RateLimit"].startswith('"work-minute";r=0;t=')
    with pytest.raises(TooMany) as refusal:
        await limits.reserve("ada", "b", 1)
    problem, headers = refusal.value.body(), refusal.value.all_headers()
    assert problem["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert problem["violated-policies"] == ["work-minute"]
    assert (problem["status"], problem["retryable"], headers["x-should-retry"]) == (429, True, "true")
    effective_s = int(headers["RateLimit"].partition("t=")[2].partition(",")[0])
    assert effective_s <= int(headers["Retry-After"]) <= 63


async def test_what_can_never_be_is_not_tried_again(link: RedisLink, root: str) -> None:
    limits = limits_of(link, root)
    with pytest.raises(TooMany, match="at most 100 are allowed in 60 s") as refusal:
        await limits.reserve("ada", "a", 100.001)
    assert "Retry-After" not in refusal.value.all_headers()
    assert refusal.value.all_headers()["x-should-retry"] == "false"
    assert (await limits.reserve("ada", "a", 100)).work == 100


@pytest.mark.parametrize("work", [float("nan"), float("inf"), -1])
async def test_work_is_a_number(work: float, link: RedisLink, root: str) -> None:
    with pytest.raises(ValueError, match="number"):
        await limits_of(link, root).reserve("ada", "a", work)


async def test_users_do_not_share(link: RedisLink, root: str) -> None:
    limits = limits_of(link, root)
    for user in ("ada", "a:da", "a", "ada:1", "*", "ada%3A1"):
        assert (await limits.reserve(user, f"task of {user}", 100)).work == 100  # all that one user has


async def test_requests_are_limited(link: RedisLink, root: str) -> None:
    limits = limits_of(link, root, requests=5)
    said = [await limits.check_request("ada") for _ in range(5)]
    assert said[0]["RateLimit-Policy"] == '"requests";q=5;w=60'
    assert [headers["RateLimit"].split(";")[1] for headers in said] == ["r=4", "r=3", "r=2", "r=1", "r=0"]
    with pytest.raises(TooMany) as refusal:
        await limits.check_request("ada")
    assert refusal.value.body()["violated-policies"] == ["requests"]
    assert 1 <= int(refusal.value.all_headers()["Retry-After"]) <= 60
    await limits.check_request("bob")
    await limits.close()


async def test_requests_of_200_clients_are_counted_exactly(link: RedisLink, root: str) -> None:
    limits = limits_of(link, root, requests=300)

    async def client() -> int:
        passed = 0
        for _ in range(3):
            try:
                await limits.check_request("ada")
                passed += 1
            except TooMany:
                pass
        return passed

    assert sum(await asyncio.gather(*(client() for _ in range(200)))) == 300
    await limits.close()


async def test_redis_away_limits_go_on_in_memory_and_what_was_used_is_charged_later(
    redis: RedisProcess, root: str
) -> None:
    link = RedisLink(RemoteServer(redis.url), call_timeout_s=60, retry_after_s=0)
    limits = limits_of(link, root, requests=5)
    await limits.reserve("ada", "before", 60)
    await limits.check_request("ada")
    redis.kill()
    await limits.reserve("ada", "during", 80)
    with pytest.raises(TooMany):
        await limits.reserve("ada", "too much", 21)
    assert (await limits.usage("ada"))[0].remaining == 20
    await ask(limits, times=5)
    with pytest.raises(TooMany):
        await ask(limits, times=2)  # a minute that turns meanwhile leaves room for one more
    with pytest.raises(CacheAway):
        await limits.give_back("before")
    with pytest.raises(CacheAway):
        await settle(limits, "during", 70)
    redis.start()
    await limits.give_back("before")
    await settle(limits, "during", 70)
    assert (await limits.usage("ada"))[0].remaining == 30
    await limits.close()
    await link.close()


@pytest.mark.parametrize("before", ["nothing", "reserved", "returned", "settled"])
async def test_what_a_task_used_is_charged_once_whatever_came_before(before: str, link: RedisLink, root: str) -> None:
    limits = limits_of(link, root)
    if before != "nothing":
        await limits.reserve("ada", "a", 40)
    if before == "returned":
        await limits.give_back("a")
    if before == "settled":
        await settle(limits, "a", 7)
    for _ in range(2):
        await settle(limits, "a", 7)
        await limits.give_back("a")
    assert [100 - (await limits.usage("ada"))[0].remaining, await limits.left_open()] == [7, []]


async def test_a_hit_that_reserved_nothing_leaves_nothing(link: RedisLink, root: str) -> None:
    limits = limits_of(link, root)
    await settle(limits, "a", 0)
    assert [key async for key in (await link.client()).scan_iter(f"{root}*")] == []


async def test_reservations_left_open_are_asked_for_by_one_and_in_time(
    link: RedisLink, root: str, clock: Clock
) -> None:
    work = RedisWork(link, (MINUTE, DAY), root=root, clock=clock)
    for task_id in ("a", "b", "c"):
        await work.reserve("ada", task_id, 10_000)
    await work.settle("b", 10_000, user="ada", at=clock())
    assert await work.left_open(for_s=30, at_most=10) == []
    clock.now += 31
    assert await work.left_open(for_s=30, at_most=10) == ["a", "c"]
    assert await work.left_open(for_s=30, at_most=10) == []  # somebody has just asked
    await work.give_back("a")
    clock.now += 31
    assert await work.left_open(for_s=30, at_most=10) == ["c"]
