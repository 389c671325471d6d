"""LoRA files that the operator put into the `loras` folder of the volume, by the names they have there.

Names may hold blanks, folders and letters of any script. What a name leads to must lie within the folder: no `..`, no
symbolic link out of it, nothing that begins with a dot.
"""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final
from unicodedata import normalize

from flux_engine.errors import InvalidInput
from flux_engine.inputs.lora_cache import hash_file
from flux_engine.inputs.lora_source import SUFFIX, VolumeLora

MAX_HASHES: Final = 4096
MAX_LISTED: Final = 10_000
FOLDER: Final = "loras/"  # clients put it before a name, though it goes without saying


@dataclass(frozen=True, slots=True)
class StoredLora:
    """A LoRA on this machine's volume."""

    path: Path
    sha256: str


class LoraVolume:
    """The folder of LoRAs. Hashes are kept in memory until a file changes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._hashes: dict[str, tuple[tuple[int, int, int], str]] = {}

    def find(self, source: VolumeLora) -> StoredLora | None:
        """The file of this name with the hash of its bytes."""
        for name in (source.file_name, source.file_name.removeprefix(FOLDER)):
            path = self._folder / name
            if not self._is_inside(path):
                path = self._folder / self._as_stored(name)
            if self._is_inside(path):
                return StoredLora(path, self._hash(name, path))
        return None

    def _as_stored(self, name: str) -> str:
        """`name` as the volume has it: a file that was copied from a Mac has its accents as characters of their own."""
        if name.isascii():
            return name
        return next((other for other in islice(self._names(), MAX_LISTED) if normalize("NFC", other) == name), name)

    def missing(self, source: VolumeLora) -> InvalidInput:
        """The error for a name that no file has, with the names that are near."""
        if os.path.islink(self._folder / source.file_name):  # False for a name longer than a file system takes
            return InvalidInput(
                f"`{source.file_name}` in the volume's folder `loras` is a link out of this folder, or to nothing; put "
                "the file itself there",
                field="loras",
            )
        stems = {_stem(name): name for name in islice(self._names(), MAX_LISTED)}
        near = [stems[stem] for stem in difflib.get_close_matches(_stem(source.file_name), stems, n=3, cutoff=0.7)]
        owner, _, rest = source.file_name.partition("/")
        repo, _, file = rest.partition("/")
        advice = f"; the nearest: {', '.join(f'`{name}`' for name in near)}" if near else ""
        if not near and re.fullmatch(r"[\w-]+(\.[\w-]+)*\.[A-Za-z]{2,}", owner) and rest:
            advice = "; an address begins with https://"
        elif not near and file:
            advice = f"; a file of a Hugging Face repository is `{owner}/{repo}:{file}`"
        return InvalidInput(f"the volume has no LoRA `{source.file_name}` in its folder `loras`{advice}", field="loras")

    def _is_inside(self, path: Path) -> bool:
        """Whether a file is there, and in this folder once symbolic links are followed."""
        try:
            return path.is_file() and path.resolve().is_relative_to(self._folder.resolve())
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return False
            raise

    def _hash(self, name: str, path: Path) -> str:
        state = path.stat()
        identity = (state.st_ino, state.st_size, state.st_mtime_ns)
        known = self._hashes.get(name)
        if known is None or known[0] != identity:
            known = identity, hash_file(path)
            self._hashes[name] = known
            while len(self._hashes) > MAX_HASHES:  # another thread may be doing the same
                self._hashes.pop(next(iter(self._hashes)), None)
        return known[1]

    def _names(self) -> Iterator[str]:
        for folder, folders, files in os.walk(self._folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            inside = Path(folder).relative_to(self._folder)
            yield from ((inside / name).as_posix() for name in sorted(files) if name.lower().endswith(SUFFIX))


def _stem(name: str) -> str:
    return name.casefold().removesuffix(SUFFIX)
