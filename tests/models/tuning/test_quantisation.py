"""Schemes by layer, the chain of fallbacks, and what torchao must not change for the whole process."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch._functorch.config
import torch._inductor.config
from torch._dynamo.utils import counters
from torchao.quantization import quantize_

from flux_engine.models.catalog import FLUX_TINY
from flux_engine.models.planning.gpus import cpu_machine
from flux_engine.models.planning.optimizer import ModelOptimizer
from flux_engine.models.planning.plan import Preferences
from flux_engine.models.tuning.quantisation import config_of_layer, loading, quantisation_of, torchao_config
from flux_engine.settings import Quantisation
from flux_engine.units import GIB

SCHEMES: tuple[Quantisation, ...] = ("int8_weight_only", "int8_dynamic")
BLOCK = "transformer_blocks.0.attn.to_q"
ONE_ROW = "single_transformer_blocks.7.norm.linear"


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")  # torch's compiler of torch
def test_a_card_without_fp8_by_row_tries_it_by_tensor_and_then_int8() -> None:
    plan = ModelOptimizer().plan(cpu_machine(total_bytes=16 * GIB), FLUX_TINY, Preferences(compile=True))
    parts = tuple(
        replace(part, quantisation="fp8_dynamic") if part.component == "transformer" else part for part in plan.parts
    )
    with torch._inductor.config.patch(torch._inductor.lite_mode_options):
        how = loading(replace(plan, parts=parts), device="cpu")
    assert how.quantisations["transformer"] == "int8_dynamic"
    assert [one.wanted for one in how.fallbacks] == ["fp8_dynamic", "fp8_tensor"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_quantising_turns_on_no_search_in_the_compiler(scheme: Quantisation) -> None:
    layer = torch.nn.Sequential(torch.nn.Linear(64, 64))
    searches = ("coordinate_descent_tuning", "coordinate_descent_check_all_directions")
    with torch._inductor.config.patch(dict.fromkeys(searches, False)):  # whatever ran before in this process
        quantize_(layer, torchao_config(scheme))
        assert not any(getattr(torch._inductor.config, name) for name in searches)
    assert quantisation_of(layer) == scheme


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ("transformer_blocks.0.attn.to_q", "int8_dynamic"),
        ("transformer_blocks.3.ff.net.0.proj", "int8_dynamic"),
        ("transformer_blocks.0.norm1.linear", "int8_weight_only"),  # one row a step
        ("single_transformer_blocks.7.norm.linear", "int8_weight_only"),
        ("double_stream_modulation_img.linear", "int8_weight_only"),
        ("x_embedder", "int8_weight_only"),
        ("proj_out", "int8_weight_only"),
        ("single_transformer_blocks.7.proj_out", "int8_dynamic"),
    ],
)
def test_layers_that_meet_one_row_and_edges_keep_their_activations(layer: str, expected: Quantisation) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(128, 64))
    quantize_(module, config_of_layer(layer, "int8_dynamic"))
    assert quantisation_of(module) == expected


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Int8Tensor does not implement:UserWarning")
@pytest.mark.parametrize(("layer", "scheme"), [(ONE_ROW, "int8_dynamic"), (BLOCK, "int8_weight_only")])
def test_inductor_widens_weights_and_takes_no_kernel_of_one_thread_an_output(layer: str, scheme: Quantisation) -> None:
    """The plain configuration falls into it, so that the counter is known to count."""
    row = torch.randn(1, 128, dtype=torch.bfloat16)
    for config, expected in ((torchao_config("int8_weight_only"), 1), (config_of_layer(layer, scheme), 0)):
        module = torch.nn.Sequential(torch.nn.Linear(128, 256, dtype=torch.bfloat16)).requires_grad_(False)
        whole = module(row)
        quantize_(module, config)
        torch._dynamo.reset()
        counters.clear()
        no_cache = torch._functorch.config.patch(enable_autograd_cache=False)
        with torch.no_grad(), no_cache, torch._inductor.config.patch(fx_graph_cache=False):
            found = torch.compile(module)(row)
        assert counters["inductor"]["woq_matcher_count"] == expected
        assert float((found - whole).norm() / whole.norm()) < 0.02
