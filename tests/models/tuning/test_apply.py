"""Plans carried out on the CPU, and the pictures they give against the plain pipeline's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline

from flux_engine.generate.sampling import sibling
from flux_engine.models.catalog import FLUX_TINY
from flux_engine.models.planning.gpus import cpu_machine
from flux_engine.models.planning.optimizer import ModelOptimizer
from flux_engine.models.planning.plan import Plan, Preferences
from flux_engine.models.tuning.apply import AppliedPlan, apply
from flux_engine.models.tuning.quantisation import loading
from flux_engine.models.tuning.step_cache import cached_steps
from flux_engine.units import GIB
from tests.models.tiny_flux import Pixels, paint, psnr, save_random_flux

CPU = cpu_machine(total_bytes=16 * GIB)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_flux(tmp_path_factory.mktemp("flux"))


@pytest.fixture(scope="module")
def plain(folder: Path) -> Pixels:
    return paint(FluxPipeline.from_pretrained(folder, dtype=torch.float32))


@pytest.fixture(autouse=True)
def native_attention() -> Iterator[None]:
    """`set_attention_backend` sets the process's default too."""
    from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

    yield
    _AttentionBackendRegistry.set_active_backend(AttentionBackendName.NATIVE)


def plan_of(wishes: Preferences, **changes: Any) -> Plan:
    return replace(ModelOptimizer().plan(CPU, FLUX_TINY, wishes), **changes)


def loaded(folder: Path, plan: Plan) -> tuple[Any, AppliedPlan]:
    how = loading(plan, device="cpu")
    pipeline = FluxPipeline.from_pretrained(folder, **how.arguments)
    return pipeline, apply(pipeline, plan, device="cpu", fallbacks=how.fallbacks)


@pytest.mark.parametrize(
    ("wishes", "changes", "least_psnr"),
    [
        (Preferences(), {}, float("inf")),
        (Preferences(attention_slicing=True), {}, float("inf")),
        (Preferences(offload="group"), {}, float("inf")),
        (Preferences(offload="text"), {}, float("inf")),
        (Preferences(offload="text", text_quantisation="int8_weight_only"), {}, 40),
        (Preferences(), {"dtype": "bfloat16"}, 30),
        (Preferences(quantisation="int8_weight_only"), {}, 40),
        (Preferences(profile="memory"), {}, 40),
    ],
    ids=["plain", "slicing", "group", "text", "text in int8", "bfloat16", "int8", "memory"],
)
def test_a_plan_on_the_cpu_paints_the_plain_picture(
    folder: Path, plain: Pixels, wishes: Preferences, changes: dict[str, Any], least_psnr: float
) -> None:
    plan = plan_of(wishes, **changes)
    pipeline, applied = loaded(folder, plan)

    assert psnr(paint(pipeline), plain) >= least_psnr
    assert applied.fallbacks == ()
    assert applied.offload == plan.offload
    assert applied.dtype == plan.dtype
    assert applied.quantisations["transformer"] == plan.transformer_quantisation


def test_a_streamed_text_encoder_leaves_the_transformer_free_for_step_cache_and_hooks(folder: Path) -> None:
    pipeline, applied = loaded(folder, plan_of(Preferences(offload="text"), step_cache_threshold=0.5))
    streamed = [name for name, part in pipeline.components.items() if _has_offloading_hooks(part)]
    assert streamed == ["text_encoder_2"]  # T5, the largest
    assert applied.has_step_cache
    applied.begin_call(pipeline, num_inference_steps=24)
    first = paint(pipeline, steps=24)
    assert cached_steps(pipeline) > 0
    applied.begin_call(pipeline, num_inference_steps=24)
    assert psnr(paint(pipeline, steps=24), first) == float("inf")  # the hooks stay from picture to picture


def _has_offloading_hooks(part: Any) -> bool:
    modules = part.modules() if isinstance(part, torch.nn.Module) else ()
    return any(hasattr(module, "_diffusers_hook") for module in modules) and type(part).__name__ != (
        "FluxTransformer2DModel"
    )


