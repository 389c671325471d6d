"""Marks in a WebM: tags of the whole film, by ffmpeg, which copies the frames. It has no place for a C2PA manifest."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from typing import Final

from flux_engine.media.marks.statement import Statement

SOURCE_TYPE: Final = "DIGITAL_SOURCE_TYPE"
SYSTEM: Final = "AI_SYSTEM_USED"
SYSTEM_VERSION: Final = "AI_SYSTEM_VERSION_USED"
TIMEOUT_S: Final = 120.0


def marked(data: bytes, statement: Statement) -> bytes:
    said = {SOURCE_TYPE: statement.source_uri, SYSTEM: statement.model, SYSTEM_VERSION: statement.revision}
    return _with_tags(data, said)


def unmarked(data: bytes) -> bytes:
    return _with_tags(data, dict.fromkeys((SOURCE_TYPE, SYSTEM, SYSTEM_VERSION), ""))


def _with_tags(data: bytes, tags: Mapping[str, str]) -> bytes:
    """The film with `tags`; an empty one is removed. In memory alone, as video.py has it."""
    import imageio_ffmpeg

    written = [part for name, value in tags.items() for part in ("-metadata", f"{name}={value}")]
    with open(os.memfd_create("film"), "w+b") as film, open(os.memfd_create("marked"), "w+b") as result:
        film.write(data)
        film.flush()
        subprocess.run(  # noqa: S603  names of models and numbers
            [
                *(imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", "-loglevel", "error", "-y"),
                *("-i", f"/proc/self/fd/{film.fileno()}", "-map", "0", "-c", "copy", "-fflags", "+bitexact"),
                *written,
                *("-f", "webm", f"/proc/self/fd/{result.fileno()}"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(film.fileno(), result.fileno()),
            env={},  # the worker's own has secrets
            timeout=TIMEOUT_S,
            check=True,
        )
        result.seek(0)
        return result.read()
