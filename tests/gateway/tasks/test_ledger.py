"""What the ledger keeps in Redis of tasks that have ended, and for how long."""

from __future__ import annotations

import time

from flux_engine.gateway.tasks.ledger.reader import INDEX_KEPT
from tests.gateway.world import World

STAYS = ("keys", "line:last", "line:served", "line:tick")  # however many tasks there were


async def test_all_that_is_kept_of_a_task_expires(gw: World) -> None:
    """Also of one whose user lists no tasks."""
    made = await gw.create()
    gw.hand.finish(await gw.hand.take())
    await gw.until_settled(made["task_id"])
    redis, root = gw.gateway.redis, gw.gateway.settings.redis_root
    stays = [key async for key in redis.scan_iter(f"{root}:*") if await redis.ttl(key) == -1]
    assert {key.removeprefix(f"{root}:") for key in stays} <= set(STAYS)


async def test_a_list_that_nobody_reads_does_not_grow_for_ever(gw: World) -> None:
    redis, index = gw.gateway.redis, gw.gateway.ledger.keys.index("ada")
    now = time.time()
    await redis.zadd(
        index, {f"old-{number}": now - 60 for number in range(INDEX_KEPT)} | {"last year": now - 365 * 86_400}
    )
    made = await gw.create()
    assert await redis.zcard(index) == INDEX_KEPT
    assert await redis.zscore(index, "last year") is None
    listed = (await gw.get("/tasks")).json()["tasks"]
    assert [task["task_id"] for task in listed] == [made["task_id"]]
