"""How many results a second an S3 server takes from several workers at once.

The server is the one that BUCKET_ENDPOINT_URL and its keys name, as a worker reads them; where they are not set, the
tests' stand-in, in a process of its own.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Final

from flux_engine.results.bucket import BucketStore
from flux_engine.results.bucket_address import bucket_from_settings
from flux_engine.settings import Settings
from tests.servers import S3Process

WRITERS: Final = 4  # workers, each with a store of its own
PUTS: Final = 200


async def puts_a_second(size_bytes: int) -> float:
    """Stores PUTS results of that size, then deletes them."""
    data = os.urandom(size_bytes)
    async with _stores() as stores:
        keys = [f"{stores[0].prefix}/scaling/{number}.bin" for number in range(PUTS)]
        shares = [keys[number::WRITERS] for number in range(WRITERS)]
        await asyncio.gather(*(store.warm() for store in stores))
        began = time.monotonic()
        await asyncio.gather(*(_put(store, share, data) for store, share in zip(stores, shares, strict=True)))
        took_s = time.monotonic() - began
        await asyncio.gather(*(_delete(store, share) for store, share in zip(stores, shares, strict=True)))
    return PUTS / took_s


async def _put(store: BucketStore, keys: Sequence[str], data: bytes) -> None:
    for key in keys:
        await store.put(data, key=key, content_type="image/png")


async def _delete(store: BucketStore, keys: Sequence[str]) -> None:
    for key in keys:
        await store.delete(key)


@asynccontextmanager
async def _stores() -> AsyncIterator[list[BucketStore]]:
    settings = Settings.from_environment(os.environ)
    with ExitStack() as stack:
        if settings.bucket_endpoint_url is not None:
            bucket = bucket_from_settings(settings)
            made = [BucketStore(bucket) for _ in range(WRITERS)]
        else:
            server = S3Process(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scaling-s3-"))))
            server.start()
            stack.callback(server.kill)
            made = [server.store() for _ in range(WRITERS)]
        yield [stack.enter_context(closing(store)) for store in made]
