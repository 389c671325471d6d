"""LoRAs of every trainer: the same adapter gives the same picture, and what is no adapter for this model is refused."""

from __future__ import annotations

import json
import pickle
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from flux_engine.errors import FluxError, InputFetchFailed, LoraIncompatible, LoraInvalid
from flux_engine.models.lora.file import LoraFile, read_lora_file
from flux_engine.models.lora.format import prepare_lora
from flux_engine.models.lora.library import LoraLibrary
from flux_engine.models.lora.manager import LoRAManager, ScaledLora
from flux_engine.models.lora.names import linear_shapes
from tests.models.tiny import (
    diffusers_file,
    flux1_transformer,
    flux2_transformer,
    forward,
    names_of,
    pipeline_of,
    random_lora,
    random_matrices,
    sha256_of,
)
from tests.models.tiny import save as save_lora

Matrices = dict[str, tuple[Tensor, Tensor]]
Tensors = dict[str, Tensor]
MAX_BYTES = 10_000_000

# ----------------------------------------------------------------------------- one adapter in the names of each trainer


def original_layers(transformer: Any) -> dict[str, list[str]]:
    """Layers as Black Forest Labs' code has them -> layers of diffusers, written out by hand for two blocks of each."""
    is_first = hasattr(transformer.transformer_blocks[0].ff, "net")
    layers: dict[str, list[str]] = {}
    for i in range(2):
        ours, theirs = f"transformer_blocks.{i}", f"double_blocks.{i}"
        layers[f"{theirs}.img_attn.qkv"] = [f"{ours}.attn.to_{x}" for x in "qkv"]
        layers[f"{theirs}.txt_attn.qkv"] = [f"{ours}.attn.add_{x}_proj" for x in "qkv"]
        layers[f"{theirs}.img_attn.proj"] = [f"{ours}.attn.to_out.0"]
        layers[f"{theirs}.txt_attn.proj"] = [f"{ours}.attn.to_add_out"]
        for short, name in (("img", "ff"), ("txt", "ff_context")):
            layers[f"{theirs}.{short}_mlp.0"] = [
                f"{ours}.{name}.net.0.proj" if is_first else f"{ours}.{name}.linear_in"
            ]
            layers[f"{theirs}.{short}_mlp.2"] = [f"{ours}.{name}.net.2" if is_first else f"{ours}.{name}.linear_out"]
        single = f"single_transformer_blocks.{i}"
        if is_first:
            layers[f"single_blocks.{i}.linear1"] = [*(f"{single}.attn.to_{x}" for x in "qkv"), f"{single}.proj_mlp"]
            layers[f"single_blocks.{i}.linear2"] = [f"{single}.proj_out"]
            layers[f"{theirs}.img_mod.lin"] = [f"{ours}.norm1.linear"]
        else:
            layers[f"single_blocks.{i}.linear1"] = [f"{single}.attn.to_qkv_mlp_proj"]
            layers[f"single_blocks.{i}.linear2"] = [f"{single}.attn.to_out"]
    layers["img_in"], layers["txt_in"], layers["final_layer.linear"] = (
        ["x_embedder"],
        ["context_embedder"],
        ["proj_out"],
    )
    return layers


def one_adapter(transformer: Any) -> tuple[Matrices, Matrices]:
    """The same change, under the original fused names and under those of diffusers."""
    shapes = linear_shapes(transformer)
    fused_shapes = {
        name: (sum(shapes[layer][0] for layer in layers), shapes[layers[0]][1])
        for name, layers in original_layers(transformer).items()
    }
    fused = random_matrices(fused_shapes, seed=5)
    single: Matrices = {}
    for name, layers in original_layers(transformer).items():
        down, up = fused[name]
        for layer, rows in zip(layers, torch.split(up, [shapes[layer][0] for layer in layers]), strict=True):
            single[layer] = (down, rows)
    return fused, single


