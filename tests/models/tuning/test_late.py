"""Libraries left out: what a first picture imports, and that what was left out comes when it is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flux_engine.models.weights import BUNDLED_FOLDER

ROOT = Path(__file__).parents[3]
LEFT_OUT = ("torch._dynamo", "torch._inductor", "torch.distributed.tensor", "sympy", "torchao", "peft", "boto3")
PICTURE = f"""
import sys, torch
from flux_engine.models.tuning.libraries import import_diffusers

pipeline = import_diffusers().FluxPipeline.from_pretrained({str(BUNDLED_FOLDER)!r}, dtype=torch.float32)
pipeline.set_progress_bar_config(disable=True)
call = dict(width=64, height=64, num_inference_steps=2, max_sequence_length=32, output_type="pt")
paint = lambda: pipeline("a red sun", generator=torch.Generator().manual_seed(7), **call).images
first = paint()
is_imported = lambda name: getattr(sys.modules.get(name), "__file__", None) is not None
print(*(name for name in {LEFT_OUT!r} if is_imported(name)))
"""


def run(program: str) -> list[str]:
    done = subprocess.run((sys.executable, "-c", program), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_picture_imports_no_compiler_no_quantiser_and_no_adapters() -> None:
    assert run(PICTURE) == [""]


@pytest.mark.parametrize(
    ("used", "brings"),
    [
        # The blocks that were declared to go into graphs whole do so.
        (
            "torch.compile(lambda x: x + 1, backend='eager', fullgraph=True)(torch.ones(2));"
            "from torch._dynamo import trace_rules, variables;"
            "from diffusers.models.transformers.transformer_flux import FluxTransformerBlock as Block;"
            "assert trace_rules.lookup_callable(Block) is variables.TorchInGraphFunctionVariable",
            {"torch._dynamo", "sympy"},
        ),
        ("import torch._dynamo.config; assert torch._dynamo.config.recompile_limit", {"torch._dynamo"}),
        ("from sympy import Symbol; assert Symbol('x')", {"sympy"}),
        (
            "from peft import LoraConfig; pipeline.transformer.add_adapter(LoraConfig(target_modules=['to_q']));"
            "from diffusers.loaders.lora_base import BaseTunerLayer;"
            "assert any(isinstance(module, BaseTunerLayer) for module in pipeline.transformer.modules())",
            {"peft"},
        ),
        (
            "from diffusers import TorchAoConfig; from torchao.quantization import Int8WeightOnlyConfig;"
            "from diffusers.quantizers.auto import DiffusersAutoQuantizer;"
            "assert DiffusersAutoQuantizer.from_config(TorchAoConfig(Int8WeightOnlyConfig()))",
            {"torchao"},
        ),
        ("import torch.distributed.tensor; assert torch.distributed.is_available()", {"torch.distributed.tensor"}),
        ("meta = torch.ones(2, 3, device='meta') + torch.ones(3, device='meta'); assert meta.shape == (2, 3)", set()),
    ],
    ids=("compile", "compiler's settings", "sympy", "peft", "torchao", "distributed", "shapes"),
)
def test_what_was_left_out_comes_when_it_is_used(used: str, brings: set[str]) -> None:
    again = "assert torch.equal(first, paint())"  # a new adapter changes nothing either: it begins at zero
    named = f"print(*(name for name in {LEFT_OUT!r} if is_imported(name)))"
    before, after = run(f"{PICTURE}\n{used}\n{again}\n{named}")
    assert before == ""
    assert brings <= set(after.split())
