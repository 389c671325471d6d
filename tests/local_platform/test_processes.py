"""Worker processes never outlive whoever started them."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from local_platform.processes import WorkerProcess
from tests import waiting

ROOT = Path(__file__).parents[2]
STARTS_AND_WAITS = """
import asyncio
from pathlib import Path
from local_platform.processes import WorkerProcess

async def main():
    command = ("sh", "-c", "sleep 600 & wait")
    worker = await WorkerProcess.start("one", command=command, environment={}, directory=Path("."))
    print(worker.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_a_worker_and_its_children_end_with_a_starter_that_is_killed() -> None:
    pipe = asyncio.subprocess.PIPE
    starter = await asyncio.create_subprocess_exec(sys.executable, "-c", STARTS_AND_WAITS, cwd=ROOT, stdout=pipe)
    assert starter.stdout is not None
    worker = psutil.Process(int(await starter.stdout.readline()))
    await waiting.until(lambda: bool(worker.children()))
    family = [worker, *worker.children()]
    starter.kill()
    await starter.wait()
    await waiting.until(lambda: not any(_runs(one) for one in family))


async def test_a_start_that_is_cancelled_leaves_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the worker runs already and its guard does not."""
    execute, ran, at_the_guard = asyncio.create_subprocess_exec, list[psutil.Process](), asyncio.Event()

    async def held(*command: str, **options: Any) -> asyncio.subprocess.Process:
        if ran:
            at_the_guard.set()
            await asyncio.Event().wait()
        process = await execute(*command, **options)
        ran.append(psutil.Process(process.pid))
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", held)
    command = ("sleep", "600")
    starting = asyncio.create_task(WorkerProcess.start("one", command=command, environment={}, directory=ROOT))
    await at_the_guard.wait()
    starting.cancel()
    await asyncio.wait({starting})
    (worker,) = ran
    assert not worker.is_running()


async def test_whoever_waits_for_a_worker_waits_for_all_of_it() -> None:
    """Its guard too: a loop that is closed sooner leaves that behind."""
    worker = await WorkerProcess.start("one", command=("sleep", "600"), environment={}, directory=ROOT)
    mine = [child for child in psutil.Process().children() if str(worker.pid) in (str(child.pid), *child.cmdline())]
    waits = [asyncio.create_task(worker.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    worker.terminate()
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    assert [child for child in mine if child.is_running()] == []
    await asyncio.gather(*waits)
    assert len(mine) == 2


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
