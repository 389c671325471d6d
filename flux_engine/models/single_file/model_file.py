"""ModelFile: a file that holds a FLUX transformer, and maybe text encoders and an autoencoder, as its header has it.

    file = read_model_file(path, name="mine.safetensors")
    file.family, file.config["guidance_embeds"]      # FLUX.1, True
    file.parts["transformer"]["proj_out.weight"]     # which tensor of the file, and which rows of it

Nothing but the header is read. What is no FLUX model is refused by name: see kinds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from flux_engine.errors import ModelUnavailable
from flux_engine.inputs.safetensors_header import shown
from flux_engine.models.single_file.header import FileHeader, read_file_header
from flux_engine.models.single_file.kinds import other_file, packed_as
from flux_engine.models.single_file.names import Family, Part, Transformer, find_transformer
from flux_engine.models.single_file.other_names import find_encoders, find_vae

PLAIN: Final = ("F64", "F32", "F16", "BF16", "I64")  # the last for a counter of FLUX.2's autoencoder
NARROW: Final = ("F8_E4M3", "F8_E5M2")  # of safetensors; with or without a scale beside them
PACKED_IN_GGUF: Final = (
    *("Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0", "Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K", "IQ4_NL", "IQ4_XS"),
)
READABLE: Final = {"safetensors": (*PLAIN, *NARROW), "gguf": (*PLAIN, *PACKED_IN_GGUF)}
BLOCK: Final = re.compile(r"((?:single_)?transformer_blocks)\.(\d{1,3})\.(.+)")
CONTROL_CHANNELS: Final = 2  # FLUX.1 Canny and Depth take a picture's latents beside the noise
INPUT: Final = "x_embedder.weight"
NAMES_OF_NOTES: Final = ("modelspec.title", "modelspec.architecture", "general.name")  # what a file calls itself


@dataclass(frozen=True, eq=False)
class ModelFile:
    """A model's file: what its header says, and by component what it holds for diffusers and transformers.

    `config` are the fields of the transformer's configuration that its tensors determine.
    """

    path: Path
    name: str
    header: FileHeader
    family: Family
    parts: Mapping[str, Part]
    config: Mapping[str, Any]

    @cached_property
    def calls_itself(self) -> str:
        """Its own names in lower case, where tensors cannot tell one model from another."""
        notes = (self.header.metadata.get(note, "") for note in NAMES_OF_NOTES)
        return " ".join((self.path.name, self.name, *notes)).lower()

    @cached_property
    def types(self) -> frozenset[str]:
        """The types of the transformer's tensors."""
        tensors = self.header.tensors
        return frozenset(tensors[origin.name].dtype for origin in self.parts["transformer"].values())

    def shapes(self, component: str) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor of `component`, by diffusers' or transformers' name."""
        return {name: origin.shape(self.header.tensors) for name, origin in self.parts[component].items()}


def read_model_file(path: Path, *, name: str) -> ModelFile:
    """What the file at `path`, called `name` in messages, holds.

    Raises ModelUnavailable, whose message says what it is where it is no model of FLUX.
    """
    header = read_file_header(path, name=f"`{name}`")
    names = list(header.tensors)
    if (packed := packed_as(names)) is not None:
        raise ModelUnavailable(f"`{name}` {packed.text}")
    transformer = find_transformer(header.tensors)
    if transformer is None:
        raise ModelUnavailable(f"`{name}` {other_file(names, header.metadata).text}")
    encoders, vae = find_encoders(header.tensors, transformer.family), find_vae(header.tensors)
    parts = {"transformer": transformer.part, **encoders, **({"vae": vae} if vae else {})}
    _check_types(name, header, parts)
    _check_blocks(name, header, transformer)
    return ModelFile(path, name, header, transformer.family, parts, _config(name, header, transformer))


def _check_types(name: str, header: FileHeader, parts: Mapping[str, Part]) -> None:
    for part in parts.values():
        for origin in part.values():
            kind = header.tensors[origin.name].dtype
            if kind not in READABLE[header.format]:
                raise ModelUnavailable(
                    f"`{name}` holds `{shown(origin.name)}` as {kind}, which is not read here; name a file in BF16, in "
                    "FP8, or in a usual type of GGUF (Q4_K to Q8_0)"
                )


def _check_blocks(name: str, header: FileHeader, transformer: Transformer) -> None:
    """Every block has the tensors and shapes of the first of its kind."""
    blocks: dict[str, dict[int, dict[str, tuple[int, ...]]]] = {}
    for ours, origin in transformer.part.items():
        if (match := BLOCK.fullmatch(ours)) is not None:
            block = blocks.setdefault(match[1], {}).setdefault(int(match[2]), {})
            block[match[3]] = origin.shape(header.tensors)
    lacking = list(transformer.lacking)
    for kind, found in blocks.items():
        for number in range(max(found) + 1):
            block, first = found.get(number, {}), found.get(0, {})
            lacking += [f"{kind}.{number}.{inner}" for inner in first.keys() - block.keys()]
            odd = next((inner for inner in block if block[inner] != first.get(inner, block[inner])), None)
            if odd is not None:
                raise _impossible(name, f"{kind}.{number}.{odd}")
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise ModelUnavailable(f"`{name}` lacks `{shown(min(lacking))}`{more} of its transformer; fetch it again")


def _config(name: str, header: FileHeader, transformer: Transformer) -> dict[str, Any]:
    """Raises ModelUnavailable for shapes that no FLUX has, and for models that take a control picture."""
    part, tensors = transformer.part, header.tensors

    def side(of: str, axis: int) -> int:
        shape = part[of].shape(tensors) if of in part else ()
        if len(shape) <= axis or shape[axis] < 1:
            raise _impossible(name, of)
        return shape[axis]

    width, head = side(INPUT, 0), side("transformer_blocks.0.attn.norm_q.weight", 0)
    in_channels, out_channels = side(INPUT, 1), side("proj_out.weight", 0)
    if width % head:
        raise _impossible(name, INPUT)
    if transformer.family == "FLUX.1" and in_channels == CONTROL_CHANNELS * out_channels:
        raise ModelUnavailable(
            f"`{name}` is a control model (FLUX.1 Canny or Depth); name FLUX.1-dev and send `control` with the job"
        )
    config = {
        "in_channels": in_channels,
        "out_channels": out_channels if out_channels != in_channels else None,
        "num_layers": _count(part, "transformer_blocks"),
        "num_single_layers": _count(part, "single_transformer_blocks"),
        "attention_head_dim": head,
        "num_attention_heads": width // head,
        "joint_attention_dim": side("context_embedder.weight", 1),
        "guidance_embeds": any("guidance_embedder" in ours for ours in part),
    }
    if transformer.family == "FLUX.1":
        return config | {"pooled_projection_dim": side("time_text_embed.text_embedder.linear_1.weight", 1)}
    return config | {
        "timestep_guidance_channels": side("time_guidance_embed.timestep_embedder.linear_1.weight", 1),
        "mlp_ratio": side("transformer_blocks.0.ff.linear_out.weight", 1) / width,
    }


def _count(part: Part, blocks: str) -> int:
    return len({match[2] for ours in part if (match := BLOCK.fullmatch(ours)) is not None and match[1] == blocks})


def _impossible(name: str, tensor: str) -> ModelUnavailable:
    return ModelUnavailable(f"`{name}` gives `{shown(tensor)}` a shape that no FLUX has; fetch it again")
