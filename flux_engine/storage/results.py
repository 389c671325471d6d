"""Where results go: a folder on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from flux_engine.errors import StorageFailed


@dataclass(frozen=True, slots=True)
class Link:
    url: str
    expires_at: datetime | None = None


class ResultStore(Protocol):
    async def put(self, data: bytes, *, key: str, content_type: str) -> None: ...

    async def url(self, key: str) -> Link: ...


class FolderStore:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def put(self, data: bytes, *, key: str, content_type: str) -> None:
        del content_type
        await asyncio.to_thread(self._write, data, key)

    def _write(self, data: bytes, key: str) -> None:
        path = self._folder / key
        partial = path.with_suffix(path.suffix + ".partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(data)
            os.replace(partial, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise StorageFailed("the result could not be written to the output folder") from error

    async def url(self, key: str) -> Link:
        return Link((self._folder / key).resolve().as_uri())
