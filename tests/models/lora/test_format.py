"""LoRAs of every trainer: the same adapter gives the same picture, and what is no adapter for this model is refused."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from flux_engine.errors import FluxError, InputFetchFailed, LoraIncompatible, LoraInvalid
from flux_engine.models.lora.file import LoraFile, read_lora_file
from flux_engine.models.lora.format import prepare_lora
from flux_engine.models.lora.holder import ScaledLora
from flux_engine.models.lora.library import LoraLibrary
from flux_engine.models.lora.manager import LoRAManager
from flux_engine.models.lora.names import linear_shapes
from tests.models.lora.schemes import KOHYA, fused, write
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

MAX_BYTES = 10_000_000
LAYER = "transformer_blocks.0.attn.to_q"


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
    targets = {name: names.find(name) for name in blocks}
    shapes = {name: (t.num_rows, names.shapes[t.parts[0].layer][1]) for name, t in targets.items() if t is not None}
    tensors = write(random_matrices(shapes, rank=2), "lora_unet_", KOHYA, flat=True, alpha=2.0)
    ours = prepare_lora(LoraFile(tensors, {}), names, content_hash="x").layers
    theirs = _convert_kohya_flux_lora_to_diffusers(dict(tensors))
    layers = {key.removeprefix("transformer.").split(".lora_")[0] for key in theirs}
    assert layers == set(ours)
    for key, tensor in theirs.items():
        layer = ours[key.removeprefix("transformer.").split(".lora_")[0]]
        assert torch.equal(layer.down if "lora_A" in key else layer.up, tensor), key


HALVES = {"x_embedder": (128, 64), "transformer_blocks.0.attn.to_q": (128, 128)}
TEXT_PARTS = {
    "kohya": "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_{}.weight",
    "kohya, T5": "lora_te3_encoder_block_0_layer_0_SelfAttention_q.lora_{}.weight",
    "diffusers": "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora.{}.weight",
    "diffusers, second encoder": "text_encoder_2.encoder.block.0.layer.0.SelfAttention.q.lora_linear_layer.{}.weight",
    "PEFT around the pipeline": "base_model.model.text_encoder.layers.0.self_attn.q_proj.lora_{}.weight",
    "OneTrainer, CLIP": "clip_l.text_model.encoder.layers.0.self_attn.q_proj.lora_{}.weight",
    "OneTrainer, T5": "t5.encoder.block.0.layer.0.SelfAttention.q.lora_{}.weight",
    "ComfyUI": "text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.k.lora_{}.weight",
    "FLUX.2's Mistral": "text_encoder.model.language_model.layers.0.self_attn.q_proj.lora_{}.weight",
    "ai-toolkit": "te1.text_model.encoder.layers.0.mlp.fc1.lora_{}.weight",
    "data parallel": "module.text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_{}.weight",
    "LyCORIS": "lycoris_te1_text_model_encoder_layers_0_mlp_fc1.lora_{}.weight",
    "T5 under kohya's words": "lora_t5xxl_encoder_block_0_layer_0_SelfAttention_q.lora_{}.weight",
    "CLIP by its own name": "clip.text_model.encoder.layers.0.mlp.fc1.lora_{}.weight",
    "a projection of CLIP": "text_projection.lora_{}.weight",
    "ComfyUI, Qwen": "qwen3_4b.transformer.model.layers.0.self_attn.q_proj.lora_{}.weight",
}


@pytest.mark.parametrize("name", TEXT_PARTS.values(), ids=TEXT_PARTS)
def test_a_text_encoder_part_is_left_out_with_a_warning(name: str) -> None:
    names = names_of(flux1_transformer())
    matrices = random_matrices({"double_blocks.0.img_mlp.0": (512, 128)})
    tensors = write(matrices, "lora_unet_", KOHYA, flat=True, alpha=4.0)
    tensors |= {name.format("down"): torch.ones(4, 64), name.format("up"): torch.zeros(64, 4)}
    assert prepare_lora(LoraFile(tensors, {}), names, content_hash="x").warnings == ()  # it would not have acted
    tensors[name.format("up")] += 1
    prepared = prepare_lora(LoraFile(tensors, {}), names, content_hash="x")
    assert [w for w in prepared.warnings if "text encoder was left out" in w] == list(prepared.warnings)
    assert len(prepared.warnings) == 1
    assert list(prepared.layers) == ["transformer_blocks.0.ff.net.0.proj"]


def test_what_is_left_out_besides_text_encoders_is_named() -> None:
    tensors = write(random_matrices(HALVES), "transformer.", alpha=4.0)
    tensors |= {"bundle_emb.<me>.clip_l": torch.ones(1, 64), "_aux.4f2a": torch.ones(3)}
    prepared = prepare_lora(LoraFile(tensors, {}), names_of(flux1_transformer()), content_hash="x")
    assert len(prepared.warnings) == 2
    assert "embedding" in prepared.warnings[0]
    assert "bookkeeping" in prepared.warnings[1]


@pytest.mark.parametrize(
    "alpha",
    [
        torch.tensor(2),
        torch.tensor([2]),
        torch.tensor([[2.0]]),
        torch.tensor(2, dtype=torch.uint8),
        torch.tensor(2, dtype=torch.int16),
        torch.tensor(2.0, dtype=torch.float64),
        torch.tensor(2.0).to(torch.float8_e4m3fn),
        torch.tensor(2, dtype=torch.uint32),
    ],
)
@pytest.mark.parametrize("word", ["alpha", "lora_alpha", "network_alpha"])
def test_an_alpha_of_any_type_counts(alpha: Tensor, word: str, tmp_path: Path) -> None:
    matrices = random_matrices({LAYER: (128, 128)})
    path = save_lora(write(matrices) | {f"{LAYER}.{word}": alpha}, tmp_path / "x.safetensors")
    prepared = prepare_lora(read_lora_file(path, max_bytes=MAX_BYTES), names_of(flux1_transformer()), content_hash="x")
    (layer,) = prepared.layers.values()
    assert torch.allclose(layer.up, matrices[LAYER][1] / 2)
    assert prepared.warnings == ()


@pytest.mark.parametrize(
    ("extra", "factor"),
    [
        ({"transformer.transformer_blocks.0.attn.to_q.alpha": torch.tensor(0.0)}, 1.0),  # as trainers read it
        ({"lora_alpha": torch.tensor(1.0)}, 0.25),  # one for the whole file
        ({"transformer.transformer_blocks.0.attn.to_q.lora_rank": torch.tensor(4)}, 1.0),
        ({"transformer.transformer_blocks.0.attn.to_q.lora_B.bias": torch.zeros(128)}, 1.0),
        ({"transformer.transformer_blocks.0.attn.norm_q.diff": torch.zeros(32)}, 1.0),
        ({"transformer.x_embedder.diff_b": torch.zeros(128)}, 1.0),
        ({"transformer.proj_out.alpha": torch.tensor(2.0)}, 1.0),  # its matrices were pruned
        ({"lora_unet_a_layer_of_another_model.alpha": torch.tensor(2.0)}, 1.0),
    ],
)
def test_tensors_besides_the_matrices(extra: dict[str, Tensor], factor: float) -> None:
    matrices = random_matrices({LAYER: (128, 128)})
    tensors = write(matrices, "transformer.") | extra
    prepared = prepare_lora(LoraFile(tensors, {}), names_of(flux1_transformer()), content_hash="x")
    (layer,) = prepared.layers.values()
    assert torch.allclose(layer.up, matrices[LAYER][1] * factor)


ROWS = {  # of the layers of a trained `linear1` of FLUX.1, with 128 a side: what its rows are
    "q, k and v": (384, ["attn.to_q", "attn.to_k", "attn.to_v"]),
    "all of it": (896, ["attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"]),
}


@pytest.mark.parametrize(("rows", "layers"), ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("name", ["diffusion_model.single_blocks.1.linear1", "lora_unet_single_blocks_1_linear1"])
def test_a_fused_layer_may_be_trained_in_its_first_rows(name: str, rows: int, layers: list[str]) -> None:
    down, up = torch.randn(3, 128), torch.randn(rows, 3)
    tensors = {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
    prepared = prepare_lora(LoraFile(tensors, {}), names_of(flux1_transformer()), content_hash="x")
    assert set(prepared.layers) == {f"single_transformer_blocks.1.{layer}" for layer in layers}
    ups = [prepared.layers[f"single_transformer_blocks.1.{layer}"].up for layer in layers]
    assert torch.equal(torch.cat(ups), up)


def test_the_first_rows_of_a_fused_layer_of_flux_2() -> None:
    down, up = torch.randn(3, 128), torch.randn(384, 3)
    name = "diffusion_model.single_blocks.0.linear1"
    tensors = {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    prepared = prepare_lora(LoraFile(tensors, {}), names_of(flux2_transformer()), content_hash="x")
    layer = prepared.layers["single_transformer_blocks.0.attn.to_qkv_mlp_proj"]
    assert torch.equal(layer.up[:384], up)
    assert not layer.up[384:].any()


@pytest.mark.parametrize("rows", [128, 256, 512, 895, 897])
def test_other_rows_of_a_fused_layer_are_refused(rows: int) -> None:
    name = "diffusion_model.single_blocks.0.linear1"
    tensors = {f"{name}.lora_A.weight": torch.ones(3, 128), f"{name}.lora_B.weight": torch.ones(rows, 3)}
    with pytest.raises(LoraIncompatible, match=rf"linear1` is 128 -> {rows} there and 128 -> 896 here"):
        prepare_lora(LoraFile(tensors, {}), names_of(flux1_transformer()), content_hash="x")


def test_blocks_of_a_fused_matrix_keep_their_own_rank() -> None:
    """kohya's split training of rank 100 makes one matrix of rank 400, of which each layer needs a quarter."""
    shapes = linear_shapes(flux1_transformer())
    layers = [f"single_transformer_blocks.0.{x}" for x in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")]
    matrices = random_matrices({layer: shapes[layer] for layer in layers}, rank=100)
    tensors = write(fused(matrices), "lora_unet_", KOHYA, flat=True, alpha=400.0)
    prepared = prepare_lora(LoraFile(tensors, {}), names_of(flux1_transformer()), content_hash="x")
    for layer in layers:
        assert torch.equal(prepared.layers[layer].down, matrices[layer][0])
        assert torch.equal(prepared.layers[layer].up, matrices[layer][1])


def test_a_layer_under_two_names_counts_once_where_both_say_the_same() -> None:
    """Files exist that hold an adapter in diffusers' and in kohya's form."""
    matrices = random_matrices({LAYER: (128, 128), "transformer_blocks.1.attn.to_q": (128, 128)})
    both = write(matrices, "transformer.") | write(matrices, "lora_unet_", KOHYA, flat=True, alpha=2.0)
    prepared = prepare_lora(LoraFile(both, {}), names_of(flux1_transformer()), content_hash="x")
    assert set(prepared.layers) == set(matrices)
    for layer, (down, up) in matrices.items():
        assert torch.allclose(prepared.layers[layer].up @ prepared.layers[layer].down, up @ down, atol=1e-5)
    key = f"lora_unet_{LAYER.replace('.', '_')}.lora_up.weight"
    with pytest.raises(LoraInvalid, match=r"twice and differently, as `transformer\.\S+` and `lora_unet_"):
        prepare_lora(LoraFile(both | {key: both[key] * 1.1}, {}), names_of(flux1_transformer()), content_hash="x")


@pytest.mark.parametrize(
    ("word", "shape"),
    [
        ("dora_scale", (896, 1)),
        ("dora_scale", (896,)),
        ("lora_magnitude_vector", (896,)),
        ("lora_magnitude_vector.weight", (896,)),
        ("lora_magnitude_vector.default.weight", (896,)),
        ("magnitude", (896,)),
    ],
)
def test_magnitudes_of_a_dora_go_with_the_rows_of_their_layers(word: str, shape: tuple[int, ...]) -> None:
    name, numbers = "diffusion_model.single_blocks.0.linear1", torch.arange(1.0, 897.0)
    tensors = {f"{name}.lora_A.weight": torch.ones(3, 128), f"{name}.lora_B.weight": torch.ones(896, 3)}
    tensors[f"{name}.{word}"] = numbers.reshape(shape)
    prepared = prepare_lora(LoraFile(tensors, {}), names_of(flux1_transformer()), content_hash="x")
    assert prepared.has_magnitudes
    layers = [f"single_transformer_blocks.0.{x}" for x in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")]
    magnitudes = [prepared.layers[layer].magnitude for layer in layers]
    assert torch.equal(torch.cat([part for part in magnitudes if part is not None]), numbers)


def test_magnitudes_of_fused_layers_of_flux_2() -> None:
    name = "single_blocks.0.linear1"
    shapes = linear_shapes(flux2_transformer())
    rows = shapes["single_transformer_blocks.0.attn.to_qkv_mlp_proj"][0]
    parts, numbers = torch.split(torch.arange(1.0, rows + 1), [128, 128, 128, rows - 384]), torch.arange(1.0, rows + 1)
    tensors = {}
    for number, part in enumerate(parts):
        tensors[f"{name}.{number}.lora_A.weight"] = torch.full((2, 128), number + 1.0)
        tensors[f"{name}.{number}.lora_B.weight"] = torch.ones(len(part), 2)
        tensors[f"{name}.{number}.dora_scale"] = part[:, None]
    names = names_of(flux2_transformer())
    (layer,) = prepare_lora(LoraFile(tensors, {}), names, content_hash="x").layers.values()
    assert layer.magnitude is not None
    assert torch.equal(layer.magnitude, numbers)
    assert layer.rank == 8
    del tensors[f"{name}.1.dora_scale"]
    with pytest.raises(LoraInvalid, match="a DoRA in a part of the layer"):
        prepare_lora(LoraFile(tensors, {}), names, content_hash="x")


@pytest.mark.parametrize(
    ("note", "architecture", "words"),
    [
        ("modelspec.architecture", "hunyuan-video/lora", "trained on HunyuanVideo"),
        ("modelspec.architecture", "stable-diffusion-xl-v1-base/lora", "trained on SDXL"),
        ("modelspec.architecture", "Flux.2-klein-4B/lora", r"trained on FLUX\.2, and this model is a FLUX\.1"),
        ("ss_base_model_version", "flux_2_dev", r"trained on FLUX\.2"),
        ("ss_base_model_version", "chroma", "trained on Chroma"),
        ("modelspec.architecture", "flux-1-dev/lora", None),
        ("modelspec.architecture", "Flux.1-schnell/lora", None),
        ("ss_base_model_version", "flux1", None),
        ("ss_base_model_version", "my own", None),
    ],
)
def test_notes_tell_models_apart_that_share_names_and_widths(note: str, architecture: str, words: str | None) -> None:
    file = LoraFile(write(random_matrices(HALVES), "transformer."), {note: architecture})
    names = names_of(flux1_transformer())
    if words is None:
        assert prepare_lora(file, names, content_hash="x").layers
    else:
        with pytest.raises(LoraIncompatible, match=words):
            prepare_lora(file, names, content_hash="x")


# ---------------------------------------------------------------------------------------------------------- bad files

KEY = f"transformer.{LAYER}"
DOWN, UP = torch.ones(4, 128), torch.ones(128, 4)
GOOD = {f"{KEY}.lora_A.weight": DOWN, f"{KEY}.lora_B.weight": UP}


def zipped(tmp_path: Path) -> bytes:
    torch.save(GOOD, tmp_path / "x.pt")
    assert zipfile.is_zipfile(tmp_path / "x.pt")
    return (tmp_path / "x.pt").read_bytes()


def pair(layer: str, down: Tensor, up: Tensor) -> bytes:
    content: bytes = save({f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up})
    return content


BAD_FILES: dict[str, tuple[type[FluxError], Callable[[], bytes], str]] = {
    "pickle": (LoraInvalid, lambda: pickle.dumps(dict.fromkeys("abcdefgh", 1.0), protocol=4), "pickle"),
    "web page": (LoraInvalid, lambda: b"<!DOCTYPE html><html>please log in</html>", "asks for a login"),
    "truncated": (LoraInvalid, lambda: save(GOOD)[:-100], "truncated"),
    "over the bytes": (LoraInvalid, lambda: save({"a": torch.zeros(MAX_BYTES)}), "takes up to"),
    "NaN": (LoraInvalid, lambda: pair(KEY, DOWN, UP * float("nan")), "NaN"),
    "infinity": (LoraInvalid, lambda: pair(KEY, DOWN / 0, UP), "NaN or an infinity"),
    "alpha out of range": (LoraInvalid, lambda: save(GOOD | {f"{KEY}.alpha": torch.tensor(3e38)}), "alpha"),
    "rank 4096": (LoraInvalid, lambda: pair(KEY, torch.ones(4096, 128), torch.ones(128, 4096)), "rank 4096"),
    "ranks differ": (LoraInvalid, lambda: pair(KEY, DOWN, torch.ones(128, 5)), "ranks 4 and 5"),
    "half of a pair": (LoraInvalid, lambda: save({f"{KEY}.lora_A.weight": DOWN}), "lacks one"),
    "a layer twice": (
        LoraInvalid,
        lambda: save(GOOD | {k.replace("transformer.", "unet."): v + 1 for k, v in GOOD.items()}),
        "twice and differently",
    ),
    "a vector": (LoraInvalid, lambda: pair(KEY, torch.ones(128), torch.ones(128)), "dimensions"),
    "a checkpoint": (LoraInvalid, lambda: save({f"{LAYER}.weight": torch.ones(4, 4)}), "a whole model"),
    "LoKr": (LoraInvalid, lambda: save({f"{KEY}.lokr_w1": DOWN, f"{KEY}.lokr_w2": UP}), "LoKr"),
    "LoHa": (LoraInvalid, lambda: save({"lora_unet_x.hada_w1_a": DOWN}), "LoHa"),
    "DoRA of inputs": (
        LoraInvalid,
        lambda: save(GOOD | {f"{KEY}.dora_scale": torch.ones(1, 128)}),
        "magnitudes for the inputs",
    ),
    "DoRA without magnitudes": (
        LoraInvalid,
        lambda: save(GOOD, {"lora_adapter_metadata": '{"transformer.use_dora": true, "transformer.r": 4}'}),
        "magnitudes are missing",
    ),
    "complex numbers": (LoraInvalid, lambda: save(GOOD | {f"{KEY}.alpha": torch.ones(1) + 1j}), "C64"),
    "booleans": (LoraInvalid, lambda: save(GOOD | {f"{KEY}.alpha": torch.tensor(True)}), "BOOL"),
    "full weights besides": (
        LoraInvalid,
        lambda: save(GOOD | {"proj_out.weight": torch.ones(4, 4)}),
        "`proj_out.weight`",
    ),
    "an alpha of two numbers": (LoraInvalid, lambda: save(GOOD | {f"{KEY}.alpha": torch.ones(2)}), "single number"),
    "notes that are no JSON": (LoraInvalid, lambda: save(GOOD, {"lora_adapter_metadata": "{"}), "not valid JSON"),
    "notes that are a list": (LoraInvalid, lambda: save(GOOD, {"lora_adapter_metadata": "[]"}), "not a JSON object"),
    "a noted alpha that is text": (
        LoraInvalid,
        lambda: save(GOOD, {"lora_adapter_metadata": '{"transformer.lora_alpha": "four"}'}),
        "no number",
    ),
    "a pattern that is more than a name": (
        LoraInvalid,
        lambda: save(GOOD, {"adapter_config": '{"lora_alpha": 4, "alpha_pattern": {"(a+)+$": 1}}'}),
        "alpha_pattern",
    ),
    "PiSSA": (
        LoraInvalid,
        lambda: save(GOOD, {"adapter_config": '{"lora_alpha": 4, "init_lora_weights": "pissa_niter_4"}'}),
        "changes the base model's weights",
    ),
    "alphas alone": (LoraInvalid, lambda: save({f"{KEY}.lora_alpha": torch.tensor(4.0)}), "holds no matrices"),
    "another layer beneath a wrapper": (
        LoraIncompatible,
        lambda: pair("ema.transformer_blocks.2.attn.to_q", DOWN, UP),
        "no layer `ema",
    ),
    "bias": (LoraInvalid, lambda: save(GOOD | {f"{KEY}.lora_B.bias": torch.ones(128)}), "bias"),
    "full differences": (
        LoraInvalid,
        lambda: save(GOOD | {"diffusion_model.img_in.diff_b": torch.ones(128)}),
        "full-weight",
    ),
    "too narrow": (LoraIncompatible, lambda: pair(KEY, torch.ones(4, 64), UP), "too narrow"),
    "too wide": (LoraIncompatible, lambda: pair(KEY, torch.ones(4, 256), UP), "too wide"),
    "too many rows": (LoraIncompatible, lambda: pair(KEY, DOWN, torch.ones(3072, 4)), "too wide"),
    "a wide control LoRA": (
        LoraIncompatible,
        lambda: pair("transformer.x_embedder", torch.ones(4, 128), UP),
        "a control LoRA, which doubles",
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
        error, _, words = BAD_FILES.get(name, (LoraInvalid, None, "PyTorch file"))
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


def test_alpha_of_a_small_float_does_not_lose_its_smallest_numbers(tmp_path: Path) -> None:
    """float8 widens; alpha / rank of a float16 LoRA does not flush its smallest numbers to zero."""
    tiny = torch.full((128, 4), 6e-8, dtype=torch.float16)
    tensors = {f"{KEY}.lora_A.weight": DOWN.to(torch.float8_e4m3fn), f"{KEY}.lora_B.weight": tiny}
    path = save_lora(tensors | {f"{KEY}.alpha": torch.tensor(0.25)}, tmp_path / "x.safetensors")
    file = read_lora_file(path, max_bytes=MAX_BYTES)
    layer = prepare_lora(file, names_of(flux1_transformer()), content_hash="x").layers[LAYER]
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
