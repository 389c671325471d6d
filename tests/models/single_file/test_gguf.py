"""GGUF files: plain weights paint what the folder paints, packed ones what their widened weights paint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter
from gguf.quants import dequantize, quantize

from flux_engine.models.single_file.base import based
from flux_engine.models.single_file.model_file import PACKED_IN_GGUF, read_model_file
from flux_engine.models.single_file.tensors import ComponentTensors
from flux_engine.models.weights import BUNDLED_FOLDER
from tests.models.single_file.layouts import component, to_bfl, with_transformer
from tests.models.single_file.painting import of_file, of_folder

Packed = npt.NDArray[np.uint8]


def written(path: Path, state: Mapping[str, torch.Tensor], kinds: Mapping[str, str]) -> Path:
    """As converters write it: each tensor in its kind, `F32` where none is given."""
    writer = GGUFWriter(path, "flux")
    for name, tensor in state.items():
        kind = GGMLQuantizationType[kinds.get(name, "F32")]
        writer.add_tensor(name, packed(tensor, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def packed(tensor: torch.Tensor, kind: GGMLQuantizationType) -> npt.NDArray[np.generic]:
    if kind is GGMLQuantizationType.BF16:
        bits: npt.NDArray[np.generic] = tensor.to(torch.bfloat16).contiguous().view(torch.int16).numpy().view(np.uint8)
        return bits
    try:
        made: npt.NDArray[np.generic] = quantize(tensor.float().numpy(), kind)
        return made
    except NotImplementedError:  # of most types gguf only reads
        return blocks_at_random(tuple(tensor.shape), kind)


def blocks_at_random(shape: tuple[int, ...], kind: GGMLQuantizationType) -> Packed:
    """Blocks of any bits whose scales, in float16, are no NaN: their exponents are not all ones."""
    block, block_bytes = GGML_QUANT_SIZES[kind]
    random = np.random.default_rng(5).integers(0, 256, (*shape[:-1], shape[-1] // block * block_bytes), dtype=np.uint8)
    return random & np.uint8(0b10011111)


def kinds_for(state: Mapping[str, torch.Tensor], kind: str) -> dict[str, str]:
    """The matrices whose rows are whole blocks, as converters choose them."""
    block, _ = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    return {name: kind for name, tensor in state.items() if tensor.ndim == 2 and tensor.shape[1] % block == 0}


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return to_bfl(component(BUNDLED_FOLDER, "transformer"))


@pytest.mark.parametrize("kind", ["F32", "BF16"])
def test_plain_weights_paint_what_the_folder_paints(kind: str, state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = written(tmp_path / "mine.gguf", state, dict.fromkeys(state, kind))
    found = based(read_model_file(path, name="mine.gguf"), volume=tmp_path)
    assert np.array_equal(of_file(found), of_folder(found.spec, BUNDLED_FOLDER))


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_packed_weights_paint_what_their_widened_ones_paint(
    kind: str, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    path = written(tmp_path / "mine.gguf", state, kinds_for(state, kind))
    found = based(read_model_file(path, name="mine.gguf"), volume=tmp_path)
    widened = {
        name: tensor.clone() for name, tensor in ComponentTensors(found.file, "transformer", device="cpu").items()
    }
    folder = with_transformer(BUNDLED_FOLDER, widened, tmp_path / "widened")
    picture = of_file(found)
    assert np.array_equal(picture, of_folder(found.spec, folder))
    plain = of_folder(found.spec, BUNDLED_FOLDER)
    assert 0 < np.abs(picture - plain).mean() < (0.01 if kind == "Q8_0" else 0.1)
    assert path.stat().st_size < 0.6 * sum(4 * tensor.numel() for tensor in state.values())


@pytest.mark.parametrize("kind", PACKED_IN_GGUF)
def test_every_type_is_widened_as_ggml_does_it(kind: str, state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    kinds = kinds_for(state, kind)
    of_ggml = GGMLQuantizationType[kind]
    path = written(tmp_path / "mine.gguf", state, kinds)
    tensors = ComponentTensors(read_model_file(path, name="mine.gguf"), "transformer", device="cpu")
    theirs = "double_blocks.1.img_mlp.2.weight"
    assert theirs in kinds
    expected = dequantize(packed(state[theirs], of_ggml), of_ggml)
    made = tensors.read("transformer_blocks.1.ff.net.2.weight").numpy()
    assert made.shape == expected.shape
    np.testing.assert_allclose(made, expected, rtol=1e-6, atol=0)


def test_rows_of_a_packed_layer_that_is_fused(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = written(tmp_path / "mine.gguf", state, kinds_for(state, "Q8_0"))
    tensors = ComponentTensors(read_model_file(path, name="mine.gguf"), "transformer", device="cpu")
    fused = dequantize(
        packed(state["single_blocks.0.linear1.weight"], GGMLQuantizationType.Q8_0), GGMLQuantizationType.Q8_0
    )
    width = fused.shape[1]
    for number, layer in enumerate(("attn.to_q", "attn.to_k", "attn.to_v")):
        made = tensors.read(f"single_transformer_blocks.0.{layer}.weight").numpy()
        assert np.array_equal(made, fused[number * width : (number + 1) * width])
    assert np.array_equal(tensors.read("single_transformer_blocks.0.proj_mlp.weight").numpy(), fused[3 * width :])


def test_a_packed_bias_is_read_whole(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    name = "double_blocks.0.img_attn.qkv.bias"
    path = written(tmp_path / "mine.gguf", state, {name: "Q8_0"})
    tensors = ComponentTensors(read_model_file(path, name="mine.gguf"), "transformer", device="cpu")
    of_ggml = GGMLQuantizationType.Q8_0
    fused = dequantize(packed(state[name], of_ggml), of_ggml)
    third = fused.size // 3
    for number, layer in enumerate(("to_q", "to_k", "to_v")):
        made = tensors.read(f"transformer_blocks.0.attn.{layer}.bias").numpy()
        assert np.array_equal(made, fused[number * third : (number + 1) * third])
