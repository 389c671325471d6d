"""LoRA files on the volume by the SHA-256 of their bytes, shared by all workers and bounded in size.

A file appears whole or not at all: it is written under its own temporary name, flushed to the disk and renamed. Two
workers that store the same bytes rename to the same name; a worker that dies leaves a partial file that the next sweep
removes. A sweep removes the least recently used files, under a lock that the system frees when its holder dies.
Non-goal: whether a file is a LoRA, which the caller checks before storing.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

FOLDER: Final = ".cache"  # no name of a LoRA begins with a dot
SUFFIX: Final = ".safetensors"
STALE_PARTIAL_S: Final = 3600.0  # longer than any download may take
MAYBE_IN_USE_S: Final = 600.0  # from fetching to loading, the wait for the GPU between them

log = logging.getLogger(__name__)


class LoraCache:
    """`folder` is the volume's folder of LoRAs. What is kept stays within `max_bytes`, except the file just stored."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._files = folder / FOLDER / "files"
        self._partial = folder / FOLDER / "partial"
        self._sources = folder / FOLDER / "sources"
        self._max_bytes = max_bytes

    def find(self, sha256: str) -> Path | None:
        """The file with this hash; it now counts as used."""
        path = self._files / f"{sha256}{SUFFIX}"
        try:
            os.utime(path)
        except FileNotFoundError:
            return None
        except OSError:  # a read-only volume
            return path if path.is_file() else None
        return path

    @contextmanager
    def partial(self) -> Iterator[Path]:
        """A name to write to. A file that is there afterwards, since it was not stored, is removed."""
        self._partial.mkdir(parents=True, exist_ok=True)
        path = self._partial / uuid.uuid4().hex
        try:
            yield path
        finally:
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def store(self, partial: Path, sha256: str) -> Path:
        """Move a finished file to the place of its hash, then sweep."""
        self._files.mkdir(parents=True, exist_ok=True)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        path = self._files / f"{sha256}{SUFFIX}"
        os.replace(partial, path)
        try:
            os.utime(path)
            self._sweep(keep=path)
        except OSError as error:  # the file is stored all the same
            log.warning("could not sweep the LoRA cache", extra={"detail": error.strerror})
        return path

    def make_room(self, num_bytes: int) -> bool:
        """Remove the least recently used files, `num_bytes` or more; returns whether any was removed.

        A file that was used a moment ago stays: a running job may be about to load it.
        """
        freed = 0
        with self._locked():
            for used_at, size, path in sorted(self._stored()):
                if freed >= num_bytes or time.time() - used_at < MAYBE_IN_USE_S:
                    break
                path.unlink(missing_ok=True)
                freed += size
        return freed > 0

    def discard(self, sha256: str) -> None:
        """Remove a file that should not be here."""
        (self._files / f"{sha256}{SUFFIX}").unlink(missing_ok=True)

    def known_hash(self, source: str, *, max_age_s: float | None = None) -> str | None:
        """The hash of what `source` gave, if it was noted within the last `max_age_s` seconds."""
        try:
            note = json.loads(self._note(source).read_text(encoding="utf-8"))
            sha256, noted_at = str(note["sha256"]), float(note["at"])
        except (OSError, ValueError, KeyError, TypeError):  # no note, or a broken one
            return None
        is_current = max_age_s is None or 0 <= time.time() - noted_at <= max_age_s
        return sha256 if is_current and len(sha256) == 64 and sha256.isalnum() else None

    def remember(self, source: str, sha256: str) -> None:
        """Note what `source` gave. If the note cannot be written, the source is fetched again next time."""
        try:
            self._sources.mkdir(parents=True, exist_ok=True)
            with self.partial() as partial:
                partial.write_text(json.dumps({"sha256": sha256, "at": time.time()}), encoding="utf-8")
                os.replace(partial, self._note(source))
        except OSError as error:
            log.warning("could not note the source of a LoRA", extra={"detail": error.strerror})

    def _note(self, source: str) -> Path:
        return self._sources / f"{hashlib.sha256(source.encode()).hexdigest()}.json"

    def _sweep(self, *, keep: Path) -> None:
        with self._locked():
            for partial in self._partial.glob("*"):
                with suppress(FileNotFoundError):
                    if time.time() - partial.stat().st_mtime > STALE_PARTIAL_S:
                        partial.unlink()
            files = self._stored()
            total = sum(size for _, size, _ in files)
            for _, size, path in sorted(files):
                if total <= self._max_bytes:
                    break
                if path != keep:
                    path.unlink(missing_ok=True)
                    total -= size

    def _stored(self) -> list[tuple[float, int, Path]]:
        """When each file was last used, its size, and its path."""
        files = []
        for path in self._files.glob(f"*{SUFFIX}"):
            with suppress(FileNotFoundError):
                state = path.stat()
                files.append((state.st_mtime, state.st_size, path))
        return files

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._files.parent / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
