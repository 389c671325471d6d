"""The whole system as processes, killed at random moments, and clients that watch every task to its end.

    outcome = await Chaos(folder, tasks=24, kills=4, seed=1).run()
    outcome.faults == []

Two gateways share one Redis and one folder of results; behind them stands the local platform with real workers. A kill
is SIGKILL, and what was killed comes back a moment later on its old address.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

import httpx2
import psutil

from flux_engine.cache.redis_link import CacheAway, RedisLink, RemoteServer
from flux_engine.gateway.limits.manager import LimitsManager, LimitTerms
from flux_engine.gateway.security.key_store import KeyStore
from flux_engine.gateway.security.keys import mint
from flux_engine.gateway.settings import GatewaySettings
from flux_engine.gateway.tasks.events import stream_id
from tests.servers import RedisProcess, free_port

ROOT: Final = Path(__file__).parents[2]
Victim = Literal["gateway", "redis", "platform", "worker"]
VICTIMS: Final[tuple[Victim, ...]] = get_args(Victim)
USERS: Final = 10
BACK_AFTER_S: Final = (0.1, 0.8)
RETRY_S: Final = 0.1
READY_S: Final = 120.0
FINAL: Final = ("completed", "failed", "cancelled")


@dataclass(slots=True)
class Client:
    """One user's wish for one picture, and everything that was said of it."""

    number: int
    user: str
    key: str
    task_id: str = ""
    status: str = ""
    ids: list[tuple[int, int]] = field(default_factory=list)
    progress: list[float] = field(default_factory=list)
    connections: int = 0
    creations: int = 0
    sha256: str = ""
    result: dict[str, Any] = field(default_factory=dict)

    def faults(self) -> list[str]:
        """What must not have happened to it."""
        said = []
        if self.status != "completed":
            said.append(f"task {self.number} ended as {self.status or 'nothing'}: {self.result.get('error')}")
        if self.ids != sorted(set(self.ids)):
            said.append(f"task {self.number} saw an event twice, or an older one after a newer")
        if self.progress != sorted(self.progress):
            said.append(f"task {self.number} saw its progress fall")
        return said


@dataclass(frozen=True, slots=True)
class Outcome:
    clients: list[Client]
    kills: Counter[Victim]
    faults: list[str]
    seconds: float
    reconnections: int


