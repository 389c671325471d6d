"""Libraries left out: what a first picture imports, and that what was left out comes when it is used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flux_engine.models.weights import BUNDLED_FOLDER

ROOT = Path(__file__).parents[3]
LEFT_OUT = ("torch._dynamo", "torch._inductor", "torch.distributed.tensor", "sympy", "torchao", "peft", "boto3")
# What is used, and what it brings. The pipeline has painted; `paint` paints the same again.
USES: dict[str, tuple[str, set[str]]] = {
    # The blocks that were declared to go into graphs whole do so.
    "compile": (
        "torch.compile(lambda x: x + 1, backend='eager', fullgraph=True)(torch.ones(2));"
        "from torch._dynamo import trace_rules, variables;"
        "from diffusers.models.transformers.transformer_flux import FluxTransformerBlock as Block;"
        "assert trace_rules.lookup_callable(Block) is variables.TorchInGraphFunctionVariable",
        {"torch._dynamo", "sympy"},
    ),
    "compiler's settings": (
        "import torch._dynamo.config; assert torch._dynamo.config.recompile_limit",
        {"torch._dynamo"},
    ),
    "sympy": ("from sympy import Symbol; assert Symbol('x')", {"sympy"}),
    "peft": (
        "from peft import LoraConfig; pipeline.transformer.add_adapter(LoraConfig(target_modules=['to_q']));"
        "from diffusers.loaders.lora_base import BaseTunerLayer;"
        "assert any(isinstance(module, BaseTunerLayer) for module in pipeline.transformer.modules())",
        {"peft"},
    ),
    "torchao": (
        "from diffusers import TorchAoConfig; from torchao.quantization import Int8WeightOnlyConfig;"
        "from diffusers.quantizers.auto import DiffusersAutoQuantizer;"
        "assert DiffusersAutoQuantizer.from_config(TorchAoConfig(Int8WeightOnlyConfig()))",
        {"torchao"},
    ),
    "distributed": (
        "import torch.distributed.tensor; assert torch.distributed.is_available()",
        {"torch.distributed.tensor"},
    ),
    "shapes": (
        "meta = torch.ones(2, 3, device='meta') + torch.ones(3, device='meta'); assert meta.shape == (2, 3)",
        set(),
    ),
}
# One process paints, then forks for each use: what one use imports is not there for the next.
PROGRAM = f"""
import json, os, sys, torch, traceback
from flux_engine.models.tuning.libraries import import_diffusers

pipeline = import_diffusers().FluxPipeline.from_pretrained({str(BUNDLED_FOLDER)!r}, dtype=torch.float32)
pipeline.set_progress_bar_config(disable=True)
call = dict(width=64, height=64, num_inference_steps=2, max_sequence_length=32, output_type="pt")
paint = lambda: pipeline("a red sun", generator=torch.Generator().manual_seed(7), **call).images
first = paint()

def imported():
    return [name for name in {LEFT_OUT!r} if getattr(sys.modules.get(name), "__file__", None) is not None]

def tell(name, **facts):
    os.write(1, (json.dumps({{"name": name, **facts}}) + "\\n").encode())

tell("the picture", imported=imported(), modules=len(sys.modules))
for name, program in json.load(sys.stdin).items():
    if os.fork() == 0:
        try:
            exec(program)
            tell(name, imported=imported(), is_same=bool(torch.equal(first, paint())))
        except BaseException:
            tell(name, fault=traceback.format_exc())
        os._exit(0)
    os.wait()
"""
MOST_MODULES = 2_200  # of a first picture, without the SDK and the worker; 3,487 before anything was left out


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """What the process says of its picture and of each use."""
    done = subprocess.run(
        (sys.executable, "-c", PROGRAM),
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},  # a fork does not take a pool of threads along
        input=json.dumps({name: program for name, (program, _) in USES.items()}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {fact.pop("name"): fact for fact in map(json.loads, done.stdout.splitlines())}


def test_a_picture_imports_no_compiler_no_quantiser_and_no_adapters(told: dict[str, Any]) -> None:
    assert told["the picture"]["imported"] == []
    assert told["the picture"]["modules"] <= MOST_MODULES


@pytest.mark.parametrize("name", USES)
def test_what_was_left_out_comes_when_it_is_used(told: dict[str, Any], name: str) -> None:
    assert told[name].get("fault") is None
    assert told[name]["is_same"]  # a new adapter changes nothing either: it begins at zero
    assert USES[name][1] <= set(told[name]["imported"])
