"""The numbers of a model's file as torch tensors, made one at a time while a component is loaded.

Each tensor is read into memory of its own, and of a fused one only the rows that are wanted: nothing stays mapped, so
that the memory taken is that of the component. Weights in fp8 are multiplied by the scale beside them, those of GGUF
widened from their blocks, in float32 and on the device that they are loaded to; the plan may then quantise them as it
does any weights.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from flux_engine.inputs.safetensors_header import TensorEntry
from flux_engine.models.single_file.model_file import NARROW, PACKED_IN_GGUF, ModelFile

if TYPE_CHECKING:
    from torch import Tensor

TORCH: Final = {
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64"},
    **{"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"},
}
SCALES: Final = ("scale_weight", "weight_scale")  # ComfyUI's names of a scale beside `weight`


class ComponentTensors:
    """The tensors of one component of a file, by diffusers' or transformers' names.

    for name, tensor in ComponentTensors(file, "transformer", device="cpu").items(): ...

    Every tensor is gone when its user lets go of it. The file is held open: one that is put in its place meanwhile is
    not read.
    """

    def __init__(self, file: ModelFile, component: str, *, device: str) -> None:
        """`device` is where weights that are packed in the file are widened."""
        self._header = file.header
        self._part = file.parts[component]
        self._device = device
        self._descriptor = os.open(file.path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)

    def names(self) -> list[str]:
        """In the order in which they lie in the file."""
        return sorted(self._part, key=lambda name: self._header.tensors[self._part[name].name].start)

    def items(self) -> Iterator[tuple[str, Tensor]]:
        return ((name, self.read(name)) for name in self.names())

    def read(self, name: str) -> Tensor:
        import torch

        origin = self._part[name]
        entry = self._header.tensors[origin.name]
        rows = self._rows(origin.name, entry, origin.rows)
        if origin.is_flattened:
            rows = rows.reshape(rows.shape[:2])
        if origin.is_swapped:
            rows = torch.cat(list(rows.chunk(2)[::-1]))
        return rows

    def _rows(self, name: str, entry: TensorEntry, rows: tuple[int, int] | None) -> Tensor:
        """All rows of a tensor or some, as floats. Raises ValueError where the file has become shorter."""
        import torch

        if entry.dtype in PACKED_IN_GGUF and len(entry.shape) < 2:  # one row, of which no part can be read
            numbers = _widened(self._read(entry.start, entry.end - entry.start).to(self._device), entry.dtype).flatten()
            return numbers if rows is None else numbers[slice(*rows)]
        count = entry.shape[0] if entry.shape else 1
        first, last = rows or (0, count)
        shape = (last - first, *entry.shape[1:]) if entry.shape else ()
        row_bytes = (entry.end - entry.start) // max(count, 1)
        raw = self._read(entry.start + first * row_bytes, (last - first) * row_bytes)
        if entry.dtype in PACKED_IN_GGUF:
            return _widened(raw.to(self._device), entry.dtype).reshape(shape)
        numbers = raw.view(getattr(torch, TORCH[entry.dtype])).reshape(shape)
        return self._scaled(name, numbers.to(self._device).float(), rows) if entry.dtype in NARROW else numbers

    def _read(self, start: int, num_bytes: int) -> Tensor:
        import torch

        raw = torch.empty(num_bytes, dtype=torch.uint8)
        view, done = memoryview(raw.numpy().data), 0
        while done < num_bytes:
            got = os.preadv(self._descriptor, [view[done:]], self._header.data_start + start + done)
            if got == 0:
                raise ValueError("the model's file has become shorter")
            done += got
        return raw

    def _scaled(self, name: str, numbers: Tensor, rows: tuple[int, int] | None) -> Tensor:
        """`numbers` by the scale that stands beside them: one of the tensor, or one of each row."""
        layer = name.rpartition(".")[0]
        found = next((beside for word in SCALES if (beside := f"{layer}.{word}") in self._header.tensors), None)
        if found is None or not name.endswith(".weight"):
            return numbers
        scale = self._rows(found, self._header.tensors[found], None).to(self._device).float()
        if scale.numel() == 1:
            return numbers * scale.reshape(())
        scale = scale.reshape(-1, *(1,) * (numbers.ndim - 1))
        return numbers * (scale if rows is None else scale[slice(*rows)])


class LazyTensor:
    """A value of a state dict for transformers, which takes `tensor[...]` when it needs the numbers."""

    def __init__(self, tensors: ComponentTensors, name: str) -> None:
        self._tensors = tensors
        self._name = name

    def __getitem__(self, _: object) -> Tensor:
        return self._tensors.read(self._name)


def lazy_tensors(tensors: ComponentTensors) -> Mapping[str, LazyTensor]:
    """A state dict for transformers."""
    return {name: LazyTensor(tensors, name) for name in tensors.names()}


def _widened(blocks: Tensor, kind: str) -> Tensor:
    """Rows of packed bytes as floats in float32, of which 8 or fewer bits are left anyway."""
    import torch
    from diffusers.quantizers.gguf.utils import GGML_QUANT_SIZES, dequantize_functions
    from gguf import GGMLQuantizationType

    of_ggml = GGMLQuantizationType[kind]
    block, block_bytes = GGML_QUANT_SIZES[of_ggml]
    flat = blocks.reshape(-1, block_bytes)
    numbers: Tensor = dequantize_functions[of_ggml](flat, block, block_bytes, torch.float32)
    return numbers