class Chaos:
    """One run. Nothing is left of its processes afterwards."""

    def __init__(
        self,
        folder: Path,
        *,
        tasks: int,
        kills: int,
        seed: int,
        workers: int = 1,
        side: int = 64,
        steps: int = 1,
        every_s: tuple[float, float] = (0.3, 2.0),
        victims: tuple[Victim, ...] = VICTIMS,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._folder = folder
        self._tasks = tasks
        self._kills = kills
        self._random = random.Random(seed)
        self._workers = workers
        self._picture = {"width": side, "height": side, "num_inference_steps": steps}
        self._every_s = every_s
        self._victims = victims
        self._say = say
        self._ports = [free_port(), free_port()]
        self._platform_port = free_port()
        (folder / "redis").mkdir(parents=True)
        self._redis = RedisProcess(folder / "redis")
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._killed: Counter[Victim] = Counter()
        self._done = 0

    async def run(self) -> Outcome:
        began = time.monotonic()
        self._redis.start()
        try:
            clients = await self._clients()
            await asyncio.gather(self._start_platform(), self._start_gateway(0), self._start_gateway(1))
            await self._until_ready()
            self._say(f"ready after {time.monotonic() - began:.1f} s")
            killing = asyncio.create_task(self._kill_all())
            async with httpx2.AsyncClient(
                timeout=20, trust_env=False, limits=httpx2.Limits(max_connections=2000)
            ) as http:
                await asyncio.gather(*(self._follow(http, client) for client in clients))
                await killing
                faults = [fault for client in clients for fault in client.faults()]
                faults += await self._recount(http, clients)
            seconds = time.monotonic() - began
            reconnections = sum(client.connections - 1 for client in clients)
            return Outcome(clients, self._killed, faults, seconds, reconnections)
        finally:
            for process in self._processes.values():
                await _end(process)
            self._redis.kill()

    # ------------------------------------------------------------------------------------- clients

    async def _follow(self, http: httpx2.AsyncClient, client: Client) -> None:
        """Create one task by one key, however often that takes, and watch it to its end."""
        body = {"prompt": f"a red sun {client.number}", "seed": client.number, **self._picture}
        headers = {"Authorization": f"Bearer {client.key}", "Idempotency-Key": f"order-{client.number}"}
        while not client.task_id:
            with suppress(httpx2.HTTPError):
                client.creations += 1
                answer = await http.post(f"{self._url()}/generate-image", json=body, headers=headers)
                if answer.status_code in (200, 202):
                    client.task_id = answer.json()["task_id"]
                elif answer.status_code not in (429, 502, 503):
                    client.result = {"error": answer.text}
                    return
            await asyncio.sleep(RETRY_S)
        last = ""
        while client.status not in FINAL:
            with suppress(httpx2.HTTPError):
                last = await self._watch(http, client, last)
            await asyncio.sleep(RETRY_S)
        await self._fetch(http, client)
        self._done += 1
        if self._done % 50 == 0:
            self._say(f"{self._done} tasks done, {sum(self._killed.values())} kills")

    async def _watch(self, http: httpx2.AsyncClient, client: Client, last: str) -> str:
        """One connection's worth of events; the id of the last one."""
        client.connections += 1
        headers = {"Authorization": f"Bearer {client.key}"} | ({"Last-Event-ID": last} if last else {})
        url = f"{self._url()}/task/{client.task_id}/events"
        async with http.stream("GET", url, headers=headers) as answer:
            if answer.status_code != 200:
                return last
            held: dict[str, str] = {}
            try:
                async for line in answer.aiter_lines():
                    if line == "" and "data" in held:
                        last = self._hear(client, held, last)
                        held = {}
                    name, _, value = line.partition(": ")
                    held[name] = value
            except httpx2.HTTPError:
                pass
        return last

    @staticmethod
    def _hear(client: Client, event: dict[str, str], last: str) -> str:
        data = json.loads(event["data"])
        name, identity = event.get("event", ""), event.get("id", last)
        if name in FINAL and client.ids and stream_id(identity) == client.ids[-1]:
            pass  # the end of a task that had ended before the snapshot stands beside it
        elif identity:
            client.ids.append(stream_id(identity))
        if "progress" in data:
            client.progress.append(float(data["progress"]))
        if data.get("status") in FINAL:
            client.status, client.result = data["status"], data
        return identity

    async def _fetch(self, http: httpx2.AsyncClient, client: Client) -> None:
        """The picture; what it must be stands in the task's result."""
        headers = {"Authorization": f"Bearer {client.key}"}
        while client.status == "completed" and not client.sha256:
            with suppress(httpx2.HTTPError):
                answer = await http.get(f"{self._url()}/task/{client.task_id}/result", headers=headers)
                if answer.status_code == 200:
                    client.sha256 = answer.headers["etag"].strip('"')
                elif answer.status_code != 503:
                    client.status = f"completed without its picture ({answer.status_code})"
            await asyncio.sleep(RETRY_S)

    async def _recount(self, http: httpx2.AsyncClient, clients: list[Client]) -> list[str]:
        """One task a key, and every user charged for exactly what was made."""
        faults = []
        settings = self._settings(0)
        link = RedisLink(RemoteServer(self._redis.url), retry_after_s=0)
        await _answering(link)  # where Redis is away, usage is that of this process alone
        limits = LimitsManager(link, LimitTerms(work_per_day=1_000_000), root=settings.redis_root)
        for user in {client.user for client in clients}:
            own = [client for client in clients if client.user == user]
            headers = {"Authorization": f"Bearer {own[0].key}"}
            listed = (await http.get(f"{self._url()}/tasks?limit=100", headers=headers)).json()["tasks"]
            if len(listed) != len(own) or {task["task_id"] for task in listed} != {client.task_id for client in own}:
                faults.append(f"{user} has {len(listed)} tasks for {len(own)} keys")
            spent = round(sum(task.get("work_used", 0) for task in listed), 3)
            day = next(standing for standing in await limits.usage(user) if standing.policy.name == "work-day")
            charged = round(1_000_000 - day.remaining, 3)
            if abs(charged - sum(round(task.get("work_used", 0), 3) for task in listed)) > 0.0005 * len(own):
                faults.append(f"{user} was charged {charged} for {spent}")
        await limits.close()
        await link.close()
        return faults

    async def _clients(self) -> list[Client]:
        link = RedisLink(RemoteServer(self._redis.url))
        store = KeyStore(link, root=self._settings(0).redis_root)
        keys: dict[str, str] = {}
        for number in range(min(USERS, self._tasks)):
            key, record = mint(f"user-{number}", frozenset(("generate", "read")), expires_at=None)
            await store.add(record)
            keys[record.user] = key.get_secret_value()
        await link.close()
        users = list(keys)
        return [Client(n, users[n % len(users)], keys[users[n % len(users)]]) for n in range(self._tasks)]

    # --------------------------------------------------------------------------------------- kills

    async def _kill_all(self) -> None:
        for _ in range(self._kills):
            await asyncio.sleep(self._random.uniform(*self._every_s))
            victim = self._random.choice(self._victims)
            await self._kill(victim)
            self._killed[victim] += 1

    async def _kill(self, victim: Victim) -> None:
        pause = self._random.uniform(*BACK_AFTER_S)
        if victim == "redis":
            self._redis.kill()
            await asyncio.sleep(pause)
            await asyncio.to_thread(self._redis.start)
        elif victim == "gateway":
            which = self._random.randrange(2)
            await _end(self._processes[f"gateway-{which}"])
            await asyncio.sleep(pause)
            await self._start_gateway(which)
        elif victim == "platform":
            await _end(self._processes["platform"])
            await asyncio.sleep(pause)
            await self._start_platform()
        else:
            self._kill_worker()

    def _kill_worker(self) -> None:
        with suppress(psutil.Error):
            children = psutil.Process(self._processes["platform"].pid).children(recursive=True)
            workers = [child for child in children if "handler.py" in " ".join(child.cmdline())]
            if workers:
                os.killpg(os.getpgid(self._random.choice(workers).pid), signal.SIGKILL)

    # ----------------------------------------------------------------------------------- processes

    def _url(self) -> str:
        return f"http://127.0.0.1:{self._random.choice(self._ports)}"

    def _environment(self) -> dict[str, str]:
        return {
            "REDIS_URL": self._redis.url,
            "CACHE_NAMESPACE": "chaos",
            "FLUX_MODEL": "flux-tiny",
            "WARMUP": "eager",
            "MODEL_VOLUME": str(self._folder / "volume"),
            "OMP_NUM_THREADS": "1",
        }

    def _gateway_environment(self, which: int) -> dict[str, str]:
        return self._environment() | {
            "HOST": "127.0.0.1",
            "PORT": str(self._ports[which]),
            "GATEWAY_DATA": str(self._folder / "gateway"),
            "GATEWAY_SECRET": "chaos" * 8,
            "RUNPOD_ENDPOINT_ID": "local",
            "RUNPOD_API_KEY": "local",
            "RUNPOD_ENDPOINT_BASE_URL": f"http://127.0.0.1:{self._platform_port}/v2",
            "TASK_MAX_ATTEMPTS": "50",
            "LOG_LEVEL": "INFO",
        }

    def _settings(self, which: int) -> GatewaySettings:
        return GatewaySettings.from_environment(self._gateway_environment(which))

    async def _start_gateway(self, which: int) -> None:
        await self._start(f"gateway-{which}", ["-m", "flux_engine", "gateway"], self._gateway_environment(which))

    async def _start_platform(self) -> None:
        options = ["--workers", str(self._workers), "--port", str(self._platform_port), "--lease", "5"]
        await self._start("platform", ["-m", "local_platform", *options], self._environment())

    async def _start(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        inherited = {key: os.environ[key] for key in ("PATH", "LANG", "TMPDIR") if key in os.environ}
        with (self._folder / f"{name}.log").open("ab") as output:
            self._processes[name] = await asyncio.create_subprocess_exec(
                sys.executable,
                *command,
                cwd=ROOT,
                env=inherited | {"HOME": str(self._folder)} | environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    async def _until_ready(self) -> None:
        """Both gateways answer, and a worker has said what it makes."""
        deadline = time.monotonic() + READY_S
        async with httpx2.AsyncClient(trust_env=False) as http:
            for port in self._ports:
                while time.monotonic() < deadline:
                    with suppress(httpx2.HTTPError):
                        if (await http.get(f"http://127.0.0.1:{port}/readyz")).status_code == 200:
                            break
                    await asyncio.sleep(RETRY_S)
                else:
                    raise TimeoutError(f"the gateway on {port} is not ready; see {self._folder}")


async def _answering(link: RedisLink) -> None:
    async with asyncio.timeout(READY_S):
        while True:
            with suppress(CacheAway):
                await link.get("anything")
                return
            await asyncio.sleep(RETRY_S)


async def _end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
