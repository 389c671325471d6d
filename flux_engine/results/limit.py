"""The platform's limit on the size of a result, kept before the platform sees it.

The platform drops a larger result without a word to the client, who sees COMPLETED without output (docs/facts.md).
"""

from __future__ import annotations

import asyncio
from typing import Final

from flux_engine.errors import ResultTooLarge
from flux_engine.job.image import ImageJob
from flux_engine.job.video import VideoJob
from flux_engine.results.delivery import Delivery, delivered, delivered_inline
from flux_engine.results.files import REENCODED_QUALITY, ResultFiles, as_jpeg
from flux_engine.results.result import Result
from flux_engine.results.store import ResultStore, put_all

RUN_LIMIT_BYTES: Final = 10_000_000
RUNSYNC_LIMIT_BYTES: Final = 20_000_000


async def fitted(result: Result, files: ResultFiles, job: ImageJob | VideoJob, store: ResultStore) -> Result:
    """`result`, or where the platform would not take it, the same in a smaller format, or with links.

    Raises ResultTooLarge where neither is possible, and StorageFailed.
    """
    limit = _limit_of(job.id)
    if result.size_bytes() <= limit:
        return result
    smaller = result
    if isinstance(job, ImageJob) and job.is_format_open and result.inline:
        smaller = await _as_jpegs(result, files, limit)
        if smaller.size_bytes() <= limit:
            return smaller
    if not store.has_urls:
        raise _too_large(smaller.size_bytes(), limit)
    await put_all(store, files.at_hand)  # `cache: false` keeps them out of it
    return _linked(result, await delivered(files, store, "url"), limit)


async def _as_jpegs(result: Result, files: ResultFiles, limit: int) -> Result:
    pixels = files.pixels or (None,) * len(files.entry.files)
    encoding = (
        asyncio.to_thread(as_jpeg, png, facts, picture, files.stamp)
        for png, facts, picture in zip(result.inline, files.entry.files, pixels, strict=True)
    )
    said = (
        f"the pictures are over the platform's {limit / 1e6:.0f} MB as png and `output_format` was left open: they "
        "came as jpg; for png ask for `response_format` `url`, which needs a bucket"
    )
    changed = {"output_format": "jpg", "output_quality": REENCODED_QUALITY}
    return result.delivered_as(delivered_inline(await asyncio.gather(*encoding)), parameters=changed, warning=said)


def _linked(result: Result, delivery: Delivery, limit: int) -> Result:
    said = (
        f"the result is over the platform's {limit / 1e6:.0f} MB with its files in it, so links came instead; ask for "
        "`response_format` `url`, fewer or smaller images, or a shorter video"
    )
    return result.delivered_as(delivery, parameters={"response_format": "url"}, warning=said)


def _too_large(size: int, limit: int) -> ResultTooLarge:
    return ResultTooLarge(
        f"the result is {size / 1e6:.1f} MB and the platform takes {limit / 1e6:.0f} MB; ask for fewer or smaller "
        "images, a shorter video, a smaller `output_format`, or for `response_format` `url`, which needs a bucket",
        field="response_format",
    )


def _limit_of(job_id: str) -> int:
    return RUNSYNC_LIMIT_BYTES if job_id.startswith("sync-") else RUN_LIMIT_BYTES
