"""Quantised weights through torchao: the arguments that a pipeline or its components are loaded with.

Quantisation happens while the weights are loaded, so that a model that fits only quantised never stands in memory
whole. A scheme that this machine cannot run is replaced by the next of its chain, and the fallback is noted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from flux_engine.models.planning.plan import DYNAMIC, Plan
from flux_engine.models.tuning.compilation import compile_failure
from flux_engine.models.tuning.fallback import Fallback, FallbackNoted
from flux_engine.settings import Quantisation

NEXT: Final[dict[Quantisation, Quantisation]] = {
    "fp8_dynamic": "fp8_tensor",  # cuBLAS has no scales by row on some Blackwell cards, pytorch #192707
    "fp8_tensor": "int8_dynamic",
    "int8_dynamic": "int8_weight_only",
    "int8_weight_only": "none",
}
# These layers meet one row a step (modulation) or lie at the edges: integer kernels want 17 rows and more, and
# nothing is gained there by faster arithmetic.
SINGLE_ROW_LAYERS: Final = r"re:.*(norm\w*|modulation\w*)\.(.*\.)?linear.*"
EDGE_LAYERS: Final = r"re:(.*embed.*|proj_out.*)"
# Weights of a row that share a scale, where a compiled layer widens them. With one scale a row Inductor calls
# `_weight_int8pack_mm`, which took 24.5 of an H100's 128 ms a step of FLUX.1 for the modulation alone (docs/measuring-
# gpus.md); with several it widens and multiplies. They add 3 % to a layer's bytes.
GROUP: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """How to load a pipeline: keyword arguments of its `from_pretrained`, and what each component will be quantised to.

    `configs` has the libraries' configuration for each component that is quantised.
    """

    arguments: dict[str, Any]
    configs: dict[str, Any]
    quantisations: dict[str, Quantisation]
    fallbacks: tuple[Fallback, ...]


def loading(plan: Plan, *, device: str) -> Loading:
    """The arguments that carry out `plan`'s dtype, quantisation and placement on `device` (`cuda` or `cpu`)."""
    import torch

    dtype = getattr(torch, plan.dtype)
    fallbacks: list[Fallback] = []
    may_be_dynamic = plan.compile
    if plan.compile and plan.transformer_quantisation in DYNAMIC and (why := compile_failure(device)):
        fallbacks.append(Fallback(choice="quantisation", wanted=plan.transformer_quantisation, why=why))
        may_be_dynamic = False
    schemes: dict[str, Quantisation] = {}
    for part in plan.parts:
        wanted = part.quantisation
        if wanted in DYNAMIC and not may_be_dynamic:
            wanted = "int8_weight_only"
        schemes[part.component] = _supported(wanted, device, dtype, fallbacks)
    arguments: dict[str, Any] = {"dtype": dtype}
    configs = _configs(schemes, is_compiled=plan.compile)
    if configs:
        arguments["quantization_config"] = _pipeline_config(configs)
    if plan.offload == "balanced":
        arguments["device_map"] = "balanced"
    return Loading(arguments=arguments, configs=configs, quantisations=schemes, fallbacks=tuple(fallbacks))


def quantisation_of(module: Any) -> Quantisation:
    """How the Linear layers of a loaded component are quantised; the scheme that most of its weights have."""
    import torch

    weights: dict[Quantisation, int] = {}
    for layer in module.modules():
        if isinstance(layer, torch.nn.Linear):
            scheme = _scheme_of_weight(layer.weight)
            weights[scheme] = weights.get(scheme, 0) + layer.weight.numel()
    return max(weights, key=lambda scheme: weights[scheme], default="none")


# ------------------------------------------------------------------------------------------------- schemes


def _supported(wanted: Quantisation, device: str, dtype: Any, fallbacks: list[Fallback]) -> Quantisation:
    """`wanted`, or the first scheme after it that a small layer can run with here."""
    while wanted != "none":
        with FallbackNoted(fallbacks, choice="quantisation", wanted=wanted):
            _try_scheme(wanted, device, dtype)
            return wanted
        wanted = NEXT[wanted]
    return wanted


