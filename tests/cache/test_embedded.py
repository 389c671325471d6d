from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from redis.asyncio import Redis

from flux_engine.cache.embedded import EmbeddedServer, answers, look, socket_path, wheel_program
from flux_engine.cache.flight import Lookup
from flux_engine.cache.manager import CacheManager
from flux_engine.cache.redis_link import CacheAway
from flux_engine.results.folder import FolderStore
from flux_engine.settings import Settings
from tests.cache.results_of import stored
from tests.waiting import PATIENCE_S, until

ONE = "1" * 64

HOLD = (
    "import asyncio, sys\n"
    "from pathlib import Path\n"
    "from flux_engine.cache.embedded import EmbeddedServer\n"
    "server = EmbeddedServer(Path(sys.argv[1]), start_timeout_s=300)\n"
    "print(asyncio.run(server.url()), flush=True)\n"
    "sys.stdin.read()\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "redis"
    gone(tmp_path / "redis")


def patient(folder: Path) -> EmbeddedServer:
    """One that a stall is no reason to do without."""
    return EmbeddedServer(folder, start_timeout_s=PATIENCE_S)


def servers_of(folder: Path) -> dict[int, str]:
    """The command lines, by process id, of servers and guards that were started for `folder`."""
    listed = subprocess.run(["ps", "-axwwo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    lines = [line.strip().partition(" ") for line in listed.splitlines() if str(folder) in line]
    return {int(pid): command for pid, _, command in lines if "guard.py" in command or "valkey-server" in command}


def mode_of(folder: Path) -> int:
    return folder.stat().st_mode & 0o777


def gone(folder: Path) -> None:
    """Wait until no server or guard of `folder` runs."""
    deadline = time.monotonic() + PATIENCE_S
    while left := servers_of(folder):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


async def url_once_up(server: EmbeddedServer) -> str:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with suppress(CacheAway):
                return await server.url()


def worker_holding(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


async def test_it_starts_at_the_first_use_and_keeps_its_data_across_runs(folder: Path) -> None:
    for expected in (None, b"kept"):
        server = patient(folder)
        assert not answers(socket_path(folder))
        async with Redis.from_url(await server.url()) as client:
            assert await client.get("a") == expected
            await client.set("a", "kept")
        server.close()
        gone(folder)
    assert mode_of(folder) == 0o700


async def test_a_second_run_of_a_worker_is_a_hit(tmp_path: Path, folder: Path) -> None:
    settings = Settings.from_environment({"CACHE_NAMESPACE": "local"})
    store = FolderStore(tmp_path / "outputs")
    seen = []
    for run in range(2):
        cache = CacheManager.from_settings(settings, cache_folder=folder.parent)
        async with cache.flight(Lookup(ONE, job_id=f"run-{run}", store=store)) as flight:
            seen.append(flight.hit is not None)
            if flight.hit is None:
                await flight.complete(await stored(store, ONE, b"picture"))
        await cache.close()
        gone(folder)
    assert seen == [False, True]


def test_workers_that_start_together_share_one_server_and_the_last_one_ends_it(folder: Path) -> None:
    workers = [worker_holding(folder) for _ in range(4)]
    urls = {worker.stdout.readline() for worker in workers if worker.stdout is not None}
    assert len(urls) == 1
    assert len(servers_of(folder)) == 2  # the server and its guard
    for worker in workers[:2]:
        worker.kill()
        worker.communicate()
    workers[2].communicate()
    time.sleep(0.2)  # the time is the subject: an end that came too early would come within it
    assert look(socket_path(folder)) != "gone"
    workers[3].send_signal(signal.SIGKILL)  # no chance to say goodbye
    workers[3].communicate()
    gone(folder)


@pytest.mark.parametrize("victim", ["server", "guard"])
async def test_a_server_or_guard_that_was_killed(folder: Path, victim: str) -> None:
    server = patient(folder)
    await server.url()
    is_guard = victim == "guard"
    for pid, command in servers_of(folder).items():
        if ("guard.py" in command) is is_guard:
            os.kill(pid, signal.SIGKILL)
    if is_guard:
        await until(lambda: len(servers_of(folder)) == 1)
        (orphan,) = servers_of(folder)
        other = patient(folder)
        await other.url()  # found, not started twice
        assert list(servers_of(folder)) == [orphan]
        other.close()
        os.kill(orphan, signal.SIGTERM)
    else:
        gone(folder)
        async with Redis.from_url(await server.url()) as client:
            assert await client.ping()
    server.close()


async def test_a_cache_mends_itself_when_its_server_is_killed(folder: Path, tmp_path: Path) -> None:
    cache = CacheManager(patient(folder), namespace="local", retry_after_s=0.1)
    store = FolderStore(tmp_path / "outputs")

    async def is_hit() -> bool:
        """Run a job, which the cache has or gets."""
        async with cache.flight(Lookup(ONE, job_id="run", store=store)) as flight:
            if flight.hit is None:
                await flight.complete(await stored(store, ONE, b"picture"))
        return flight.hit is not None and flight.warning is None

    assert not await is_hit()
    assert await is_hit()
    for pid in servers_of(folder):
        os.kill(pid, signal.SIGKILL)
    gone(folder)
    await until(is_hit)
    await cache.close()


async def test_data_that_cannot_be_read_is_given_up(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "appendonlydir").mkdir(parents=True)
    (folder / "appendonlydir" / "appendonly.aof.manifest").write_text("of another world\n")
    server = patient(folder)
    async with Redis.from_url(await server.url()) as client:
        assert await client.ping()
    assert "starts empty" in caplog.text
    server.close()


async def test_a_server_that_is_silent_for_a_while_is_no_reason_for_a_second(folder: Path) -> None:
    first, second = patient(folder), EmbeddedServer(folder, start_timeout_s=2)
    async with Redis.from_url(await first.url()) as client:
        await client.set("a", "kept")
    (server,) = [pid for pid, command in servers_of(folder).items() if "guard.py" not in command]
    os.kill(server, signal.SIGSTOP)
    with pytest.raises(CacheAway, match="does not answer yet"):
        await second.url()
    os.kill(server, signal.SIGCONT)
    async with Redis.from_url(await url_once_up(second)) as client:
        assert await client.get("a") == b"kept"
    assert len(servers_of(folder)) == 2  # the one server and its guard
    first.close()
    second.close()


@pytest.mark.parametrize("worker", ["same", "another"])
async def test_a_server_that_starts_slowly_keeps_its_data(folder: Path, tmp_path: Path, worker: str) -> None:
    first = patient(folder)
    async with Redis.from_url(await first.url()) as client:
        await client.set("a", "kept")
    first.close()
    gone(folder)
    slow = tmp_path / "slow-server"
    wait = f'touch "{tmp_path}/begun"; while [ ! -e "{tmp_path}/go" ]; do sleep 0.05; done'
    slow.write_text(f'#!/bin/sh\n{wait}\nexec {wheel_program()} "$@"\n')
    slow.chmod(0o700)
    starting = EmbeddedServer(folder, program=slow, start_timeout_s=1)
    with pytest.raises(CacheAway, match="still starting"):
        await starting.url()
    await until((tmp_path / "begun").exists)  # the guard, which the next one looks for, may be slow to begin
    waiting = EmbeddedServer(folder, start_timeout_s=1)
    with pytest.raises(CacheAway, match="does not answer yet"):
        await waiting.url()
    waiting.close()
    assert list((folder / "appendonlydir").iterdir())
    (tmp_path / "go").touch()
    after = starting if worker == "same" else patient(folder)
    async with Redis.from_url(await url_once_up(after)) as client:
        assert await client.get("a") == b"kept"
    assert len([pid for pid, command in servers_of(folder).items() if "guard.py" in command]) == 1
    starting.close()
    after.close()


@pytest.mark.parametrize("fault", ["no program", "a program that fails", "no folder"])
async def test_where_it_cannot_start_the_cache_is_off_with_a_warning(
    tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    program = {"no program": tmp_path / "missing", "a program that fails": Path("/bin/false")}.get(fault)
    if fault == "no folder":
        (tmp_path / "redis").write_text("a file")
    server = EmbeddedServer(tmp_path / "redis", program=program, start_timeout_s=PATIENCE_S)
    with pytest.raises(CacheAway, match="did not start"):
        await server.url()
    cache = CacheManager(server, namespace="local")
    async with cache.flight(Lookup(ONE, job_id="job", store=FolderStore(tmp_path / "outputs"))) as flight:
        assert flight.hit is None
        assert flight.warning is not None
    assert caplog.text.count("jobs go on without it") == 1
    await cache.close()
    gone(tmp_path / "redis")


async def test_a_long_path_has_a_short_socket(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30)
    server = patient(folder)
    async with Redis.from_url(await server.url()) as client:
        assert await client.ping()
    assert len(str(socket_path(folder))) < 100
    server.close()
    gone(folder)
