"""What a file is that is no FLUX model: named, with what to do, without reading a tensor."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import pytest

from flux_engine.errors import ModelUnavailable
from flux_engine.models.single_file.model_file import read_model_file
from tests.models.single_file.files import FLUX_1, gguf, safetensors, written

SQUARE = (8, 8)
SD = "model.diffusion_model."
NAMED: dict[str, tuple[str, ...]] = {
    "is a LoRA; put it into the folder `loras`": ("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight",),
    "is a LoRA; put it into": ("transformer.transformer_blocks.0.attn.to_q.lora_A.weight",),
    "is a LoRA; ": ("lycoris_double_blocks_0_img_mlp_0.lokr_w1",),
    "is packed for Nunchaku": ("transformer_blocks.0.qkv_proj.qweight", "transformer_blocks.0.qkv_proj.wscales"),
    "is packed by bitsandbytes": (SD + "img_in.weight", SD + "double_blocks.0.img_mlp.0.weight.absmax"),
    "is packed as NVFP4": (SD + "img_in.weight", SD + "double_blocks.0.img_mlp.0.weight_scale_2"),
    "is packed by GPTQ": ("model.layers.0.mlp.up_proj.qzeros",),
    "Stable Diffusion XL": (SD + "input_blocks.4.1.proj_in.weight", "conditioner.embedders.0.transformer.x.weight"),
    "Stable Diffusion 1 or 2": (SD + "input_blocks.4.1.proj_in.weight", "cond_stage_model.transformer.x.weight"),
    "Stable Diffusion 1 or 2; this": ("down_blocks.0.attentions.0.proj_in.weight", "conv_in.weight"),
    "Stable Diffusion 3": (SD + "joint_blocks.0.x_block.attn.qkv.weight", SD + "x_embedder.proj.weight"),
    "Stable Cascade": ("clip_txt_pooled_mapper.weight", "down_blocks.0.0.channelwise.0.weight"),
    "Qwen-Image": ("transformer_blocks.0.img_mlp.net.0.proj.weight", "txt_in.weight"),
    "HunyuanVideo": ("double_blocks.0.img_attn_qkv.weight", "txt_in.individual_token_refiner.blocks.0.x.weight"),
    "Mochi": ("blocks.0.attn.qkv_x.weight",),
    "Wan": ("blocks.0.self_attn.q.weight", "patch_embedding.weight"),
    "HiDream": ("double_stream_blocks.0.block.attn.weight",),
    "Chroma": ("img_in.weight", "double_blocks.0.img_attn.qkv.weight", "distilled_guidance_layer.in_proj.weight"),
    "AuraFlow": ("double_layers.0.attn.w1q.weight",),
    "Z-Image or Lumina": ("noise_refiner.0.attention.qkv.weight", "cap_embedder.0.weight"),
    "LTX-Video, PixArt": ("transformer_blocks.0.attn1.to_q.weight", "patchify_proj.weight"),
    "is a model of FLUX.3": ("mode_blocks.image.0.q_proj.weight",),
    "is a ControlNet": ("controlnet_blocks.0.weight", "transformer_blocks.0.attn.to_q.weight"),
    "is an IP-Adapter": ("double_blocks.0.processor.ip_adapter_double_stream_k_proj.weight",),
    "is Redux": ("redux_up.weight", "redux_down.weight"),
    "is a picture encoder": ("vision_model.encoder.layers.0.mlp.fc1.weight",),
    "is a text encoder (T5)": ("encoder.block.0.layer.0.SelfAttention.q.weight", "shared.weight"),
    "is a text encoder (CLIP)": ("text_model.encoder.layers.0.mlp.fc1.weight",),
    "is a language model or a text encoder": ("model.layers.0.self_attn.q_proj.weight", "model.embed_tokens.weight"),
    "is an autoencoder (VAE); the": ("encoder.down_blocks.0.resnets.0.norm1.weight", "decoder.conv_in.weight"),
    "is a ControlNet; ": (*FLUX_1, "controlnet_blocks.0.weight"),
    "is an autoencoder (VAE)": ("encoder.conv_in.weight", "decoder.up.0.block.0.conv1.weight"),
    "is an upscaler": ("body.0.rdb1.conv1.weight",),
    "is an image classifier": ("vit.embeddings.cls_token", "classifier.weight"),
    "is a textual inversion": ("emb_params",),
    "holds no model that is known": ("weight",),
}


def said_of(content: bytes, folder: Path, name: str = "mine.safetensors") -> str:
    with pytest.raises(ModelUnavailable) as refusal:
        read_model_file(written(folder / "file", content), name=name)
    assert str(folder) not in refusal.value.message
    return refusal.value.message


@pytest.mark.parametrize("what", NAMED)
def test_a_file_that_is_something_else_is_named(what: str, tmp_path: Path) -> None:
    said = said_of(safetensors(dict.fromkeys(NAMED[what], SQUARE)), tmp_path)
    assert what in said
    assert said.startswith("`mine.safetensors` ")
    assert "; " in said  # and what to do


def zipped(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, b"x" * 100)
    return buffer.getvalue()


CONTENT: dict[str, tuple[bytes, str]] = {
    "pickle": (pickle.dumps({"weight": [1.0] * 9}), "is a Python pickle, which can run code; convert it"),
    "torch.save": (zipped("archive/data.pkl"), "is a PyTorch file (.pt, .ckpt, .bin), a pickle that can run code"),
    "zip": (zipped("model.safetensors"), "is a zip archive; unpack it"),
    "nothing": (b"", "is empty"),
    "a page": (b"<!doctype html><html><body>Log in</body></html>", "is a web page that asks for a login"),
    "an error": (b'{"error": "not found"}', 'is JSON text that says "not found"'),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(64), "is a picture (PNG)"),
    "words": (b"this is a model, believe me\n" * 9, "is text; name a model's file"),
    "an archive": (b"\x1f\x8b" + bytes(64), "is a gzip archive"),
    "noise": (bytes(range(128, 256)) * 9, "is not a safetensors file"),
    "GGUF of Wan": (gguf({"blocks.0.self_attn.q.weight": (8, 8)}), "is a model of Wan"),
    "GGUF of T5": (gguf({"enc.blk.0.attn_q.weight": (8, 8)}, notes={"general.architecture": "t5encoder"}), "(T5)"),
    "GGUF of Llama": (
        gguf({"blk.0.attn_q.weight": (8, 8)}, notes={"general.architecture": "llama"}),
        "a language model",
    ),
    "GGUF of what": (gguf({"x.weight": (8, 8)}, notes={"general.architecture": "newest"}), "another model (newest)"),
}


@pytest.mark.parametrize("what", CONTENT)
def test_what_is_no_tensor_file_is_named_by_its_first_bytes(what: str, tmp_path: Path) -> None:
    content, said = CONTENT[what]
    assert said in said_of(content, tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"double_blocks.0.img_mlp.2.weight": None}, "lacks `double_blocks.0.img_mlp.2.weight` of its transformer"),
        ({"single_blocks.2.linear1.weight": (896, 128)}, "of its transformer; fetch it again"),
        ({"img_in.weight": (128, 128)}, "is a control model (FLUX.1 Canny or Depth)"),
        ({"img_in.weight": (130, 64)}, "gives `x_embedder.weight` a shape that no FLUX has"),
        ({"txt_in.weight": (128,)}, "gives `context_embedder.weight` a shape that no FLUX has"),
    ],
)
def test_a_flux_that_is_not_whole_says_what_is_wrong(
    change: dict[str, tuple[int, ...] | None], said: str, tmp_path: Path
) -> None:
    tensors = {name: shape for name, shape in (FLUX_1 | change).items() if shape is not None}
    assert said in said_of(safetensors(tensors), tmp_path)


def test_types_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    assert "as I8, which is not read here" in said_of(safetensors(FLUX_1, dtype="I8"), tmp_path)