PEFT_WORDS, KOHYA_WORDS = ("lora_A", "lora_B"), ("lora_down", "lora_up")


def dotted(matrices: Matrices, prefix: str, words: tuple[str, str] = PEFT_WORDS, *, suffix: str = "weight") -> Tensors:
    return {
        f"{prefix}{name}.{word}.{suffix}": matrix
        for name, pair in matrices.items()
        for word, matrix in zip(words, pair, strict=True)
    }


def with_alpha(tensors: Tensors, alpha: float) -> Tensors:
    """The same adapter with an alpha that is not its rank: the "up" matrices make up for it."""
    scaled = dict(tensors)
    for key, tensor in tensors.items():
        if re.search(r"\.(lora_B|lora_up)\.", key):
            scaled[key] = tensor * (tensor.shape[1] / alpha)
            scaled[re.split(r"\.lora_", key)[0] + ".alpha"] = torch.tensor(alpha)
    return scaled


def underscored(tensors: Tensors, prefix: str) -> Tensors:
    """kohya's way: the layer's name without dots."""
    return {
        prefix + re.sub(r"\.(?=.*\.(lora_|alpha))|\.(?=.*alpha$)(?!alpha)", "_", key): tensor
        for key, tensor in tensors.items()
    }


def kohya(matrices: Matrices, prefix: str, alpha: float) -> Tensors:
    return underscored(with_alpha(dotted(matrices, "", KOHYA_WORDS), alpha), prefix)


FORMATS: dict[str, Callable[[Matrices, Matrices], Tensors]] = {
    "diffusers": lambda _fused, single: dotted(single, "transformer."),
    "bare diffusers": lambda _fused, single: dotted(single, ""),
    "peft": lambda _fused, single: dotted(single, "base_model.model.", suffix="default.weight"),
    "diffusers with alphas": lambda _fused, single: with_alpha(dotted(single, "transformer."), 1.0),
    "old diffusers": lambda _fused, single: dotted(single, "transformer.", ("lora.down", "lora.up")),
    "ai-toolkit": lambda _fused, single: dotted(single, "diffusion_model."),
    "onetrainer": lambda _fused, single: kohya(single, "lora_transformer_", 1.0),
    "lycoris": lambda _fused, single: kohya(single, "lycoris_", 2.0),
    "kohya": lambda fused, _single: kohya(fused, "lora_unet_", 2.0),
    "comfy": lambda fused, _single: with_alpha(dotted(fused, "diffusion_model.", KOHYA_WORDS), 8.0),
    "bfl": lambda fused, _single: dotted(fused, ""),
    "fal": lambda fused, _single: dotted(fused, "diffusion_model."),
    "kontext": lambda fused, _single: dotted(fused, "base_model.model."),
}


@pytest.mark.parametrize("make", [flux1_transformer, flux2_transformer])
def test_the_same_adapter_in_every_format_gives_the_same_output(make: Callable[[], Any], tmp_path: Path) -> None:
    transformer = make()
    plain, pipeline, manager = forward(transformer), pipeline_of(transformer), LoRAManager(mode="slot")
    library = LoraLibrary(names_of(transformer), max_file_bytes=MAX_BYTES)
    fused, single = one_adapter(transformer)
    outputs = {}
    for name, write in FORMATS.items():
        path = save_lora(write(fused, single), tmp_path / f"{name}.safetensors")
        lora = library.prepare(path, content_hash=sha256_of(path))
        assert set(lora.layers) == set(single), name
        manager.apply(pipeline, [ScaledLora(lora, 1.0)])
        outputs[name] = forward(transformer)
    assert (outputs["diffusers"] - plain).abs().max() > 0.05
    for name, output in outputs.items():
        assert (output - outputs["diffusers"]).abs().max() < 1e-3, name


