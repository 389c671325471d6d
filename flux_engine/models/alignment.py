"""Weights on the CPU at addresses that do not depend on the file that they came from.

Plain weights stay mapped, at whatever offset their file has them, and matrix products take other paths for other
alignments: the same numbers would give pictures that differ in the last bit.
"""

from __future__ import annotations

from typing import Any, Final

ALIGNMENT: Final = 64  # bytes; torch allocates on this boundary


def align(component: Any) -> None:
    """Copy those plain weights of `component` to memory of torch's own that are not aligned as there."""
    import torch

    for weight in (*component.parameters(), *component.buffers()):
        if type(weight.data) is torch.Tensor and weight.data_ptr() % ALIGNMENT:
            weight.data = weight.data.clone()
