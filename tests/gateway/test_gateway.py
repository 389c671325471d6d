"""The gateway's background work and its end."""

from __future__ import annotations

import asyncio

from flux_engine.gateway.gateway import end


async def test_work_that_loses_a_cancellation_ends_all_the_same() -> None:
    lost = asyncio.Event()

    async def careless() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            lost.set()
        await asyncio.Event().wait()

    async def failing() -> None:
        raise OSError("no reason to stop the others")

    jobs = [asyncio.create_task(careless()), asyncio.create_task(failing())]
    await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await end(jobs)
    assert lost.is_set()
    assert all(job.done() for job in jobs)
