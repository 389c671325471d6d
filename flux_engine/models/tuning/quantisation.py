"""Quantised weights through torchao: the arguments a pipeline is loaded with, and checkpoints made once.

Quantisation happens while the weights are loaded, so that a model that fits only quantised never stands in memory
whole. A scheme that this machine cannot run is replaced by the next of its chain, and the fallback is noted.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from flux_engine.models.planning.plan import DYNAMIC, Plan
from flux_engine.models.tuning.compilation import compile_failure
from flux_engine.models.tuning.fallback import Fallback, FallbackNoted
from flux_engine.models.tuning.versions import version_of
from flux_engine.settings import Quantisation

NEXT: Final[dict[Quantisation, Quantisation]] = {
    "fp8_dynamic": "int8_dynamic",
    "int8_dynamic": "int8_weight_only",
    "int8_weight_only": "none",
}
# These layers meet one row a step (modulation) or lie at the edges: integer kernels want 17 rows and more, and
# nothing is gained there by faster arithmetic.
SINGLE_ROW_LAYERS: Final = r"re:.*(norm\w*|modulation\w*)\.(.*\.)?linear.*"
EDGE_LAYERS: Final = r"re:(.*embed.*|proj_out.*)"
KEY_PACKAGES: Final = ("torch", "torchao", "diffusers", "transformers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loading:
    """How to load a pipeline: keyword arguments of `from_pretrained`, and what each part will be quantised to."""

    arguments: dict[str, Any]
    quantisations: dict[str, Quantisation]
    fallbacks: tuple[Fallback, ...]

    def of_quantised(self) -> dict[str, Any]:
        """The arguments for a checkpoint that is quantised already: its configuration says how."""
        return {name: value for name, value in self.arguments.items() if name != "quantization_config"}


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
    if any(scheme != "none" for scheme in schemes.values()):
        arguments["quantization_config"] = _pipeline_config(schemes)
    if device == "cuda" and plan.offload == "none":
        arguments["device_map"] = "cuda"  # straight to the device: 1.1 s in place of 4.9 s
    if plan.offload == "balanced":
        arguments["device_map"] = "balanced"
    return Loading(arguments=arguments, quantisations=schemes, fallbacks=tuple(fallbacks))


def quantisation_of(module: Any) -> Quantisation:
    """How the Linear layers of a loaded component are quantised; the scheme that most of its weights have."""
    import torch

    weights: dict[Quantisation, int] = {}
    for layer in module.modules():
        if isinstance(layer, torch.nn.Linear):
            scheme = _scheme_of_weight(layer.weight)
            weights[scheme] = weights.get(scheme, 0) + layer.weight.numel()
    return max(weights, key=lambda scheme: weights[scheme], default="none")


def checkpoint_folder(
    volume: Path, *, model_id: str, revision: str, dtype: str, quantisations: dict[str, Quantisation]
) -> Path:
    """Where the quantised checkpoint of a model belongs: another revision, dtype, scheme or library is
    another folder."""
    versions = {name: version_of(name) for name in KEY_PACKAGES}
    identity = json.dumps([model_id, revision, dtype, sorted(quantisations.items()), versions], sort_keys=True)
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return volume / "quantised" / f"{model_id.rpartition('/')[2]}-{digest}"


def save_checkpoint(pipeline: Any, folder: Path) -> None:
    """Write a pipeline so that `folder` is either whole or not there; a folder made meanwhile by another is kept."""
    if folder.exists():
        return
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.partial")  # Python is process 1 in each container
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _on_the_host(pipeline):
            pipeline.save_pretrained(partial, safe_serialization=True)
        partial.rename(folder)
    except OSError:
        if not folder.exists():
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _on_the_host(pipeline: Any) -> Iterator[None]:
    """Within, the components of `pipeline` that stand on one GPU stand in host memory.

    Saving makes a copy of all weights of a component where they are, beside which a GPU that was filled by quantised
    weights has no room.
    """
    from torch import nn

    came_from: list[tuple[Any, Any]] = []
    try:
        for part in pipeline.components.values():
            devices = {weight.device for weight in part.parameters()} if isinstance(part, nn.Module) else set()
            if len(devices) == 1 and (device := devices.pop()).type == "cuda":
                came_from.append((part, device))
                nn.Module.to(part, "cpu")  # past the libraries' own, which refuse some of what is quantised
        yield
    finally:
        for part, device in came_from:
            nn.Module.to(part, device)


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
    """torchao's configuration of a scheme for one kind of layer."""
    from torchao import quantization as ao

    match scheme:
        case "int8_weight_only":
            return ao.Int8WeightOnlyConfig()
        case "int8_dynamic":
            return ao.Int8DynamicActivationInt8WeightConfig()
        case "fp8_dynamic":
            return ao.Float8DynamicActivationFloat8WeightConfig(granularity=ao.PerRow())
        case "none":
            raise ValueError("`none` has no configuration")


def _pipeline_config(schemes: dict[str, Quantisation]) -> Any:
    from diffusers import PipelineQuantizationConfig
    from diffusers import TorchAoConfig as OfDiffusers
    from transformers import TorchAoConfig as OfTransformers

    mapping: dict[str, Any] = {}
    for component, scheme in schemes.items():
        if scheme == "none":
            continue
        mapping[component] = (
            OfDiffusers(_transformer_config(scheme))
            if component == "transformer"
            else OfTransformers(torchao_config(scheme))
        )
    return PipelineQuantizationConfig(quant_mapping=mapping)


def _transformer_config(scheme: Quantisation) -> Any:
    """The scheme for the blocks; layers that meet single rows keep their activations at full precision."""
    if scheme not in DYNAMIC:
        return torchao_config(scheme)
    from torchao.quantization import FqnToConfig

    weight_only = torchao_config("int8_weight_only")
    return FqnToConfig({SINGLE_ROW_LAYERS: weight_only, EDGE_LAYERS: weight_only, "re:.*": torchao_config(scheme)})


def _scheme_of_weight(weight: Any) -> Quantisation:
    kind = type(weight).__name__
    if kind.startswith("Float8"):
        return "fp8_dynamic"
    if kind.startswith("Int8"):
        return "int8_weight_only" if weight.act_quant_kwargs is None else "int8_dynamic"
    return "none"
