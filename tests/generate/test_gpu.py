"""The GPU thread: order, cancellation, and that it is free before a cancellation is reported."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable

import pytest

from flux_engine.errors import JobCancelled, OutOfMemory
from flux_engine.generate.gpu import Cancellation, GpuThread
from flux_engine.generate.turns import Turn


async def test_work_runs_in_the_order_it_was_given_on_one_thread() -> None:
    gpu, seen = GpuThread(), list[int]()

    def work(number: int) -> Callable[[Cancellation], str]:
        def on_the_thread(_: Cancellation) -> str:
            time.sleep(0.01)
            seen.append(number)
            return threading.current_thread().name

        return on_the_thread

    threads = await asyncio.gather(*(gpu.run(work(n)) for n in range(8)))
    gpu.close()
    assert seen == list(range(8))
    assert len(set(threads)) == 1


async def test_a_turn_taken_earlier_comes_first_though_its_work_was_handed_over_last() -> None:
    gpu, seen, release = GpuThread(), list[str](), threading.Event()
    busy = asyncio.create_task(gpu.run(lambda _: release.wait()))
    with gpu.turn() as first, gpu.turn() as second:
        later = asyncio.create_task(gpu.run(lambda _: seen.append("second"), turn=second))
        await asyncio.sleep(0)
        earlier = asyncio.create_task(gpu.run(lambda _: seen.append("first"), turn=first))
        await asyncio.sleep(0)
        release.set()
        await asyncio.gather(busy, later, earlier)
    gpu.close()
    assert seen == ["first", "second"]


async def test_what_is_done_first_is_told_first_however_late_the_loop_comes_to_it() -> None:
    """All work is done before the job that waited for its turn has woken up; the one behind it did not wait."""
    gpu, told, go = GpuThread(), list[str](), asyncio.Event()
    all_done = threading.Event()

    async def run(name: str, turn: Turn, *, waits: bool) -> None:
        if waits:
            await go.wait()
        await gpu.run(lambda _: all_done.set() if name == "third" else None, turn=turn)
        told.append(name)

    async def stall() -> None:
        await go.wait()
        all_done.wait()
        time.sleep(0.05)  # noqa: ASYNC251  # until the thread has told the loop too; if not, nothing is seen here

    with gpu.turn() as first, gpu.turn() as second, gpu.turn() as third:
        jobs = [run("first", first, waits=True), run("second", second, waits=False), run("third", third, waits=True)]
        running = asyncio.gather(*jobs, stall())
        await asyncio.sleep(0)
        go.set()
        await running
    gpu.close()
    assert told == ["first", "second", "third"]


async def test_the_shortest_work_is_told_in_its_order_too() -> None:
    """It may be over before the call that handed it over goes on: threads change places here as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    gpu, told = GpuThread(), list[list[int]]()

    async def run(number: int, turn: Turn, go: asyncio.Event) -> None:
        await go.wait()
        await gpu.run(lambda _: None, turn=turn)
        told[-1].append(number)

    try:
        for _ in range(500):
            told.append([])
            starts = asyncio.Event(), asyncio.Event()  # the second is ready first, and waits for its turn
            with gpu.turn() as first, gpu.turn() as second, gpu.turn() as third:
                jobs = run(1, first, starts[1]), run(2, second, starts[0]), run(3, third, starts[0])
                running = asyncio.gather(*jobs)
                for start in starts:
                    start.set()
                    await asyncio.sleep(0)
                await running
    finally:
        sys.setswitchinterval(before)
    gpu.close()
    assert told == [[1, 2, 3]] * 500


async def test_an_error_reaches_the_caller_and_the_thread_goes_on() -> None:
    gpu = GpuThread()

    def fails(_: Cancellation) -> None:
        raise OutOfMemory("too big")

    with pytest.raises(OutOfMemory):
        await gpu.run(fails)
    assert await gpu.run(lambda _: 5) == 5
    gpu.close()


async def test_cancelling_stops_the_work_before_it_is_reported() -> None:
    gpu, began, ended = GpuThread(), threading.Event(), threading.Event()

    def steps(cancellation: Cancellation) -> None:
        began.set()
        try:
            while True:
                time.sleep(0.01)
                cancellation.check()
        except JobCancelled:
            time.sleep(0.1)
            ended.set()
            raise

    task = asyncio.create_task(gpu.run(steps))
    await asyncio.to_thread(began.wait)
    task.cancel()
    await asyncio.sleep(0.02)
    task.cancel()  # asked twice
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
    assert await gpu.run(lambda _: "next") == "next"
    gpu.close()


def test_a_cancellation_calls_what_waits_for_something_else() -> None:
    cancellation, called = Cancellation(), list[str]()
    with cancellation.calling(lambda: called.append("before")):
        pass
    with cancellation.calling(lambda: called.append("during")):
        assert called == []
        cancellation.request()
        assert called == ["during"]
    with cancellation.calling(lambda: called.append("too late")):
        pass
    assert called == ["during", "too late"]


async def test_a_job_cancelled_while_it_waits_never_begins() -> None:
    gpu, release, ran = GpuThread(), threading.Event(), list[str]()
    first = asyncio.create_task(gpu.run(lambda _: release.wait()))
    waiting = asyncio.create_task(gpu.run(lambda _: ran.append("waiting")))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting  # at once, though the first still runs
    assert not first.done()
    release.set()
    await first
    gpu.close()
    assert ran == []
