"""The single files of a volume: found by name, looked at once for as long as they stay as they are."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flux_engine.errors import ModelUnavailable
from flux_engine.models.single_file.base import BasedFile, based
from flux_engine.models.single_file.content import Stamp, content_hash
from flux_engine.models.single_file.model_file import read_model_file
from flux_engine.models.single_file.places import file_names, find_file
from flux_engine.models.weights import revision_of

LISTED_S: Final = 10.0  # a list of names is good for so long


@dataclass(frozen=True, slots=True)
class _Seen:
    """A file as it was at `stamp`."""

    stamp: Stamp
    found: BasedFile


class FileShelf:
    """Models in single files, by what FLUX_MODEL or a job calls them."""

    def __init__(self, volume: Path) -> None:
        self._volume = volume
        self._seen: dict[Path, _Seen] = {}
        self._revisions: dict[tuple[Path, Stamp], str] = {}
        self._names: tuple[str, ...] = ()
        self._listed_at = float("-inf")

    def find(self, name: str) -> BasedFile | None:
        """The model in the file that `name` means; None where it means none.

        Raises ModelUnavailable: what the file is instead, or what is missing.
        """
        path = find_file(name, self._volume)
        if path is None:
            return None
        return self.open(path, name=name if ":" in name else path.name)

    def place(self, name: str) -> Path | None:
        """The file that FLUX_MODEL as `name` means: a path, a path in the volume, or what a job may say.

        Raises ModelUnavailable for a form that can only mean a file, where there is none.
        """
        try:
            found = next((path for path in (Path(name), self._volume / name) if path.is_file()), None)
        except (OSError, ValueError):  # no path at all: too long, a null character
            return None
        return found or find_file(name, self._volume)

    def open(self, path: Path, *, name: str) -> BasedFile:
        """The model in the file at `path`, to be called `name`. Raises ModelUnavailable."""
        stamp, seen = Stamp.of(path), self._seen.get(path)
        if seen is None or seen.stamp != stamp or seen.found.file.name != name:
            seen = _Seen(stamp, based(read_model_file(path, name=name), volume=self._volume))
            self._seen[path] = seen
        return seen.found

    def names(self) -> tuple[str, ...]:
        """What a job may call the files that hold a model."""
        if time.monotonic() - self._listed_at > LISTED_S:
            self._names = tuple(name for name in file_names(self._volume) if self._is_model(name))
            self._listed_at = time.monotonic()
        return self._names

    def knows_revision(self, found: BasedFile) -> bool:
        """Whether `revision` answers at once."""
        return (found.file.path, Stamp.of(found.file.path)) in self._revisions

    def revision(self, found: BasedFile) -> str:
        """The SHA-256 of the file, and the revision of its base. The first time it reads the whole file.

        Raises ModelUnavailable.
        """
        key = (found.file.path, Stamp.of(found.file.path))
        if key not in self._revisions:
            digest = content_hash(found.file.path, volume=self._volume)
            self._revisions[key] = f"{digest}+{revision_of(found.folder)}"
        return self._revisions[key]

    def _is_model(self, name: str) -> bool:
        try:
            return self.find(name) is not None
        except ModelUnavailable:
            return False
