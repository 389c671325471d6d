"""What a safetensors file is, by the names of its tensors."""

from __future__ import annotations

import pytest

from flux_engine.errors import FluxError, LoraIncompatible, LoraInvalid
from flux_engine.inputs.lora_kinds import other_kind

LORA = ("transformer.transformer_blocks.0.attn.to_q.lora_A.weight", "transformer.proj_out.lora_B.weight")
PAIR = ".lora_down.weight", ".lora_up.weight"
KINDS: dict[str, tuple[type[FluxError], tuple[str, ...]]] = {
    "packed for Nunchaku": (LoraInvalid, ("transformer_blocks.0.mlp_fc1.lora_down", "x.mlp_fc1.lora_up")),
    "packed for Nunchaku (SVDQuant)": (LoraInvalid, ("single_transformer_blocks.0.qkv_proj.qweight",)),
    "Stable Diffusion 1.5, 2 or XL": (
        LoraIncompatible,
        tuple("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q" + end for end in PAIR),
    ),
    "Stable Diffusion 1.5, 2 or XL;": (LoraIncompatible, ("unet.mid_block.attentions.0.proj_in.lora_A.weight",)),
    "Stable Diffusion 1.5, 2 or XL; this": (LoraIncompatible, ("lora_unet_input_blocks_4_1_proj_in.lora_up.weight",)),
    "Stable Diffusion 3": (LoraIncompatible, ("lora_unet_joint_blocks_0_x_block_attn_qkv.lora_up.weight",)),
    "Qwen-Image": (LoraIncompatible, ("transformer_blocks.0.img_mlp.net.0.proj.lora_A.weight",)),
    "Qwen-Image; this": (LoraIncompatible, ("lora_unet_transformer_blocks_59_txt_mlp_net_2.lora_up.weight",)),
    "HunyuanVideo": (LoraIncompatible, ("transformer.double_blocks.0.img_attn_qkv.lora_A.weight",)),
    "HunyuanVideo;": (LoraIncompatible, ("lora_unet_double_blocks_0_img_mlp_fc1.lora_up.weight",)),
    "Wan": (LoraIncompatible, ("diffusion_model.blocks.0.cross_attn.k_img.lora_A.weight",)),
    "Wan;": (LoraIncompatible, ("lora_unet_blocks_0_self_attn_q.lora_down.weight",)),
    "Wan; this": (LoraIncompatible, ("transformer.blocks.0.ffn.net.0.proj.lora_A.weight",)),
    "HiDream": (LoraIncompatible, ("double_stream_blocks.0.block.attn1.to_q.lora_A.weight",)),
    "Chroma": (LoraIncompatible, ("diffusion_model.distilled_guidance_layer.in_proj.lora_A.weight",)),
    "Z-Image or Lumina": (LoraIncompatible, ("diffusion_model.layers.0.attention.to_q.lora_A.weight",)),
    "Z-Image or Lumina;": (LoraIncompatible, ("lycoris_noise_refiner_0_attention_to_k.lora_up.weight",)),
    "LTX-Video, CogVideoX or PixArt": (
        LoraIncompatible,
        ("transformer.transformer_blocks.0.attn1.to_q.lora_A.weight",),
    ),
    "a language model": (LoraIncompatible, ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",)),
    "a control LoRA": (LoraIncompatible, (*LORA, "double_blocks.0.img_attn.norm.query_norm.scale")),
    "a control LoRA, which": (LoraIncompatible, ("transformer.transformer_blocks.0.attn.norm_q.weight", *LORA)),
    "an IP-Adapter": (LoraInvalid, ("double_blocks.0.processor.ip_adapter_double_stream_k_proj.weight",)),
    "Redux": (LoraInvalid, ("redux_up.weight", "redux_down.weight")),
    "a ControlNet": (LoraInvalid, ("controlnet_blocks.0.weight", "transformer_blocks.0.attn.to_q.weight")),
    "a LoKr": (LoraInvalid, ("lycoris_transformer_blocks_0_attn_to_q.lokr_w1",)),
    "a LoHa": (LoraInvalid, ("lora_unet_double_blocks_0_img_attn_qkv.hada_w1_a",)),
    "an OFT": (LoraInvalid, ("lora_unet_double_blocks_0_img_attn_qkv.oft_blocks",)),
    "an OFT, which": (LoraInvalid, ("transformer.proj_out.oft_R.weight",)),
    "a GLoRA": (LoraInvalid, ("lora_unet_single_blocks_0_linear1.a1.weight",)),
    "an (IA)3": (LoraInvalid, ("lora_unet_single_blocks_0_linear1.on_input",)),
    "a VeRA": (LoraInvalid, ("base_model.model.proj_out.vera_lambda_b",)),
    "an AdaLoRA": (LoraInvalid, ("base_model.model.proj_out.lora_E",)),
    "Tucker cores": (LoraInvalid, ("lora_unet_x.lora_mid.weight",)),
    "a textual inversion embedding": (LoraInvalid, ("clip_l", "t5")),
    "a textual inversion embedding;": (LoraInvalid, ("emb_params",)),
    "an autoencoder": (LoraInvalid, ("decoder.conv_in.weight", "encoder.down.0.block.0.conv1.weight")),
    "an upscaler": (LoraInvalid, ("body.0.rdb1.conv1.weight",)),
    "a text encoder": (LoraInvalid, ("encoder.block.0.layer.0.SelfAttention.q.weight",)),
    "a text encoder;": (LoraInvalid, ("text_model.encoder.layers.0.mlp.fc1.weight",)),
    "a whole model": (LoraInvalid, ("model.diffusion_model.double_blocks.0.img_attn.qkv.weight",)),
    "a whole model;": (LoraInvalid, ("transformer_blocks.0.attn.to_q.weight", "proj_out.bias")),
    "nothing but text encoders": (LoraIncompatible, ("lora_te1_text_model_encoder.lora_up.weight",)),
    "no LoRA matrices": (LoraInvalid, ("weights", "bias")),
}


@pytest.mark.parametrize(("words", "error", "names"), [(w, *kind) for w, kind in KINDS.items()], ids=KINDS)
def test_a_file_is_named_as_what_it_is(words: str, error: type[FluxError], names: tuple[str, ...]) -> None:
    kind = other_kind(names)
    assert kind is not None
    refusal = kind.error()
    assert type(refusal) is error
    assert words.rstrip("; this") in refusal.message
    assert "; " in refusal.message  # and what to ask for instead


@pytest.mark.parametrize(
    "names",
    [
        LORA,
        ("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight",),
        ("double_blocks.0.processor.qkv_lora1.down.weight",),
        ("blocks.0.attn.a_to_qkv.lora_A.default.weight",),
        ("transformer.transformer_blocks.0.attn.to_q.lora_magnitude_vector", *LORA),
        ("text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight", *LORA),
        ("text_encoders.t5xxl.transformer.encoder.block.0.layer.0.SelfAttention.q.lora_A.weight", *LORA),
        ("bundle_emb.me.clip_l", *LORA),
        ("single_blocks.0.norm.linear.lora_A.default.weight",),
    ],
)
def test_a_lora_is_no_other_kind(names: tuple[str, ...]) -> None:
    assert other_kind(names) is None