def _try_scheme(scheme: Quantisation, device: str, dtype: Any) -> None:
    import torch
    from torchao.quantization import quantize_

    layer = torch.nn.Sequential(torch.nn.Linear(64, 64)).to(device=device, dtype=dtype)
    quantize_(layer, torchao_config(scheme))
    with torch.no_grad():
        layer(torch.ones(32, 64, device=device, dtype=dtype))


def torchao_config(scheme: Quantisation) -> Any:
    """torchao's configuration of a scheme for one kind of layer.

    By default it would turn on coordinate-descent tuning for the whole process: compilation takes 5 to 10 times as long
    for 2 % of a step (ostris/ai-toolkit #951).
    """
    from torchao import quantization as ao

    match scheme:
        case "int8_weight_only":
            return ao.Int8WeightOnlyConfig(set_inductor_config=False)
        case "int8_dynamic":
            return ao.Int8DynamicActivationInt8WeightConfig(set_inductor_config=False)
        case "fp8_dynamic":
            return ao.Float8DynamicActivationFloat8WeightConfig(granularity=ao.PerRow(), set_inductor_config=False)
        case "fp8_tensor":
            return ao.Float8DynamicActivationFloat8WeightConfig(granularity=ao.PerTensor(), set_inductor_config=False)
        case "none":
            raise ValueError("`none` has no configuration")


def grouped_config() -> Any:
    """int8 weights alone, for layers of compiled blocks."""
    from torchao import quantization as ao

    return ao.Int8WeightOnlyConfig(granularity=ao.PerGroup(GROUP), set_inductor_config=False)


def config_of_layer(name: str, scheme: Quantisation) -> Any:
    """What a Linear layer of that name in a compiled transformer is quantised with, where its blocks have `scheme`."""
    configs = _configs_of_layers(scheme)
    return next(config for pattern, config in configs.items() if re.fullmatch(pattern[len("re:") :], name))


def _configs(schemes: dict[str, Quantisation], *, is_compiled: bool) -> dict[str, Any]:
    """diffusers' or transformers' configuration of each component that is quantised."""
    from diffusers import TorchAoConfig as OfDiffusers
    from transformers import TorchAoConfig as OfTransformers

    return {
        component: OfDiffusers(_transformer_config(scheme, is_compiled=is_compiled))
        if component == "transformer"
        else OfTransformers(torchao_config(scheme))
        for component, scheme in schemes.items()
        if scheme != "none"
    }


def _pipeline_config(configs: dict[str, Any]) -> Any:
    from diffusers import PipelineQuantizationConfig

    return PipelineQuantizationConfig(quant_mapping=configs)


def _transformer_config(scheme: Quantisation, *, is_compiled: bool) -> Any:
    """The scheme for the blocks; layers that meet single rows keep their activations at full precision."""
    if not is_compiled:
        return torchao_config(scheme)
    from torchao.quantization import FqnToConfig

    return FqnToConfig(_configs_of_layers(scheme))


def _configs_of_layers(scheme: Quantisation) -> dict[str, Any]:
    """By pattern of a layer's name; the first that fits counts. Edges are not compiled, and of any width."""
    return {
        SINGLE_ROW_LAYERS: grouped_config(),
        EDGE_LAYERS: torchao_config("int8_weight_only"),
        "re:.*": grouped_config() if scheme == "int8_weight_only" else torchao_config(scheme),
    }


def _scheme_of_weight(weight: Any) -> Quantisation:
    kind = type(weight).__name__
    if kind.startswith("Float8"):
        return "fp8_tensor" if weight.scale.numel() == 1 else "fp8_dynamic"
    if kind.startswith("Int8"):
        return "int8_weight_only" if weight.act_quant_kwargs is None else "int8_dynamic"
    return "none"
