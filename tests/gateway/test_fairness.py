"""Whoever has 500 tasks waiting delays nobody else's first by more than one."""

from __future__ import annotations

import asyncio

from flux_engine.gateway.seams import Principal
from flux_engine.gateway.tasks.wanted import Wanted
from tests.gateway.world import BOTH, SUN, World

TASKS = 500


async def test_500_waiting_tasks_delay_anothers_first_by_one(gw: World) -> None:
    many = Principal("ada", BOTH)

    free = asyncio.Semaphore(16)

    async def one(seed: int) -> None:
        async with free:
            await gw.gateway.intake.accept(Wanted(principal=many, body=SUN | {"seed": seed}, kind="image"))

    await one(0)
    running = await gw.hand.take()
    await asyncio.gather(*(one(seed) for seed in range(1, TASKS)))
    eve = await gw.key_of("eve")
    answer = await gw.post("/generate-image", json=SUN | {"seed": 9_999}, headers=eve)
    made = answer.json()
    assert (answer.status_code, made["position"] <= 1) == (202, True)
    gw.hand.finish(running)
    before = 0
    while (job := await gw.hand.take()).payload["input"]["seed"] != 9_999:  # type: ignore[index]
        before += 1
        gw.hand.finish(job)
    assert before <= 1
    usage = (await gw.get("/usage")).json()["tasks"]
    assert usage["waiting"] >= TASKS - 4
