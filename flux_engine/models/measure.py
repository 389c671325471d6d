"""The figures that a plan needs, from the shapes of a model's own tensors, in a folder or a file: headers alone."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from flux_engine.errors import ModelUnavailable
from flux_engine.inputs.safetensors_header import HeaderFault, read_header
from flux_engine.models.read_ahead import weight_files
from flux_engine.models.spec import Component, ModelSpec, TransformerShape

Shapes = Mapping[str, tuple[int, ...]]

TABLES: Final = re.compile(r"(^|\.)(shared|\w*embed\w*|embed_tokens|lm_head|relative_attention_bias)\.(weight|.*)$")
KEPT_IN_FLOAT32: Final = re.compile(r"DenseReluDense\.wo\.weight$")  # T5's, where the rest is float16
# Layers of the blocks that an image token does not meet: the text stream's, and modulation, which runs once a step.
FOREIGN: Final = re.compile(r"(^|\.)(add_\w+|to_add_out|ff_context|norm\w*)\.")


def component_of(name: str, shapes: Shapes) -> Component:
    """A component with tensors of these shapes."""
    counts = {tensor: math.prod(shape) for tensor, shape in shapes.items()}
    linear = [tensor for tensor, shape in shapes.items() if len(shape) == 2 and _is_linear(name, tensor)]
    return Component(
        name=name,
        parameters=sum(counts.values()),
        linear_parameters=sum(counts[tensor] for tensor in linear),
        largest_layer=max(counts.values(), default=0),
        float32_parameters=sum(count for tensor, count in counts.items() if KEPT_IN_FLOAT32.search(tensor)),
    )


def shape_of(tensors: Shapes, config: Mapping[str, Any], kind: TransformerShape) -> TransformerShape:
    """The work of a step of a transformer with these tensors; how its blocks keep values is that of its kind."""
    shapes = {name: shape for name, shape in tensors.items() if len(shape) == 2}
    return replace(
        kind,
        width=config["num_attention_heads"] * config["attention_head_dim"],
        blocks=config["num_layers"] + config["num_single_layers"],
        token_weights=float(
            sum(math.prod(shape) for name, shape in shapes.items() if "blocks." in name and not FOREIGN.search(name))
        ),
        linear_sides=sum(sum(shape) for shape in shapes.values()),
    )


def vae_channels_of(tensors: Shapes, kind: ModelSpec) -> int:
    """Channels of a decoder with these tensors, at full size."""
    return tensors.get("decoder.conv_norm_out.weight", (kind.vae_channels,))[0]


def folder_shapes(folder: Path, component: str) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of a folder's component. Raises ModelUnavailable where a header cannot be read."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in weight_files(folder, component).paths:
        try:
            with path.open("rb") as file:
                found = read_header(file, path.stat().st_size)
        except (OSError, HeaderFault) as error:
            raise ModelUnavailable(
                f"the base model on the volume has no readable {component}; fetch it again"
            ) from error
        shapes |= {name.removeprefix("text_model."): entry.shape for name, entry in found.tensors.items()}
    return shapes


def as_in(folder: Path, kind: ModelSpec) -> ModelSpec:
    """`kind` with the figures of the folder's own tensors: a fine-tune may have fewer blocks, or narrower ones. Where
    the folder does not say, `kind` as it is."""
    try:
        shapes = {component.name: folder_shapes(folder, component.name) for component in kind.components}
        config = json.loads((folder / "transformer" / "config.json").read_text())
        shape = shape_of(shapes[kind.transformer.name], config, kind.shape)
    except (OSError, ValueError, KeyError, TypeError, ModelUnavailable):
        return kind
    if not all(shapes.values()):
        return kind

    def measured(component: Component) -> Component:
        return component_of(component.name, shapes[component.name])

    return replace(
        kind,
        transformer=measured(kind.transformer),
        text_encoders=tuple(measured(encoder) for encoder in kind.text_encoders),
        vae=measured(kind.vae),
        vae_channels=vae_channels_of(shapes[kind.vae.name], kind),
        shape=shape,
    )


def _is_linear(component: str, tensor: str) -> bool:
    """A matrix of the transformer is a Linear layer's; elsewhere it may be a vocabulary."""
    return component == "transformer" or (tensor.endswith(".weight") and TABLES.search(tensor) is None)
