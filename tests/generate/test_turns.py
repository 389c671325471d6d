"""The order in which jobs reach the device, whatever they do before."""

from __future__ import annotations

import random
from contextlib import ExitStack

import pytest

from flux_engine.generate.turns import Turn, Turns


class Jobs:
    """Jobs that have taken their turns in the order of their numbers; `begun` is the order at the device."""

    def __init__(self, count: int) -> None:
        self.begun: list[int] = []
        turns = Turns()
        self._blocks = [ExitStack() for _ in range(count)]
        self._turns: list[Turn] = [block.enter_context(turns.turn()) for block in self._blocks]

    def use(self, job: int) -> None:
        self._turns[job].use(lambda: self.begun.append(job))

    def give_up(self, job: int) -> None:
        self._turns[job].give_up()

    def end(self, job: int) -> None:
        self._blocks[job].close()


def test_jobs_begin_in_the_order_of_their_turns_whichever_is_ready_first() -> None:
    jobs = Jobs(3)
    jobs.use(2)
    jobs.use(1)
    assert jobs.begun == []
    jobs.use(0)
    assert jobs.begun == [0, 1, 2]


def test_a_job_that_begins_a_download_is_passed_and_comes_when_it_is_ready() -> None:
    jobs = Jobs(4)
    jobs.use(1)
    jobs.give_up(0)
    assert jobs.begun == [1]
    jobs.use(3)
    jobs.use(0)
    assert jobs.begun == [1, 0]  # before the third job, which keeps its turn, and nobody waits for it
    jobs.use(2)
    assert jobs.begun == [1, 0, 2, 3]


@pytest.mark.parametrize("way", ["end", "give_up"])
def test_a_job_that_needs_the_device_no_more_is_waited_for_no_more(way: str) -> None:
    jobs = Jobs(2)
    jobs.use(1)
    getattr(jobs, way)(0)
    assert jobs.begun == [1]


def test_a_job_begins_once_though_it_gives_up_and_ends_afterwards() -> None:
    jobs = Jobs(1)
    jobs.use(0)
    jobs.give_up(0)
    jobs.end(0)
    assert jobs.begun == [0]


def test_each_job_takes_its_turn_behind_those_that_are_there() -> None:
    turns, begun = Turns(), list[str]()
    with turns.turn() as first:
        with turns.turn() as second:
            second.use(lambda: begun.append("second"))
        first.use(lambda: begun.append("first"))
    with turns.turn() as third:
        third.use(lambda: begun.append("third"))
    assert begun == ["first", "second", "third"]


@pytest.mark.parametrize("seed", range(200))
def test_whatever_jobs_do_nobody_passes_one_that_kept_its_turn_and_nobody_waits_for_ever(seed: int) -> None:
    chance = random.Random(seed)
    count = chance.randint(2, 12)
    jobs, gave_up, used = Jobs(count), set[int](), set[int]()
    open_jobs = list(range(count))
    while open_jobs:
        job = chance.choice(open_jobs)
        match chance.choice(("use", "give_up", "end")):
            case "use" if job not in used:
                jobs.use(job)
                used.add(job)
            case "give_up":
                jobs.give_up(job)
                if job not in used:
                    gave_up.add(job)
            case "end":
                jobs.end(job)
                open_jobs.remove(job)
            case _:
                pass
    assert sorted(jobs.begun) == sorted(used)
    for job in used - gave_up:
        before = jobs.begun[: jobs.begun.index(job)]
        assert [other for other in before if other > job] == []
