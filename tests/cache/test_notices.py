"""What workers tell: by what the results of a model are made, for as long as its weights are the same."""

from __future__ import annotations

from flux_engine.cache.manager import CacheManager
from flux_engine.cache.redis_link import RemoteServer
from flux_engine.job.fingerprint import ModelIdentity
from tests.servers import RedisProcess


async def test_other_weights_of_one_name_end_what_was_told_of_the_last(redis: RedisProcess) -> None:
    cache = CacheManager(RemoteServer(redis.url), namespace="one")
    first = [ModelIdentity(id="a/model", revision="1", precision=way) for way in ("bfloat16", "float16")]
    other = ModelIdentity(id="other", revision="1", precision="bfloat16")
    try:
        for identity in (*first, other):
            await cache.notices.makes(identity)
        assert set(await cache.notices.identities("a/model")) == set(first)
        replaced = ModelIdentity(id="a/model", revision="11", precision="bfloat16")
        await cache.notices.makes(replaced)
        assert await cache.notices.identities("a/model") == [replaced]
        assert await cache.notices.identities("other") == [other]
    finally:
        await cache.close()


async def test_what_a_server_did_not_take_is_told_with_the_next_job(redis: RedisProcess) -> None:
    cache = CacheManager(RemoteServer(redis.url), namespace="one")
    identity = ModelIdentity(id="a/model", revision="1", precision="bfloat16")
    try:
        await redis.refuse_writes("full")
        await cache.notices.makes(identity)
        await redis.take_writes()
        await cache.notices.makes(identity)
        assert await cache.notices.identities("a/model") == [identity]
    finally:
        await cache.close()
