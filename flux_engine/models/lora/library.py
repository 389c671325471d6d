"""The LoRAs of one model, read, checked and brought into canonical form once, the last used kept in memory.

Any thread may ask: the work is done outside of the lock, so that the LoRAs of the next job are prepared while the
GPU is on the last one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Final

from flux_engine.models.lora.file import read_lora_file
from flux_engine.models.lora.format import PreparedLora, prepare_lora
from flux_engine.models.lora.names import LayerNames
from flux_engine.units import GIB

MAX_MEMORY_BYTES: Final = GIB


class LoraLibrary:
    """`max_file_bytes` bounds a file, `max_memory_bytes` what is kept; a larger LoRA is prepared but not kept."""

    def __init__(self, names: LayerNames, *, max_file_bytes: int, max_memory_bytes: int = MAX_MEMORY_BYTES) -> None:
        self._names = names
        self._max_file_bytes = max_file_bytes
        self._max_memory_bytes = max_memory_bytes
        self._kept: OrderedDict[str, PreparedLora] = OrderedDict()
        self._lock = threading.Lock()

    def prepare(self, path: Path, *, content_hash: str) -> PreparedLora:
        """The LoRA in `path`, whose SHA-256 is `content_hash`.

        Raises LoraInvalid and LoraIncompatible, and FileNotFoundError where the file is gone and not in memory.
        """
        with self._lock:
            if (known := self._kept.get(content_hash)) is not None:
                self._kept.move_to_end(content_hash)
                return known
        file = read_lora_file(path, max_bytes=self._max_file_bytes, content_hash=content_hash)
        prepared = prepare_lora(file, self._names, content_hash=content_hash)
        with self._lock:
            self._kept[content_hash] = prepared
            while sum(lora.num_bytes for lora in self._kept.values()) > self._max_memory_bytes:
                self._kept.popitem(last=False)
        return prepared

    @property
    def kept_bytes(self) -> int:
        """Memory of all LoRAs that are kept."""
        with self._lock:
            return sum(lora.num_bytes for lora in self._kept.values())
