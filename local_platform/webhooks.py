"""Webhooks: a finished job, posted to the URL that its client named, tried three times."""

from __future__ import annotations

import asyncio
from typing import Final

import aiohttp

from local_platform.endpoint import Endpoint
from local_platform.job import Job

ATTEMPTS: Final = 3


class Webhooks:
    """Posts the body of `/status`. `retry_s`: the pause between attempts."""

    def __init__(self, endpoint: Endpoint, *, retry_s: float) -> None:
        self._endpoint = endpoint
        self._retry_s = retry_s
        self._tasks: set[asyncio.Task[bool]] = set()

    def send(self, job: Job) -> None:
        """Begin to post `job`, where it has a webhook."""
        url = job.payload.get("webhook")
        if isinstance(url, str) and url:
            task = asyncio.create_task(self._deliver(url, job.to_client(self._endpoint.now())))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _deliver(self, url: str, body: dict[str, object]) -> bool:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
            for attempt in range(ATTEMPTS):
                if attempt:
                    await asyncio.sleep(self._retry_s)
                if await _post(session, url, body):
                    return True
        return False


async def _post(session: aiohttp.ClientSession, url: str, body: dict[str, object]) -> bool:
    try:
        async with session.post(url, json=body) as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False
