"""A FLUX pipeline of flux-tiny's kind with random weights, made in memory: for what does not depend on training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

from builder.flux_tiny.autoencoder import new_autoencoder
from builder.flux_tiny.text import new_clip_encoder, new_t5_encoder
from flux_engine.job.fingerprint import ModelIdentity
from flux_engine.models import catalog
from flux_engine.models.loaded import LoadedModel
from flux_engine.models.loading import Tuned
from flux_engine.models.lora.library import LoraLibrary
from flux_engine.models.lora.manager import LoRAManager
from flux_engine.models.lora.names import layer_names, linear_shapes
from flux_engine.models.planning.gpus import cpu_machine
from flux_engine.models.planning.optimizer import ModelOptimizer
from flux_engine.models.planning.plan import Preferences
from flux_engine.models.spec import ModelSpec
from flux_engine.models.tuning.apply import apply
from flux_engine.units import GIB
from tests.models.tiny_flux import bundled_tokenizers


@pytest.fixture(scope="session")
def random_model() -> LoadedModel:
    torch.manual_seed(1)
    vae = new_autoencoder()
    vae.register_to_config(shift_factor=0.0, scaling_factor=1.0)
    clip, t5 = bundled_tokenizers()
    pipeline = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
        vae=vae,
        text_encoder=new_clip_encoder(clip),
        tokenizer=clip,
        text_encoder_2=new_t5_encoder(t5),
        tokenizer_2=t5,
        transformer=FluxTransformer2DModel(
            in_channels=64,
            num_layers=2,
            num_single_layers=2,
            attention_head_dim=32,
            num_attention_heads=4,
            joint_attention_dim=96,
            pooled_projection_dim=64,
            guidance_embeds=True,
            axes_dims_rope=(4, 14, 14),
        ),
    )
    spec = catalog.find("flux-tiny")
    assert spec is not None
    return loaded(spec, pipeline)


def loaded(spec: ModelSpec, pipeline: Any, *, step_cache_threshold: float | None = None) -> LoadedModel:
    """`pipeline` as the worker holds it, by the plan for a machine without a GPU."""
    pipeline.set_progress_bar_config(disable=True)
    plan = ModelOptimizer().plan(cpu_machine(total_bytes=400 * GIB), spec, Preferences())
    plan = replace(plan, step_cache_threshold=step_cache_threshold)
    return LoadedModel(
        spec=spec,
        identity=ModelIdentity(id=spec.id, revision="random", precision="float32"),
        tuned=Tuned(
            pipeline=pipeline,
            applied=apply(pipeline, plan, device="cpu"),
            checkpoint=None,
            unsaved=None,
            import_ms=0.0,
            load_ms=0.0,
            apply_ms=0.0,
        ),
        lora_library=LoraLibrary(layer_names(linear_shapes(pipeline.transformer)), max_file_bytes=1),
        lora_manager=LoRAManager(),
        phases_ms={},
    )
