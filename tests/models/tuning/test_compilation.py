"""Compiled blocks: no new compilation for another size, prompt or length, and caches that are kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._inductor.config
from diffusers import FluxPipeline
from peft.tuners.lora import LoraLayer

from flux_engine.models.catalog import FLUX_TINY
from flux_engine.models.lora.holder import ScaledLora
from flux_engine.models.lora.manager import LoRAManager
from flux_engine.models.planning.gpus import cpu_machine
from flux_engine.models.planning.optimizer import ModelOptimizer
from flux_engine.models.planning.plan import Plan, Preferences
from flux_engine.models.tuning.apply import apply
from flux_engine.models.tuning.compilation import (
    cache_file,
    compile_failure,
    graphs_missed,
    load_compiled,
    save_compiled,
)
from flux_engine.models.tuning.quantisation import loading
from flux_engine.models.tuning.step_cache import cached_steps
from flux_engine.units import GIB
from tests.models.tiny import random_lora
from tests.models.tiny_flux import paint, psnr, save_random_flux

# torch's own compiler warns of torch's own scripting.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")

CPU = cpu_machine(total_bytes=16 * GIB)
SIZES = ((64, 64), (96, 64), (64, 96), (128, 64), (96, 96))


@pytest.fixture(autouse=True)
def _operators_are_left_to_torch() -> Iterator[None]:
    """Inductor traces, keys and caches as ever; its own kernels would take a C++ compiler minutes."""
    with torch._inductor.config.patch(torch._inductor.lite_mode_options):
        yield


def compiled_plan() -> Plan:
    return ModelOptimizer().plan(CPU, FLUX_TINY, Preferences(compile=True))


@pytest.mark.slow
def test_compiled_blocks_serve_every_size_prompt_and_lora(tmp_path: Path) -> None:
    if (why := compile_failure("cpu")) is not None:
        pytest.skip(f"nothing can be compiled here: {why}")
    folder = save_random_flux(tmp_path / "flux")
    plain = FluxPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline = FluxPipeline.from_pretrained(folder, **loading(compiled_plan(), device="cpu").arguments)
    loras = [random_lora(pipeline.transformer, seed=i, rank=2 + i, only="attn" if i % 2 else "") for i in range(2)]
    applied = apply(pipeline, replace(compiled_plan(), step_cache_threshold=0.5), device="cpu")
    assert applied.is_compiled
    assert applied.has_step_cache
    assert applied.fallbacks == ()
    manager = LoRAManager(mode="slot")
    manager.reserve(pipeline)

    for _ in manager.variants(pipeline):
        paint(pipeline, side=64)
        paint(pipeline, side=96, width=64)  # the second size makes shapes dynamic
    assert all(layer.disable_adapters for layer in lora_layers(pipeline))
    graphs = graphs_missed()
    with torch.compiler.set_stance("fail_on_recompile"):
        for height, width in SIZES:
            picture = paint(pipeline, side=height, width=width)
            assert psnr(picture, paint(plain, side=height, width=width)) > 60
        for prompt in ("a red sun", "mountains in the night", "x"):
            paint(pipeline, prompt, side=64)
        for steps in (24, 4):
            applied.begin_call(pipeline, num_inference_steps=steps)
            picture = paint(pipeline, steps=steps)
            assert (cached_steps(pipeline) > 0) is (steps == 24)
        assert psnr(picture, paint(plain, steps=4)) > 60
        without = paint(pipeline)
        for chosen in ([ScaledLora(loras[0], 1.0)], [ScaledLora(lora, -0.5) for lora in loras]):
            manager.apply(pipeline, chosen)
            assert not any(layer.disable_adapters for layer in lora_layers(pipeline))
            assert psnr(paint(pipeline), without) < 60
        manager.apply(pipeline)
        assert all(layer.disable_adapters for layer in lora_layers(pipeline))  # a job without LoRAs bypasses the slot
        assert psnr(paint(pipeline), without) == float("inf")
    assert graphs_missed() == graphs

    file = cache_file(tmp_path, compiled_plan(), compute_capability=None)
    assert save_compiled(file) == file.stat().st_size > 0
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert load_compiled(file)


def lora_layers(pipeline: Any) -> list[Any]:
    return [module for module in pipeline.transformer.modules() if isinstance(module, LoraLayer)]


WORKER = """
import json, sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
import torch._inductor.config
from flux_engine.models.catalog import FLUX_TINY
from flux_engine.models.manager import FluxModelManager
from flux_engine.models.planning.gpus import cpu_machine
from flux_engine.models.planning.plan import Preferences
from flux_engine.models.served import ServedModels

volume = Path(sys.argv[1])
manager = FluxModelManager(
    ServedModels("flux-tiny", volume=volume, has_gpu=False),
    gpu=lambda: cpu_machine(total_bytes=2**34),
    volume=volume,
    preferences=Preferences(compile=True, quantisation="int8_dynamic"),
    lora_max_bytes=1,
    keeps_checkpoints=True,
)
with torch._inductor.config.patch(torch._inductor.lite_mode_options):
    tuned = manager.use(FLUX_TINY, lambda model: model.tuned)
manager.wait_for_checkpoint()
from torch._dynamo.utils import counters
from torch._inductor import config
found = counters["aot_autograd"]
print(json.dumps({
    "is_from_checkpoint": tuned.is_from_checkpoint,
    "quantised": tuned.applied.quantisations["transformer"],
    "is_compiled": tuned.applied.is_compiled,
    "hits": found["autograd_cache_hit"],
    "misses": found["autograd_cache_miss"],
    "searches": config.coordinate_descent_tuning,
}))
"""


@pytest.mark.slow
def test_a_later_worker_finds_all_compiled_code_of_the_first(tmp_path: Path) -> None:
    """The first quantises and the second reloads what it kept, each with a cache of its own besides the volume."""
    if (why := compile_failure("cpu")) is not None:
        pytest.skip(f"nothing can be compiled here: {why}")
    seen = []
    for number in range(2):
        own = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / f"inductor-{number}")}
        command = [sys.executable, "-c", WORKER, str(tmp_path / "volume")]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | own)
        seen.append(json.loads(done.stdout.splitlines()[-1]))
    first, second = seen
    assert (first["is_from_checkpoint"], second["is_from_checkpoint"]) == (False, True)
    assert first["misses"] > 0
    assert (second["hits"], second["misses"]) == (first["misses"], 0)
    for worker in seen:
        assert (worker["quantised"], worker["is_compiled"], worker["searches"]) == ("int8_dynamic", True, False)


def test_dynamic_quantisation_without_a_compiler_becomes_weight_only() -> None:
    plan = compiled_plan()
    parts = tuple(replace(p, quantisation="int8_dynamic") if p.component == "transformer" else p for p in plan.parts)
    how = loading(replace(plan, parts=parts, compile=False), device="cpu")
    assert how.quantisations["transformer"] == "int8_weight_only"


def test_caches_of_other_plans_are_other_files(tmp_path: Path) -> None:
    plan = compiled_plan()
    others = [replace(plan, dtype="bfloat16"), replace(plan, gpu="another"), replace(plan, attention=("_native_math",))]
    files = {cache_file(tmp_path, one, compute_capability=None) for one in (plan, *others)}
    files.add(cache_file(tmp_path, plan, compute_capability=(8, 9)))
    assert len(files) == 5
    assert not load_compiled(next(iter(files)))