def test_tiles_are_as_small_as_the_plan_says(folder: Path) -> None:
    whole, _ = loaded(folder, plan_of(Preferences()))
    tiled, applied = loaded(folder, plan_of(Preferences(), vae_tile_side=64))

    assert applied.vae_tile_side == 64
    assert psnr(paint(tiled, side=64), paint(whole, side=64)) == float("inf")  # one tile: the same computation
    assert 15 < psnr(paint(tiled, side=128), paint(whole, side=128)) < float("inf")


@pytest.mark.parametrize(
    ("changes", "choice", "outcome"),
    [
        ({"attention": ("_flash_3_hub", "_native_cudnn", "native")}, "attention", {"attention": "native"}),
        ({"offload": "model"}, "offload", {"offload": "group"}),
        ({"offload": "sequential"}, "offload", {"offload": "group"}),
    ],
)
def test_what_the_machine_refuses_falls_back_and_is_reported(
    folder: Path, plain: Pixels, changes: dict[str, Any], choice: str, outcome: dict[str, Any]
) -> None:
    pipeline, applied = loaded(folder, plan_of(Preferences(), **changes))

    assert {name: getattr(applied, name) for name in outcome} == outcome
    assert {fallback.choice for fallback in applied.fallbacks} == {choice}
    assert all(fallback.why for fallback in applied.fallbacks)
    assert psnr(paint(pipeline), plain) == float("inf")


def test_fp8_on_a_cpu_falls_down_its_chain(folder: Path, plain: Pixels) -> None:
    plan = plan_of(Preferences(quantisation="int8_weight_only"))
    parts = tuple(
        replace(part, quantisation="fp8_dynamic") if part.component == "transformer" else part for part in plan.parts
    )
    pipeline, applied = loaded(folder, replace(plan, parts=parts, compile=False))

    assert applied.quantisations["transformer"] == "int8_weight_only"  # dynamic only with compilation
    assert psnr(paint(pipeline), plain) >= 40


def test_a_step_cache_skips_steps_of_long_jobs_only(folder: Path) -> None:
    pipeline, applied = loaded(folder, plan_of(Preferences(), step_cache_threshold=0.5))
    reference = FluxPipeline.from_pretrained(folder, dtype=torch.float32)
    assert applied.has_step_cache

    def painted(steps: int, *, has_true_cfg: bool = False) -> Pixels:
        applied.begin_call(pipeline, num_inference_steps=steps, has_true_cfg=has_true_cfg)
        return paint(pipeline, steps=steps)

    long = painted(20)
    assert 0 < cached_steps(pipeline) < 20
    whole = paint(reference, steps=20)
    assert psnr(long, whole) < float("inf")  # the other pipeline of this process computes all
    for steps in (4, 19):
        assert psnr(painted(steps), paint(reference, steps=steps)) == float("inf")
        assert cached_steps(pipeline) == 0
    assert psnr(painted(20, has_true_cfg=True), whole) == float("inf")
    assert psnr(painted(20), long) == float("inf")  # nothing stayed of the call before


def test_another_pipeline_around_the_transformer_has_the_step_cache_too(folder: Path) -> None:
    pipeline, applied = loaded(folder, plan_of(Preferences(), step_cache_threshold=0.5))
    redrawing = sibling(pipeline, "FluxImg2ImgPipeline")
    redrawing.set_progress_bar_config(disable=True)
    applied.begin_call(pipeline, num_inference_steps=24)
    picture = redrawing(
        prompt="a red sun",
        image=torch.zeros(1, 3, 64, 64),
        strength=1.0,
        num_inference_steps=24,
        width=64,
        height=64,
        max_sequence_length=32,
        output_type="np",
    ).images[0]
    assert np.isfinite(picture).all()
    assert cached_steps(pipeline) > 0
