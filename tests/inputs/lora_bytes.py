"""A LoRA file as small as it can be, made without torch."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping

LAYER = "transformer.proj_out"


def lora_bytes(*, size: int = 3000, seed: int = 0, metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file of exactly `size` bytes that holds the matrices of one layer; others for another seed."""
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    half = size // 4

    def header() -> bytes:
        matrices = ((f"{LAYER}.lora_A.weight", 0, half), (f"{LAYER}.lora_B.weight", half, half + rest))
        for name, start, end in matrices:
            entries[name] = {"dtype": "U8", "shape": [1, end - start], "data_offsets": [start, end]}
        return json.dumps(entries).encode()

    rest = half
    for _ in range(4):  # until the length of the header, which holds the sizes, is that of itself
        rest = size - 8 - len(header()) - half
    text = header().ljust(size - 8 - half - rest)
    return struct.pack("<Q", len(text)) + text + bytes([seed % 251 + 1]) * (half + rest)
