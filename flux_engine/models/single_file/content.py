"""The SHA-256 of a model's file, read once: kept on the volume for as long as the file stays as it is.

A result's fingerprint holds it, so a file that was replaced never finds results of the one before. Whether it changed
is seen by its size and times, of which a file system sets the last (of the inode) itself.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flux_engine.errors import ModelUnavailable

FOLDER: Final = "flux-engine/sha256"  # of the volume

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Stamp:
    """Which state of a file was looked at."""

    num_bytes: int
    written_ns: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path) -> Stamp:
        """Raises ModelUnavailable where the file is gone."""
        try:
            found = path.stat()
        except OSError as error:
            raise ModelUnavailable("the model's file is gone from the volume; fetch it again") from error
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def content_hash(path: Path, *, volume: Path) -> str:
    """The SHA-256 of the file at `path` in hexadecimal; one that is kept on `volume` is not computed again.

    Raises ModelUnavailable.
    """
    stamp = Stamp.of(path)
    kept = _place(path, stamp, volume)
    try:
        found = json.loads(kept.read_text())["sha256"]
        if isinstance(found, str) and len(found) == 64:
            return found
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not kept yet
    began = time.perf_counter()
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelUnavailable("the model's file cannot be read; fetch it again") from error
    log.info("model file hashed", extra={"ms": round((time.perf_counter() - began) * 1000), "detail": path.name})
    keep_hash(path, digest, volume=volume, stamp=stamp)
    return digest


def keep_hash(path: Path, digest: str, *, volume: Path, stamp: Stamp | None = None) -> None:
    """Keep the hash of the file at `path` as it is now, or was at `stamp`; on a volume that takes no file it is
    computed again by every worker."""
    kept = _place(path, stamp or Stamp.of(path), volume)
    partial = kept.with_name(f".{uuid.uuid4().hex}")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps({"file": path.name, "sha256": digest}))
        os.replace(partial, kept)
    except OSError:
        partial.unlink(missing_ok=True)


def _place(path: Path, stamp: Stamp, volume: Path) -> Path:
    key = json.dumps([str(path.absolute()), stamp.num_bytes, stamp.written_ns, stamp.changed_ns])
    return volume / FOLDER / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
