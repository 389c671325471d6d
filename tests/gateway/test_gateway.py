"""The gateway's background work and its end."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from benchmarks.gateways import GatewayProcess, new_key
from flux_engine.gateway.gateway import end
from local_platform.server import Platform
from tests.gateway.world import environment_of
from tests.servers import RedisProcess, free_port


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_it_closes_after_a_signal_and_ends_without_an_error(
    number: signal.Signals, shared_redis: RedisProcess, tmp_path: Path
) -> None:
    """A process that the signal ends has closed nothing, and its status is the signal's."""
    async with Platform() as platform:
        environment = environment_of(shared_redis.url, platform, tmp_path) | {"PORT": str(free_port())}
        await new_key(environment)
        gateway = await GatewayProcess.start(environment)
        await gateway.until_ready()
        gateway.process.send_signal(number)
        assert await gateway.process.wait() == 0
