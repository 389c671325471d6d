"""What was measured, kept in a real server: the last rows of each field."""

from __future__ import annotations

from flux_engine.cache.manager import CacheManager
from flux_engine.cache.measurements import MAX_FIELDS, ROWS
from flux_engine.cache.redis_link import RemoteServer
from tests.servers import RedisProcess


async def test_the_last_rows_are_kept_newest_first(redis: RedisProcess) -> None:
    cache = CacheManager(RemoteServer(redis.url), namespace="one")
    other = CacheManager(RemoteServer(redis.url), namespace="other")
    try:
        assert await cache.measurements.read("a/model") == {}
        for i in range(5):
            cache.measurements.note("a/model", {"x": {"n": i, "s": 0.25}})
        for i in range(5, 2 * ROWS):
            cache.measurements.note("a/model", {"x": {"n": i, "s": 0.25}, "y": {"n": i}})
        found = await cache.measurements.read("a/model")
        assert [row["n"] for row in found["x"]] == list(range(2 * ROWS - 1, ROWS - 1, -1))
        assert found["x"][0]["s"] == 0.25
        assert set(found) == {"x", "y"}
        assert await other.measurements.read("a/model") == {}
        assert await cache.measurements.read("a") == {}
    finally:
        await cache.close()
        await other.close()


async def test_fields_are_bounded(redis: RedisProcess) -> None:
    cache = CacheManager(RemoteServer(redis.url), namespace="one")
    cache.measurements.note("model", {f"field {i}": {"n": i} for i in range(MAX_FIELDS + 50)})
    assert len(await cache.measurements.read("model")) == MAX_FIELDS
    await cache.close()


async def test_what_was_noted_is_kept_before_the_server_is_left(redis: RedisProcess) -> None:
    cache = CacheManager(RemoteServer(redis.url), namespace="one")
    cache.measurements.note("model", {"x": {"n": 1}})
    await cache.close()
    reader = CacheManager(RemoteServer(redis.url), namespace="one")
    assert await reader.measurements.read("model") == {"x": [{"n": 1}]}
    await reader.close()


async def test_without_a_server_nothing_is_known(redis: RedisProcess) -> None:
    redis.kill()
    cache = CacheManager(RemoteServer(redis.url), namespace="one", call_timeout_s=0.2)
    cache.measurements.note("model", {"x": {"n": 1}})
    assert await cache.measurements.read("model") == {}
    await cache.close()
