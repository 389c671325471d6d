"""Worker processes, each in a process group of its own, and what pools of them have in common.

A group stands for a container: when its first process ends, the rest is killed, the SDK's heartbeat process and an
embedded server included. A guard beside each group kills it when the process that started it is gone, however it went.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

REPOSITORY: Final = Path(__file__).resolve().parents[1]
KEPT_LINES: Final = 10_000
START_TIMEOUT_S: Final = 120.0
KEEP_S: Final = 0.5
# Its standard input ends with whoever holds it. `kill -9 -- -N` would be an error in dash.
GUARD: Final = ("sh", "-c", 'read -r _; kill -s KILL -- "-$0"')
KILLS: Final = (-signal.SIGKILL, -signal.SIGTERM)
INHERITED: Final = ("PATH", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")

OnLine = Callable[[str, str], None]


class WorkerDied(Exception):
    """A worker ended before it could take a job; the text holds its last lines. One that was killed may fare better
    when it is started again, one that ended by itself or crashed will not."""

    def __init__(self, worker: WorkerProcess, when: str) -> None:
        super().__init__(f"{worker.id} ended with status {worker.returncode} {when}\n{tail(worker)}")
        self.is_killed: Final = worker.returncode in KILLS


class WorkerProcess:
    """One worker. `lines` holds what it printed, the newest last."""

    def __init__(
        self,
        worker_id: str,
        process: asyncio.subprocess.Process,
        *,
        guard: asyncio.subprocess.Process,
        on_line: OnLine | None,
    ) -> None:
        self.id: Final = worker_id
        self.lines: Final[deque[str]] = deque(maxlen=KEPT_LINES)
        self._process = process
        self._on_line = on_line
        self._reader = asyncio.create_task(self._read())
        self._guard = guard
        self._is_gone = False

    @classmethod
    async def start(
        cls,
        worker_id: str,
        *,
        command: Sequence[str],
        environment: Mapping[str, str],
        directory: Path,
        on_line: OnLine | None = None,
    ) -> Self:
        process = await asyncio.create_subprocess_exec(
            *command,
            env=dict(environment),
            cwd=directory,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=2**24,
            start_new_session=True,
        )
        try:
            guard = await asyncio.create_subprocess_exec(
                *(*GUARD, str(process.pid)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        except BaseException:  # nobody else knows of it yet, and whoever starts it may be cancelled here
            _signal_group(process.pid, signal.SIGKILL)
            await process.wait()
            raise
        return cls(worker_id, process, guard=guard, on_line=on_line)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self._process.returncode

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def terminate(self) -> None:
        """SIGTERM to the first process, as a container runtime does."""
        self._signal(signal.SIGTERM)

    def freeze(self) -> None:
        """Stop every process of the worker where it stands, as FlashBoot does."""
        _signal_group(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        _signal_group(self.pid, signal.SIGCONT)

    async def kill(self) -> None:
        """SIGKILL to the whole group, and wait until it is gone."""
        if not self._is_gone:
            _signal_group(self.pid, signal.SIGKILL)
        await self.wait()

    async def stop(self, *, grace_s: float) -> None:
        """SIGTERM, and SIGKILL for what is still there after `grace_s`."""
        self.terminate()
        try:
            await self.wait(timeout_s=grace_s)
        except TimeoutError:
            await self.kill()

    async def wait(self, *, timeout_s: float | None = None) -> int:
        """The exit status, once it has ended and the rest of its group is gone. Raises TimeoutError."""
        status = await asyncio.wait_for(self._process.wait(), timeout_s)
        if not self._is_gone:
            self._is_gone = True
            _signal_group(self.pid, signal.SIGKILL)
            self._guard.kill()
        await self._guard.wait()  # by whoever waits: one that went on sooner might close the loop before it is reaped
        await self._reader
        return status

    def resident_bytes(self) -> int:
        """Memory of the first process."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def _signal(self, number: signal.Signals) -> None:
        if self.returncode is None:
            self._process.send_signal(number)

    async def _read(self) -> None:
        """Read on to the end, so that a full pipe never holds the worker up."""
        if self._process.stdout is None:
            return
        async for raw in self._process.stdout:
            line = raw.decode(errors="replace").rstrip("\n")
            self.lines.append(line)
            if self._on_line is not None:
                self._on_line(self.id, line)


class Pool(ABC):
    """Workers of one kind; leaving the pool ends them all.

    A worker sees the variables that its pool gives it and little else of the caller's surroundings.
    """

    def __init__(self, *, command: Sequence[str], directory: Path = REPOSITORY, on_line: OnLine | None = None) -> None:
        self._command = command
        self._directory = directory
        self._on_line = on_line
        self._home = tempfile.TemporaryDirectory(prefix="worker-home-")
        self._started = 0
        self.workers: list[WorkerProcess] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(worker.kill() for worker in self.workers))
        self.workers.clear()
        self._home.cleanup()

    async def start(self, count: int = 1, *, timeout_s: float = START_TIMEOUT_S) -> list[WorkerProcess]:
        """Start `count` workers and wait until each can take a job. Raises WorkerDied or TimeoutError."""
        fresh = [await self._spawn() for _ in range(count)]
        await asyncio.gather(*(self._until_there(worker, timeout_s) for worker in fresh))
        return fresh

    async def replace(self, worker: WorkerProcess, *, timeout_s: float = START_TIMEOUT_S) -> WorkerProcess:
        """Kill `worker` and start another, as a platform does with one that failed."""
        await worker.kill()
        self.workers.remove(worker)
        return (await self.start(timeout_s=timeout_s))[0]

    async def keep(self, count: int, *, say: Callable[[str], None] = lambda line: None) -> None:
        """Start `count` workers, and another for each that ends or is killed, until this is cancelled.

        Raises WorkerDied for one that ends by itself or crashes at its start, and TimeoutError.
        """
        await self._kept(self.start(count), say)
        while True:
            for worker in self.outgoing():
                say(f"{worker.id} is replaced")
                await self._kept(self.replace(worker), say)
            await asyncio.sleep(KEEP_S)

    async def _kept(self, starting: Awaitable[object], say: Callable[[str], None]) -> None:
        try:
            await starting
        except WorkerDied as death:
            if not death.is_killed:
                raise
            say(str(death))  # it is among the outgoing

    def outgoing(self) -> list[WorkerProcess]:
        """The workers whose place another is to take: those that have ended."""
        return [worker for worker in self.workers if worker.returncode is not None]

    @abstractmethod
    def _variables(self, worker_id: str) -> Mapping[str, str]:
        """What the environment of the worker `worker_id` says to it."""

    @abstractmethod
    async def _until_there(self, worker: WorkerProcess, timeout_s: float) -> None:
        """Wait until `worker` can take a job. Raises WorkerDied or TimeoutError."""

    async def _spawn(self) -> WorkerProcess:
        self._started += 1
        worker_id = f"worker-{self._started}"
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        worker = await WorkerProcess.start(
            worker_id,
            command=self._command,
            environment={**inherited, "HOME": self._home.name, "PYTHONUNBUFFERED": "1", **self._variables(worker_id)},
            directory=self._directory,
            on_line=self._on_line,
        )
        self.workers.append(worker)
        return worker


def tail(worker: WorkerProcess) -> str:
    return "\n".join(list(worker.lines)[-20:])


def _signal_group(leader: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, number)
