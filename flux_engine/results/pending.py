"""Results that could not be stored or remembered, kept on the volume for the retry of their job.

A job that the platform runs again has the same fingerprint, finds its files here, and uploads them without generating.
Where the store has the files and only the cache did not answer, a note without them says so.
The folder is bounded: the oldest results go first. Keeping is best effort: where the volume is full or gone too, the
log says so and the job's error stays what it was. Files are checked against their hash when they are read back.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import re
import shutil
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from flux_engine.job.fingerprint import SHA256
from flux_engine.results.entry import CacheEntry
from flux_engine.results.files import ResultFiles
from flux_engine.results.folder import write_durably
from flux_engine.results.store import NewFile
from flux_engine.units import GIB

KEPT_MAX_AGE_S: Final = 24 * 3600.0  # the platform retries within minutes
KEPT_MAX_BYTES: Final = 2 * GIB
NOTES_BETWEEN_SWEEPS: Final = 256  # a sweep looks at every folder, and a note has no size to speak of
JOB_FILE: Final = "job"
KEPT_FILE: Final = "entry.json"
NOTE_FILE: Final = "stored.json"
_FINGERPRINT = re.compile(SHA256)
log = logging.getLogger(__name__)


class PendingResults:
    """The folder `pending`, one folder a fingerprint; safe for several workers on one volume."""

    def __init__(self, folder: Path, *, max_bytes: int = KEPT_MAX_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._notes = 0

    async def keep(self, files: ResultFiles, *, job_id: str) -> bool:
        """Keep the files of the job, all of them at hand; False where the volume does not take them."""
        return await asyncio.to_thread(self._keep, files, job_id)

    async def note(self, entry: CacheEntry, *, job_id: str) -> bool:
        """Note that the store has the files of the job; False where the volume does not take it."""
        return await asyncio.to_thread(self._keep, ResultFiles(entry), job_id)

    async def find(self, fingerprint: str, *, prefix: str, job_id: str | None = None) -> ResultFiles | None:
        """What was kept for `fingerprint`, whole, with keys that begin with `prefix`; or None. Of a note no file is at
        hand: whether the store still has them is not asked here.

        With `job_id` only what that very job left: `cache: false` is answered by no other job's result.
        """
        return await asyncio.to_thread(self._find, self._path(fingerprint), fingerprint, prefix, job_id)

    async def drop(self, fingerprint: str) -> None:
        """Remove what was kept: it has been delivered."""
        await asyncio.to_thread(shutil.rmtree, self._path(fingerprint), ignore_errors=True)

    def _path(self, fingerprint: str) -> Path:
        if not _FINGERPRINT.fullmatch(fingerprint):
            raise ValueError("not a fingerprint")
        return self._folder / fingerprint

    def _keep(self, files: ResultFiles, job_id: str) -> bool:
        target = self._path(files.entry.fingerprint)
        partial = self._folder / f".{uuid.uuid4().hex}.partial"
        try:
            if files.at_hand or self._notes % NOTES_BETWEEN_SWEEPS == 0:
                self._make_room(sum(len(file.data) for file in files.at_hand))
            self._notes += not files.at_hand
            partial.mkdir(parents=True)
            for file in files.at_hand:
                write_durably(partial / _name(file.data), file.data)
            write_durably(partial / JOB_FILE, _name(_bytes_of(job_id)).encode())
            name = KEPT_FILE if files.at_hand else NOTE_FILE
            write_durably(partial / name, files.entry.model_dump_json().encode())
            self._put(partial, target)
        except OSError as error:
            log.warning("result could not be kept on the volume", extra={"detail": error.strerror})
            shutil.rmtree(partial, ignore_errors=True)
            return False
        return True

    def _put(self, partial: Path, target: Path) -> None:
        """Move `partial` to the place of `target`. Another worker may do so at the same time: the later one's stays."""
        while True:
            aside = self._folder / f".{uuid.uuid4().hex}.partial"
            with suppress(FileNotFoundError):
                target.rename(aside)
                shutil.rmtree(aside, ignore_errors=True)
            try:
                partial.rename(target)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            else:
                return

    def _find(self, path: Path, fingerprint: str, prefix: str, job_id: str | None) -> ResultFiles | None:
        try:
            if job_id is not None and (path / JOB_FILE).read_bytes() != _name(_bytes_of(job_id)).encode():
                return None
            entry, data = _read(path)
        except FileNotFoundError:
            return None
        except (OSError, ValidationError):
            log.warning("kept result unreadable, making it again")
            shutil.rmtree(path, ignore_errors=True)
            return None
        is_whole = all(stored.sha256 == _name(part) for stored, part in zip(entry.objects(), data, strict=False))
        if entry.fingerprint != fingerprint or not is_whole:
            shutil.rmtree(path, ignore_errors=True)
            return None
        entry = entry.under(prefix)
        files = [NewFile(s.key, part, s.content_type) for s, part in zip(entry.objects(), data, strict=False)]
        return ResultFiles(entry, tuple(files))

    def _make_room(self, needed: int) -> None:
        """Remove what is too old, then the oldest, until `needed` bytes more are within the bound."""
        there = []
        for path in self._folder.glob("*"):
            with suppress(OSError):  # delivered by another worker meanwhile
                size = sum(part.stat().st_size for part in path.iterdir())
                there.append((path.stat().st_mtime, size, path))
        used = sum(size for _, size, _ in there)
        for kept_at, size, path in sorted(there):
            if used + needed > self._max_bytes or time.time() - kept_at > KEPT_MAX_AGE_S:
                shutil.rmtree(path, ignore_errors=True)
                used -= size


def _read(path: Path) -> tuple[CacheEntry, list[bytes]]:
    """The entry that was kept in `path` and its files, of a note none. Raises OSError and ValidationError."""
    note = path / NOTE_FILE
    if note.exists():
        return CacheEntry.model_validate_json(note.read_bytes()), []
    entry = CacheEntry.model_validate_json((path / KEPT_FILE).read_bytes())
    return entry, [(path / stored.sha256).read_bytes() for stored in entry.objects()]


def _bytes_of(job_id: str) -> bytes:
    return job_id.encode(errors="backslashreplace")


def _name(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
