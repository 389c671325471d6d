"""The header of a LoRA file, checked; what is no safetensors file is named.

Non-goal: what the tensors mean (`lora_kinds` and models/lora/).
"""

from __future__ import annotations

import os
from pathlib import Path

from flux_engine.errors import LoraInvalid
from flux_engine.inputs import safetensors_header
from flux_engine.inputs.lora_content import START_BYTES, other_content
from flux_engine.inputs.safetensors_header import Header, HeaderFault, NotSafetensors, Readable


def check_header(path: Path, *, max_bytes: int) -> Header:
    """The header of the file at `path`, once its tensors are known to fill the file exactly.

    Raises LoraInvalid, whose message names what the file is instead.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise LoraInvalid(f"the LoRA has {size} bytes; this worker takes up to {max_bytes}")
        return read_header(file, size)


def read_header(file: Readable, size: int) -> Header:
    """As safetensors_header.read_header. Raises LoraInvalid."""
    try:
        return safetensors_header.read_header(file, size)
    except NotSafetensors as fault:
        other = other_content(fault.start[:START_BYTES])
        what = f"it is {other.text}" if other is not None else fault.problem
        raise LoraInvalid(f"the LoRA is not a safetensors file: {what}") from fault
    except HeaderFault as fault:
        raise LoraInvalid(fault.of("the LoRA")) from fault
