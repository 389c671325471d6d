"""Model files as small as they can be, written without torch: names, types and shapes over bytes that are nought."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from flux_engine.inputs.safetensors_header import BITS

Shape = Sequence[int]

FLUX_1 = {
    "img_in.weight": (128, 64),
    "img_in.bias": (128,),
    "txt_in.weight": (128, 96),
    "txt_in.bias": (128,),
    "time_in.in_layer.weight": (128, 256),
    "time_in.in_layer.bias": (128,),
    "time_in.out_layer.weight": (128, 128),
    "time_in.out_layer.bias": (128,),
    "vector_in.in_layer.weight": (128, 64),
    "vector_in.in_layer.bias": (128,),
    "vector_in.out_layer.weight": (128, 128),
    "vector_in.out_layer.bias": (128,),
    "double_blocks.0.img_mod.lin.weight": (768, 128),
    "double_blocks.0.img_mod.lin.bias": (768,),
    "double_blocks.0.img_attn.qkv.weight": (384, 128),
    "double_blocks.0.img_attn.qkv.bias": (384,),
    "double_blocks.0.img_attn.norm.query_norm.scale": (32,),
    "double_blocks.0.img_attn.norm.key_norm.scale": (32,),
    "double_blocks.0.img_attn.proj.weight": (128, 128),
    "double_blocks.0.img_attn.proj.bias": (128,),
    "double_blocks.0.img_mlp.0.weight": (512, 128),
    "double_blocks.0.img_mlp.0.bias": (512,),
    "double_blocks.0.img_mlp.2.weight": (128, 512),
    "double_blocks.0.img_mlp.2.bias": (128,),
    "single_blocks.0.linear1.weight": (896, 128),
    "single_blocks.0.linear1.bias": (896,),
    "single_blocks.0.linear2.weight": (128, 640),
    "single_blocks.0.linear2.bias": (128,),
    "single_blocks.0.modulation.lin.weight": (384, 128),
    "single_blocks.0.modulation.lin.bias": (384,),
    "single_blocks.0.norm.query_norm.scale": (32,),
    "single_blocks.0.norm.key_norm.scale": (32,),
    "final_layer.linear.weight": (64, 128),
    "final_layer.linear.bias": (64,),
    "final_layer.adaLN_modulation.1.weight": (256, 128),
    "final_layer.adaLN_modulation.1.bias": (256,),
}
FLUX_1 |= {name.replace("img_", "txt_"): shape for name, shape in FLUX_1.items() if ".img_" in name}  # of FLUX.1


def safetensors(
    tensors: Mapping[str, Shape], *, dtype: str = "BF16", metadata: Mapping[str, str] | None = None
) -> bytes:
    """A file that is right but for what its numbers mean."""
    header, num_bytes = header_of(tensors, dtype=dtype, metadata=metadata)
    return header + bytes(num_bytes)


def header_of(
    tensors: Mapping[str, Shape], *, dtype: str, metadata: Mapping[str, str] | None = None
) -> tuple[bytes, int]:
    """The beginning of a safetensors file, and how many bytes follow it."""
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, shape in tensors.items():
        start, end = end, end + math.prod(shape) * BITS[dtype] // 8
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    return with_header(json.dumps(entries).encode(), 0), end


def with_header(header: bytes, num_bytes: int) -> bytes:
    return struct.pack("<Q", len(header)) + header + bytes(num_bytes)


def gguf(
    tensors: Mapping[str, Shape],
    *,
    kind: GGMLQuantizationType = GGMLQuantizationType.F32,
    notes: Mapping[str, str] | None = None,
) -> bytes:
    """As `safetensors`, in GGUF; shapes in torch's order."""
    notes = {"general.architecture": "flux"} if notes is None else notes
    header = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(notes))
    for name, text in notes.items():
        header += gguf_text(name) + struct.pack("<I", 8) + gguf_text(text)
    block, block_bytes = GGML_QUANT_SIZES[kind]
    start = 0
    for name, shape in tensors.items():
        header += gguf_tensor(name, shape, kind=kind, start=start)
        start += -(-math.prod(shape) // block * block_bytes // 32) * 32
    return header + bytes(-len(header) % 32 + start)


def gguf_text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def gguf_tensor(name: str, shape: Shape, *, kind: int, start: int) -> bytes:
    return gguf_text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), kind, start)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