def test_xlabs_names_lead_to_the_attention_of_both_kinds_of_block() -> None:
    transformer = flux1_transformer()
    layers = {
        "double_blocks.1.processor.qkv_lora1": ["transformer_blocks.1.attn.to_" + x for x in "qkv"],
        "double_blocks.1.processor.qkv_lora2": [f"transformer_blocks.1.attn.add_{x}_proj" for x in "qkv"],
        "double_blocks.0.processor.proj_lora1": ["transformer_blocks.0.attn.to_out.0"],
        "double_blocks.0.processor.proj_lora2": ["transformer_blocks.0.attn.to_add_out"],
        "single_blocks.0.processor.qkv_lora": ["single_transformer_blocks.0.attn.to_" + x for x in "qkv"],
        "single_blocks.1.processor.proj_lora": ["single_transformer_blocks.1.proj_out"],
    }
    shapes = linear_shapes(transformer)
    fused = random_matrices({n: (sum(shapes[x][0] for x in ls), shapes[ls[0]][1]) for n, ls in layers.items()})
    for prefix in ("", "diffusion_model."):
        file = LoraFile(dotted(fused, prefix, ("down", "up")), {})
        prepared = prepare_lora(file, names_of(transformer), content_hash="x")
        for name, targets in layers.items():
            down, up = fused[name]
            assert torch.equal(torch.cat([prepared.layers[t].up for t in targets]), up)
            assert all(torch.equal(prepared.layers[t].down, down) for t in targets)


def test_kohya_at_full_size_is_what_diffusers_makes_of_it() -> None:
    from diffusers import FluxTransformer2DModel
    from diffusers.loaders.lora_conversion_utils import _convert_kohya_flux_lora_to_diffusers

    with torch.device("meta"):
        names = names_of(FluxTransformer2DModel(guidance_embeds=True))
    blocks = [
        f"double_blocks.18.{x}" for x in ("img_attn.qkv", "txt_attn.proj", "img_mlp.0", "txt_mlp.2", "txt_mod.lin")
    ]
    blocks += [f"single_blocks.37.{x}" for x in ("linear1", "linear2", "modulation.lin")]
    blocks += ["final_layer.linear", "final_layer.adaLN_modulation.1"]
    shapes = {
        name: (
            sum(len(rows) for part in names.parts[name] for rows in part.rows),
            names.shapes[names.parts[name][0].layer][1],
        )
        for name in blocks
    }
    tensors = kohya(random_matrices(shapes, rank=2), "lora_unet_", 2.0)
    ours = prepare_lora(LoraFile(tensors, {}), names, content_hash="x").layers
    theirs = _convert_kohya_flux_lora_to_diffusers(dict(tensors))
    layers = {key.removeprefix("transformer.").split(".lora_")[0] for key in theirs}
    assert layers == set(ours)
    for key, tensor in theirs.items():
        layer = ours[key.removeprefix("transformer.").split(".lora_")[0]]
        assert torch.equal(layer.down if "lora_A" in key else layer.up, tensor), key


def test_alphas_in_the_notes_of_diffusers_count() -> None:
    transformer = flux1_transformer()
    layer = "transformer_blocks.0.attn.to_q"
    matrices = random_matrices({layer: (128, 128), "x_embedder": (128, 64)})
    notes = {"transformer.r": 4, "transformer.lora_alpha": 8, "transformer.alpha_pattern": {"x_embedder": 1}}
    file = LoraFile(diffusers_file(matrices), {"lora_adapter_metadata": json.dumps(notes)})
    prepared = prepare_lora(file, names_of(transformer), content_hash="x")
    assert torch.allclose(prepared.layers[layer].up, matrices[layer][1] * 2)
    assert torch.allclose(prepared.layers["x_embedder"].up, matrices["x_embedder"][1] / 4)


