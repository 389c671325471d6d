"""The figures that a plan needs, from the shapes of a model's own tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from flux_engine.models.single_file.model_file import ModelFile
from flux_engine.models.spec import Component, TransformerShape

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


def shape_of(file: ModelFile, kind: TransformerShape) -> TransformerShape:
    """The work of a step of the file's transformer; how its blocks keep values is that of its kind."""
    shapes = {name: shape for name, shape in file.shapes("transformer").items() if len(shape) == 2}
    config = file.config
    return replace(
        kind,
        width=config["num_attention_heads"] * config["attention_head_dim"],
        blocks=config["num_layers"] + config["num_single_layers"],
        token_weights=float(
            sum(math.prod(shape) for name, shape in shapes.items() if "blocks." in name and not FOREIGN.search(name))
        ),
        linear_sides=sum(sum(shape) for shape in shapes.values()),
    )


def _is_linear(component: str, tensor: str) -> bool:
    """A matrix of the transformer is a Linear layer's; elsewhere it may be a vocabulary."""
    return component == "transformer" or (tensor.endswith(".weight") and TABLES.search(tensor) is None)
