"""Pictures that were made but could not be delivered, kept on the volume for the retry of their job.

A job that the platform runs again has the same fingerprint, finds its files here, and uploads them without generating.
Keeping is a second best: where the volume is full or gone too, it says so in the log and the job's error stays what it
was. Files are checked against their hash when they are read back.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import shutil
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from flux_engine.storage.entry import CacheEntry
from flux_engine.storage.results import NewFile, write_durably

KEPT_MAX_AGE_S: Final = 24 * 3600.0  # the platform retries within minutes
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KeptResult:
    """A finished job that waits for its upload: what the cache will say of it, and its files."""

    entry: CacheEntry
    files: tuple[NewFile, ...]

    def data_by_key(self) -> dict[str, bytes]:
        return {file.key: file.data for file in self.files}


class KeptResults:
    """The folder `pending`, one folder a fingerprint; safe for several workers on one volume."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def keep(self, entry: CacheEntry, files: Sequence[NewFile]) -> bool:
        """Keep `files`, one for each object of `entry`; False where the volume does not take them."""
        return await asyncio.to_thread(self._keep, entry, files)

    async def find(self, fingerprint: str, *, prefix: str) -> KeptResult | None:
        """What was kept for `fingerprint`, whole, with keys that begin with `prefix`; or None."""
        return await asyncio.to_thread(self._find, self._path(fingerprint), fingerprint, prefix)

    async def drop(self, fingerprint: str) -> None:
        """Forget it: it has been delivered."""
        await asyncio.to_thread(shutil.rmtree, self._path(fingerprint), ignore_errors=True)

    def _path(self, fingerprint: str) -> Path:
        if not _FINGERPRINT.fullmatch(fingerprint):
            raise ValueError("not a fingerprint")
        return self._folder / fingerprint

    def _keep(self, entry: CacheEntry, files: Sequence[NewFile]) -> bool:
        target = self._path(entry.fingerprint)
        partial = self._folder / f".{uuid.uuid4().hex}.partial"
        try:
            self._drop_old()
            partial.mkdir(parents=True)
            for file in files:
                write_durably(partial / _name(file.data), file.data)
            write_durably(partial / "entry.json", entry.model_dump_json().encode())
            shutil.rmtree(target, ignore_errors=True)
            partial.rename(target)
        except OSError as error:
            log.warning("a result that could not be delivered could not be kept either: %s", error.strerror)
            shutil.rmtree(partial, ignore_errors=True)
            return False
        return True

    def _find(self, path: Path, fingerprint: str, prefix: str) -> KeptResult | None:
        try:
            entry = CacheEntry.model_validate_json((path / "entry.json").read_bytes())
            data = [(path / stored.sha256).read_bytes() for stored in entry.objects()]
        except FileNotFoundError:
            return None
        except (OSError, ValidationError):
            log.warning("a kept result cannot be read; it is made again")
            shutil.rmtree(path, ignore_errors=True)
            return None
        is_whole = all(stored.sha256 == _name(part) for stored, part in zip(entry.objects(), data, strict=True))
        if entry.fingerprint != fingerprint or not is_whole:
            shutil.rmtree(path, ignore_errors=True)
            return None
        entry = entry.under(prefix)
        files = [NewFile(s.key, part, s.content_type) for s, part in zip(entry.objects(), data, strict=True)]
        return KeptResult(entry, tuple(files))

    def _drop_old(self) -> None:
        for path in self._folder.glob("*"):
            try:
                is_old = time.time() - path.stat().st_mtime > KEPT_MAX_AGE_S
            except FileNotFoundError:
                continue  # delivered by another worker meanwhile
            if is_old:
                shutil.rmtree(path, ignore_errors=True)


def _name(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
