"""The fair line: nobody buries another, and nothing is lost or handed out twice."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from flux_engine.cache.redis_link import RedisLink
from flux_engine.gateway.limits.line import LOW_EVERY, FairLine, LineCounts, LineTerms
from flux_engine.gateway.problems import TooMany
from flux_engine.gateway.seams import Turn


def line_of(link: RedisLink, root: str, *, a_user: int = 1000, in_all: int = 1000, waiting: int = 1000) -> FairLine:
    terms = LineTerms(in_flight_per_user=a_user, waiting_per_user=waiting, in_flight=lambda: in_all)
    return FairLine(link, terms, root=root)


async def drained(line: FairLine) -> list[str]:
    """The tasks in the order of their turns."""
    order = []
    while (turn := await line.next()) is not None:
        order.append(turn.task_id)
    return order


async def test_500_tasks_delay_anothers_first_by_at_most_one(link: RedisLink, root: str) -> None:
    """On one worker, whatever moment the other comes at."""
    line = line_of(link, root, in_all=1)
    for number in range(500):
        await line.enter("ada", f"a{number}", "normal")
    for moment in range(3):
        for _ in range(moment):
            turn = await line.next()
            assert turn is not None
            await line.leave(turn.user, turn.task_id)
        newcomer = f"newcomer-{moment}"
        await line.enter(newcomer, newcomer, "normal")
        assert await line.position(newcomer) in (0, 1)
        turns = []
        while newcomer not in turns:
            turn = await line.next()
            assert turn is not None
            assert await line.next() is None  # one worker, one task in flight
            turns.append(turn.task_id)
            await line.leave(turn.user, turn.task_id)
        assert len(turns) <= 2


async def test_users_are_served_in_turn_each_in_order(link: RedisLink, root: str) -> None:
    line = line_of(link, root)
    for name in ("a0", "a1", "a2", "b0", "b1", "c0"):
        await line.enter(name[0], name, "normal")
    positions = [await line.position(name) for name in ("a0", "b0", "c0", "a1", "b1", "a2")]
    assert positions == [0, 1, 2, 3, 4, 5]
    assert await drained(line) == ["a0", "b0", "c0", "a1", "b1", "a2"]
    assert await line.position("a0") is None


async def test_whoever_has_too_many_in_flight_is_passed_over_and_keeps_the_place(link: RedisLink, root: str) -> None:
    line = line_of(link, root, a_user=2)
    for name in ("a0", "a1", "a2", "b0", "b1", "b2"):
        await line.enter(name[0], name, "normal")
    assert await drained(line) == ["a0", "b0", "a1", "b1"]
    await line.leave("b", "b0")
    assert await drained(line) == ["b2"]
    await line.leave("a", "a1")
    assert await drained(line) == ["a2"]


async def test_a_turn_says_whether_its_user_has_others_in_flight(link: RedisLink, root: str) -> None:
    line = line_of(link, root)
    for name in ("a0", "a1", "b0"):
        await line.enter(name[0], name, "normal")
    turns = [await line.next() for _ in range(3)]
    assert [turn.is_first for turn in turns if turn is not None] == [True, True, False]


async def test_low_priority_comes_last_and_comes(link: RedisLink, root: str) -> None:
    line = line_of(link, root)
    for number in range(20):
        await line.enter("ada", f"n{number}", "normal")
    for number in range(3):
        await line.enter("bob", f"l{number}", "low")
    assert await line.position("l0") == 20
    order = await drained(line)
    assert [place for place, name in enumerate(order) if name[0] == "l"] == [LOW_EVERY - 1, 2 * LOW_EVERY - 1, 22]


async def test_every_step_may_be_sent_twice(link: RedisLink, root: str) -> None:
    line = line_of(link, root)
    for _ in range(2):
        await line.enter("ada", "a", "normal")
        await line.enter("ada", "b", "low")
    assert await line.counts("ada") == LineCounts(2, 0, 2, 0)
    assert await line.next() == Turn("ada", "a", is_first=True)
    await line.enter("ada", "a", "normal")  # it is in flight
    assert await line.counts("ada") == LineCounts(1, 1, 1, 1)
    for _ in range(2):
        await line.leave("ada", "a")
        await line.leave("ada", "b")
    assert await line.counts("ada") == LineCounts(0, 0, 0, 0)
    assert await line.next() is None
    assert await link.eval("return redis.call('KEYS', ARGV[1])", [], [f"{root}:line:[rwft]*"]) == [
        f"{root}:line:tick".encode()
    ]  # nothing of anybody stays behind


async def test_a_cancelled_task_leaves_the_others_in_order(link: RedisLink, root: str) -> None:
    line = line_of(link, root)
    for name in ("a0", "b0", "a1"):
        await line.enter(name[0], name, "normal")
    await line.leave("a", "a0")
    await line.leave("b", "b0")
    assert await drained(line) == ["a1"]


async def test_too_many_waiting_is_refused(link: RedisLink, root: str) -> None:
    line = line_of(link, root, waiting=2)
    await line.enter("ada", "a", "normal")
    await line.enter("ada", "b", "low")
    await line.enter("ada", "b", "low")
    with pytest.raises(TooMany, match="2 of your tasks wait"):
        await line.enter("ada", "c", "normal")
    await line.enter("bob", "d", "normal")


@pytest.mark.parametrize("user", ["ring", "low:ada", "a b", "ä", "*", "normal", ""])
async def test_no_users_name_reaches_anothers_tasks(user: str, link: RedisLink, root: str) -> None:
    line = line_of(link, root)
    await line.enter("ada", "a", "normal")
    await line.enter(user, "x", "low")
    assert await drained(line) == ["a", "x"]
    await line.leave(user, "x")
    assert await line.counts("ada") == LineCounts(0, 1, 0, 1)


async def test_many_dispatchers_hand_out_every_task_once(link: RedisLink, root: str) -> None:
    line, bound = line_of(link, root, a_user=3, in_all=10), 10
    tasks = [(f"u{number % 7}", f"t{number}") for number in range(140)]
    await asyncio.gather(*(line.enter(user, task, "normal") for user, task in tasks))
    handed: Counter[str] = Counter()

    async def dispatch() -> None:
        while len(handed) < len(tasks):
            turn = await line.next()
            if turn is None:
                await asyncio.sleep(0)
                continue
            handed[turn.task_id] += 1
            assert (await line.counts(turn.user)).in_flight_of_user <= 3
            assert (await line.counts()).in_flight <= bound
            await line.leave(turn.user, turn.task_id)

    await asyncio.gather(*(dispatch() for _ in range(20)))
    assert handed == {task: 1 for _, task in tasks}
