"""Worker processes: the real handler through the real SDK, each in a process group of its own.

A group stands for a container: when its first process ends, the rest is killed, the SDK's heartbeat process and an
embedded server included. A guard beside each group kills it when the process that started it is gone, however it went.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from local_platform.job import Status
from local_platform.server import Platform

REPOSITORY: Final = Path(__file__).resolve().parents[1]
HANDLER: Final = (sys.executable, "-u", "handler.py")
KEPT_LINES: Final = 10_000
START_TIMEOUT_S: Final = 120.0
WATCH_S: Final = 0.1
GUARD: Final = ("sh", "-c", 'read -r _; kill -9 -- "-$0"')  # its standard input ends with whoever holds it
INHERITED: Final = ("PATH", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")

OnLine = Callable[[str, str], None]


class WorkerDied(Exception):
    """A worker ended before it asked for a job; the text holds its last lines."""


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
        guard = await asyncio.create_subprocess_exec(
            *(*GUARD, str(process.pid)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
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
            await self._guard.wait()
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


class WorkerPool:
    """The workers of a platform; leaving it ends them all.

    `environment` is added to what RunPod sets and to little else: a worker sees nothing of the caller's surroundings.
    With `stop_grace_s` the workers are stopped as RunPod does it, after a job's time-out and where one asked to be
    replaced: SIGTERM, and after that many seconds SIGKILL. Without, they are left as they are.
    """

    def __init__(
        self,
        platform: Platform,
        *,
        command: Sequence[str] = HANDLER,
        directory: Path = REPOSITORY,
        environment: Mapping[str, str] | None = None,
        on_line: OnLine | None = None,
        stop_grace_s: float | None = None,
    ) -> None:
        self._platform = platform
        self._stop_grace_s = stop_grace_s
        self._stopper: asyncio.Task[None] | None = None
        self._command = command
        self._directory = directory
        self._environment = dict(environment or {})
        self._on_line = on_line
        self._home = tempfile.TemporaryDirectory(prefix="worker-home-")
        self._started = 0
        self.workers: list[WorkerProcess] = []

    async def __aenter__(self) -> Self:
        if self._stop_grace_s is not None:
            self._stopper = asyncio.create_task(self._stop_workers(self._stop_grace_s))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._stopper is not None:
            self._stopper.cancel()
            await asyncio.gather(self._stopper, return_exceptions=True)
        await asyncio.gather(*(worker.kill() for worker in self.workers))
        self.workers.clear()
        self._home.cleanup()

    async def start(self, count: int = 1, *, timeout_s: float = START_TIMEOUT_S) -> list[WorkerProcess]:
        """Start `count` workers and wait until each has asked for a job. Raises WorkerDied or TimeoutError."""
        fresh = [await self._spawn() for _ in range(count)]
        await asyncio.gather(*(self._until_ready(worker, timeout_s) for worker in fresh))
        return fresh

    async def replace(self, worker: WorkerProcess, *, timeout_s: float = START_TIMEOUT_S) -> WorkerProcess:
        """Kill `worker` and start another, as the platform does with one that failed."""
        await worker.kill()
        self.workers.remove(worker)
        return (await self.start(timeout_s=timeout_s))[0]

    def outgoing(self) -> list[WorkerProcess]:
        """The workers that have ended or that the platform was asked to replace."""
        seen = [(worker, self._platform.endpoint.worker(worker.id)) for worker in self.workers]
        return [w for w, known in seen if w.returncode is not None or (known is not None and known.is_to_stop)]

    async def _stop_workers(self, grace_s: float) -> None:
        async with asyncio.TaskGroup() as stops:
            stopped: set[str] = set()
            while True:
                for worker in [w for w in self.workers if w.id not in stopped and self._is_to_stop(w)]:
                    stopped.add(worker.id)
                    stops.create_task(worker.stop(grace_s=grace_s))
                await asyncio.sleep(WATCH_S)

    def _is_to_stop(self, worker: WorkerProcess) -> bool:
        seen = self._platform.endpoint.worker(worker.id)
        jobs = self._platform.endpoint.queue.jobs
        has_overrun = any(job.worker == worker.id and job.status is Status.TIMED_OUT for job in jobs)
        return has_overrun or (seen is not None and seen.is_to_stop)

    async def _spawn(self) -> WorkerProcess:
        self._started += 1
        worker_id = f"worker-{self._started}"
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        worker = await WorkerProcess.start(
            worker_id,
            command=self._command,
            environment=inherited
            | {"HOME": self._home.name, "RUNPOD_LOG_LEVEL": "INFO", "PYTHONUNBUFFERED": "1"}
            | self._platform.worker_environment(worker_id)
            | self._environment,
            directory=self._directory,
            on_line=self._on_line,
        )
        self.workers.append(worker)
        return worker

    async def _until_ready(self, worker: WorkerProcess, timeout_s: float) -> None:
        state = await self._platform.endpoint.wait_for(lambda: self._state(worker), timeout_s=timeout_s)
        if state == "ready":
            return
        if state is None:
            raise TimeoutError(f"{worker.id} asked for no job within {timeout_s:g} s\n{tail(worker)}")
        await worker.wait()
        raise WorkerDied(f"{worker.id} ended with status {worker.returncode} before it asked for a job\n{tail(worker)}")

    def _state(self, worker: WorkerProcess) -> str | None:
        seen = self._platform.endpoint.worker(worker.id)
        if seen is not None and seen.has_asked:
            return "ready"
        return "ended" if worker.returncode is not None else None


def tail(worker: WorkerProcess) -> str:
    return "\n".join(list(worker.lines)[-20:])


def _signal_group(leader: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, number)
