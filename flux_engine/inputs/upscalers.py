"""The upscalers on the volume: small networks that enlarge a picture, one a file.

Looking costs a listing and, once a file, its hash. They are known by the names under which they are published, which
hold their factor: `4x-UltraSharp`, `RealESRGAN_x2`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flux_engine.inputs.lora_cache import hash_file

UPSCALER_FOLDER: Final = "upscale_models"  # of the volume; ComfyUI's name for it
ENDINGS: Final = (".safetensors", ".pth")

_FACTOR: Final = re.compile(r"(?:^|[^0-9])([248])x|x([248])(?:[^0-9]|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Upscaler:
    """A file, its content, and the factor that its name says; None where it says none."""

    path: Path
    sha256: str
    factor: int | None


class Upscalers:
    """Those in `folder`, which need not exist. Call `find` in a thread: it may hash a file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._hashes: dict[tuple[str, int, int], str] = {}  # by name, size and time of change

    def names(self) -> list[str]:
        return [path.name for path in self._files()]

    def find(self, factor: int) -> Upscaler | None:
        """The one to enlarge `factor` times: of that factor, else of a larger one, else any; the first by name."""
        files = sorted(self._files(), key=lambda path: _fitness(path.name, factor))
        for path in files:
            try:
                return Upscaler(path, self._sha256(path), factor_of(path.name))
            except OSError:  # gone since it was listed, or not readable
                continue
        return None

    def _files(self) -> list[Path]:
        try:
            return sorted(p for p in self._folder.iterdir() if p.suffix in ENDINGS and not p.name.startswith("."))
        except OSError:
            return []

    def _sha256(self, path: Path) -> str:
        stat = path.stat()
        key = (path.name, stat.st_size, stat.st_mtime_ns)
        if key not in self._hashes:
            self._hashes[key] = hash_file(path)
        return self._hashes[key]


def factor_of(name: str) -> int | None:
    """The factor in an upscaler's name."""
    found = _FACTOR.search(name)
    return int(found[1] or found[2]) if found is not None else None


def _fitness(name: str, factor: int) -> tuple[int, int, str]:
    own = factor_of(name)
    if own is None:
        return 2, 0, name
    return (0, own - factor, name) if own >= factor else (1, factor - own, name)