def test_a_text_encoder_part_is_left_out_with_a_warning() -> None:
    transformer = flux1_transformer()
    tensors = kohya(random_matrices({"double_blocks.0.img_mlp.0": (512, 128)}), "lora_unet_", 4.0)
    name = "lora_te1_text_model_encoder_layers_0_mlp_fc1"
    tensors |= {f"{name}.lora_down.weight": torch.ones(4, 64), f"{name}.lora_up.weight": torch.zeros(64, 4)}
    assert prepare_lora(LoraFile(tensors, {}), names_of(transformer), content_hash="x").warnings == ()
    tensors[f"{name}.lora_up.weight"] += 1
    prepared = prepare_lora(LoraFile(tensors, {}), names_of(transformer), content_hash="x")
    assert "text encoder" in prepared.warnings[0]
    assert list(prepared.layers) == ["transformer_blocks.0.ff.net.0.proj"]


# ---------------------------------------------------------------------------------------------------------- bad files

LAYER = "transformer.transformer_blocks.0.attn.to_q"
DOWN, UP = torch.ones(4, 128), torch.ones(128, 4)
GOOD = {f"{LAYER}.lora_A.weight": DOWN, f"{LAYER}.lora_B.weight": UP}


def raw(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: str, shape: list[int], start: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def zipped(tmp_path: Path) -> bytes:
    torch.save(GOOD, tmp_path / "x.pt")
    assert zipfile.is_zipfile(tmp_path / "x.pt")
    return (tmp_path / "x.pt").read_bytes()


def pair(layer: str, down: Tensor, up: Tensor) -> bytes:
    content: bytes = save({f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up})
    return content


BAD_FILES: dict[str, tuple[type[FluxError], Callable[[], bytes], str]] = {
    "empty": (LoraInvalid, lambda: b"", "not a safetensors"),
    "pickle": (LoraInvalid, lambda: pickle.dumps(dict.fromkeys("abcdefgh", 1.0), protocol=4), "pickle"),
    "web page": (LoraInvalid, lambda: b"<!DOCTYPE html><html>please log in</html>", "web page"),
    "lfs pointer": (LoraInvalid, lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
    "truncated": (LoraInvalid, lambda: save(GOOD)[:-100], "truncated"),
    "trailing bytes": (LoraInvalid, lambda: save(GOOD) + b"x", "longer"),
    "huge header": (LoraInvalid, lambda: raw(b"{" + b" " * 1_000_001 + b"}"), "header"),
    "header past the end": (LoraInvalid, lambda: raw({}, length=2**40), "not a safetensors"),
    "header is no JSON": (LoraInvalid, lambda: raw(b"{]"), "JSON"),
    "header is a list": (LoraInvalid, lambda: raw([1, 2]), "JSON object"),
    "deep header": (LoraInvalid, lambda: raw(b"[" * 100_000), "JSON"),
    "no tensor": (LoraInvalid, lambda: raw({"__metadata__": {}}), "empty"),
    "20,001 tensors": (
        LoraInvalid,
        lambda: raw({f"t{i}": entry("F8_E4M3", [1], i, i + 1) for i in range(20_001)}, b"0" * 20_001),
        "header",  # a header of so many tensors is over its own bound
    ),
    "overlap": (
        LoraInvalid,
        lambda: raw({"a": entry("F32", [2], 0, 8), "b": entry("F32", [2], 4, 12)}, b"0" * 12),
        "overlap",
    ),
    "hole": (LoraInvalid, lambda: raw({"a": entry("F32", [1], 4, 8)}, b"0" * 8), "gaps"),
    "wrong size": (LoraInvalid, lambda: raw({"a": entry("F32", [3], 0, 8)}, b"0" * 8), "other bytes"),
    "negative shape": (LoraInvalid, lambda: raw({"a": entry("F32", [-1, -2], 0, 8)}, b"0" * 8), "impossible shape"),
    "integers": (LoraInvalid, lambda: save({"a": torch.ones(2, dtype=torch.int64)}), "I64"),
    "a name twice": (LoraInvalid, lambda: raw(b'{"a": 1, "a": 2}'), "JSON"),
    "over the bytes": (LoraInvalid, lambda: save({"a": torch.zeros(MAX_BYTES)}), "takes up to"),
    "NaN": (LoraInvalid, lambda: pair(LAYER, DOWN, UP * float("nan")), "NaN"),
    "infinity": (LoraInvalid, lambda: pair(LAYER, DOWN / 0, UP), "NaN or an infinity"),
    "alpha out of range": (LoraInvalid, lambda: save(GOOD | {f"{LAYER}.alpha": torch.tensor(3e38)}), "alpha"),
    "rank 4096": (LoraInvalid, lambda: pair(LAYER, torch.ones(4096, 128), torch.ones(128, 4096)), "rank 4096"),
    "ranks differ": (LoraInvalid, lambda: pair(LAYER, DOWN, torch.ones(128, 5)), "ranks 4 and 5"),
    "half of a pair": (LoraInvalid, lambda: save({f"{LAYER}.lora_A.weight": DOWN}), "lacks one"),
    "a layer twice": (
        LoraInvalid,
        lambda: save(GOOD | {k.replace("transformer.", "unet."): v.clone() for k, v in GOOD.items()}),
        "two",
    ),
    "a vector": (LoraInvalid, lambda: pair(LAYER, torch.ones(128), torch.ones(128)), "dimensions"),
    "a checkpoint": (LoraInvalid, lambda: save({"transformer_blocks.0.attn.to_q.weight": torch.ones(4, 4)}), "no LoRA"),
    "LoKr": (LoraInvalid, lambda: save({f"{LAYER}.lokr_w1": DOWN, f"{LAYER}.lokr_w2": UP}), "LoKr"),
    "LoHa": (LoraInvalid, lambda: save({"lora_unet_x.hada_w1_a": DOWN}), "LoHa"),
    "DoRA": (LoraInvalid, lambda: save(GOOD | {f"{LAYER}.dora_scale": torch.ones(128, 1)}), "DoRA"),
    "bias": (LoraInvalid, lambda: save(GOOD | {f"{LAYER}.lora_B.bias": torch.ones(128)}), "bias"),
    "full differences": (
        LoraInvalid,
        lambda: save(GOOD | {"diffusion_model.img_in.diff_b": torch.ones(128)}),
        "full-weight",
    ),
    "too narrow": (LoraIncompatible, lambda: pair(LAYER, torch.ones(4, 64), UP), "too narrow"),
    "too wide": (LoraIncompatible, lambda: pair(LAYER, torch.ones(4, 256), UP), "too wide"),
    "too many rows": (LoraIncompatible, lambda: pair(LAYER, DOWN, torch.ones(3072, 4)), "too wide"),
    "a wide control LoRA": (
        LoraIncompatible,
        lambda: pair("transformer.x_embedder", torch.ones(4, 128), UP),
        "too wide",
    ),
    "a control LoRA": (
        LoraIncompatible,
        lambda: save(GOOD | {"double_blocks.0.img_attn.norm.query_norm.scale": torch.ones(32)}),
        "control picture",
    ),
    "SD 1.5": (
        LoraIncompatible,
        lambda: pair("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q", DOWN, UP),
        "Stable Diffusion",
    ),
    "SDXL": (LoraIncompatible, lambda: pair("lora_unet_input_blocks_4_1_proj_in", DOWN, UP), "Stable Diffusion"),
    "more blocks": (
        LoraIncompatible,
        lambda: pair("transformer.transformer_blocks.2.attn.to_q", DOWN, UP),
        "another model",
    ),
    "FLUX.2": (
        LoraIncompatible,
        lambda: pair("transformer.transformer_blocks.0.ff.linear_in", DOWN, UP),
        "another model",
    ),
    "text encoder only": (LoraIncompatible, lambda: pair("lora_te1_text_model_encoder", DOWN, UP), "text encoders"),
}


def test_bad_files_are_refused_with_their_code_and_the_next_job_is_right(tmp_path: Path) -> None:
    transformer = flux1_transformer()
    library = LoraLibrary(names_of(transformer), max_file_bytes=MAX_BYTES)
    pipeline, manager = pipeline_of(transformer), LoRAManager()
    plain = forward(transformer)
    good = random_lora(transformer, seed=1)
    manager.apply(pipeline, [ScaledLora(good, 1.0)])
    expected = forward(transformer)
    contents = {name: make() for name, (_, make, _) in BAD_FILES.items()} | {"zip": zipped(tmp_path)}
    for name, content in contents.items():
        error, _, words = BAD_FILES.get(name, (LoraInvalid, None, "zip"))
        path = tmp_path / "bad"
        path.write_bytes(content)
        with pytest.raises(error, match=words) as refusal:
            library.prepare(path, content_hash=sha256_of(path))
        assert str(tmp_path) not in str(refusal.value), name
    manager.apply(pipeline, [ScaledLora(good, 1.0)])
    assert torch.equal(forward(transformer), expected)
    manager.apply(pipeline)
    assert torch.equal(forward(transformer), plain)
    assert library.kept_bytes == 0


def test_a_file_that_is_replaced_while_a_job_waits_is_not_taken_for_the_one_that_was_hashed(tmp_path: Path) -> None:
    transformer = flux1_transformer()
    matrices = random_matrices(linear_shapes(transformer))
    path = save_lora(diffusers_file(matrices), tmp_path / "style.safetensors")
    hashed = sha256_of(path)
    read = read_lora_file(path, max_bytes=MAX_BYTES, content_hash=hashed)
    before = {name: tensor.clone() for name, tensor in read.tensors.items()}

    content = path.read_bytes()
    path.write_bytes(content[:-64] + bytes(64))
    assert all(bool((read.tensors[name] == tensor).all()) for name, tensor in before.items())
    with pytest.raises(InputFetchFailed, match="replaced"):
        read_lora_file(path, max_bytes=MAX_BYTES, content_hash=hashed)


def test_small_floats_are_read_as_they_are(tmp_path: Path) -> None:
    """float8 widens; alpha / rank of a float16 LoRA does not flush its smallest numbers to zero."""
    tiny = torch.full((128, 4), 6e-8, dtype=torch.float16)
    tensors = {f"{LAYER}.lora_A.weight": DOWN.to(torch.float8_e4m3fn), f"{LAYER}.lora_B.weight": tiny}
    path = save_lora(tensors | {f"{LAYER}.alpha": torch.tensor(0.25)}, tmp_path / "x.safetensors")
    file = read_lora_file(path, max_bytes=MAX_BYTES)
    layer = prepare_lora(file, names_of(flux1_transformer()), content_hash="x").layers[LAYER.split(".", 1)[1]]
    assert layer.down.dtype == torch.bfloat16
    assert torch.allclose(layer.up, tiny.float() / 16)


def test_memory_stays_within_its_bound_after_many_loras(tmp_path: Path) -> None:
    transformer = flux1_transformer()
    bound = 4 * random_lora(transformer, seed=0, only="attn").num_bytes
    library = LoraLibrary(names_of(transformer), max_file_bytes=MAX_BYTES, max_memory_bytes=bound)
    shapes = {name: shape for name, shape in linear_shapes(transformer).items() if "attn" in name}
    hashes = []
    for seed in range(20):
        path = save_lora(diffusers_file(random_matrices(shapes, seed=seed)), tmp_path / "x.safetensors")
        hashes.append(sha256_of(path))
        library.prepare(path, content_hash=hashes[-1])
        assert library.kept_bytes <= bound
    path.unlink()
    assert library.prepare(path, content_hash=hashes[-1]).rank == 4
    with pytest.raises(FileNotFoundError):
        library.prepare(path, content_hash=hashes[0])
