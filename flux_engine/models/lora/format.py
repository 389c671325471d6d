"""One canonical form for LoRAs of every trainer, checked against the layers of the model that is to take it.

diffusers and PEFT, kohya, XLabs, Black Forest Labs, fal, ai-toolkit and OneTrainer differ in two things only: what
they call a layer (`lora_names`) and what they call its two matrices (`KEY`). Both are recognised key by key, so a new
mixture of the two needs no code. diffusers' own converters are not used: they take 19 + 38 blocks of 3072 for granted,
and leave out in silence what they do not know. Here a key is applied, or has no effect, or the LoRA is refused.

Not applied, with a warning: parts for text encoders. Refused, with the reason: LoKr, LoHa, DoRA, OFT, Tucker cores,
full-weight differences, control LoRAs (they replace layers and need a control picture), other architectures.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from flux_engine.errors import LoraIncompatible, LoraInvalid
from flux_engine.models.lora.file import LoraFile, shown
from flux_engine.models.lora.names import LayerNames, Part, Shape

if TYPE_CHECKING:
    from torch import Tensor

MAX_RANK: Final = 256
MAX_FACTOR: Final = 10_000.0  # alpha / rank; trainers stay below 10
PREFIXES: Final = (
    *("base_model.model.", "model.diffusion_model.", "diffusion_model.", "transformer.", "unet."),
    *("lora_unet_", "lora_transformer_", "lycoris_"),
)
TEXT_ENCODERS: Final = ("lora_te", "text_encoder", "base_model.model.text_encoder", "text_model.", "te1.", "te2.")
KEY: Final = re.compile(
    r"(?P<layer>.+?)\.(?:"
    r"(?P<down>lora_A|lora_down|lora\.down|lora_linear_layer\.down|down)|"
    r"(?P<up>lora_B|lora_up|lora\.up|lora_linear_layer\.up|up)"
    r")(?:\.[A-Za-z0-9_-]+)?\.(?P<kind>weight|bias)"
)
NOT_A_LORA: Final = (
    (r"\.lokr_", "is a LoKr: its Kronecker factors are no LoRA; have the trainer or a converter write a LoRA"),
    (r"\.hada_", "is a LoHa, which is no LoRA; have the trainer or a converter write a LoRA"),
    (r"dora_scale|lora_magnitude_vector", "is a DoRA, whose magnitudes would be lost; have it exported as a LoRA"),
    (r"\.(oft_|boft_)", "is an OFT, which is no LoRA; have the trainer write a LoRA"),
    (r"\.lora_mid", "has Tucker cores; have the trainer write a plain LoRA"),
    (r"\.(diff|diff_b)$", "holds full-weight differences besides LoRA matrices; have it exported without them"),
)
ANOTHER_ARCHITECTURE: Final = (
    (r"query_norm\.scale|key_norm\.scale|norm_(added_)?[qk]\.", "is a control LoRA, which needs a control picture"),
    (r"(down|up|input|output)_blocks?[._]\d|mid(dle)?_block", "was made for Stable Diffusion 1.5, 2 or XL"),
    (r"joint_blocks", "was made for Stable Diffusion 3"),
)


@dataclass(frozen=True, slots=True)
class LoraLayer:
    """The change of one Linear layer: up @ down, with alpha / rank already in `up`.

    `down` is (rank, in_features), `up` (out_features, rank); both on the CPU, floats.
    """

    down: Tensor
    up: Tensor

    @property
    def rank(self) -> int:
        return int(self.down.shape[0])


@dataclass(frozen=True, slots=True)
class PreparedLora:
    """A LoRA that fits its model: the layers' names are those of the model's own modules."""

    content_hash: str
    layers: Mapping[str, LoraLayer]
    warnings: tuple[str, ...] = ()

    @property
    def rank(self) -> int:
        """The largest rank of all layers."""
        return max(layer.rank for layer in self.layers.values())

    @property
    def num_bytes(self) -> int:
        """Memory of the matrices; `down` counts once for each layer that shares it."""
        return sum(layer.down.nbytes + layer.up.nbytes for layer in self.layers.values())


def prepare_lora(file: LoraFile, names: LayerNames, *, content_hash: str) -> PreparedLora:
    """Bring `file` into canonical form for the model whose layers `names` holds.

    Raises LoraInvalid where it is no LoRA, LoraIncompatible where it is one for another model.
    """
    warnings: list[str] = []
    grouped = _grouped(_without_idle(file.tensors, warnings))
    alphas = _metadata_alphas(file.metadata)
    layers: dict[str, LoraLayer] = {}
    for name, matrices in grouped.items():
        parts = _parts_of(name, names)
        down, up = _matrices(name, matrices)
        up = _scaled(name, up, _factor(matrices.get("alpha"), alphas, name, rank=down.shape[0]))
        for part, rows in _split(name, up, down, parts, names.shapes):
            if part.layer in layers:
                raise LoraInvalid(
                    f"the LoRA changes the layer `{shown(name)}` twice, under two names; keep one of them"
                )
            layers[part.layer] = LoraLayer(down=down, up=rows)
    return PreparedLora(content_hash=content_hash, layers=layers, warnings=tuple(warnings))


def _without_idle(tensors: Mapping[str, Tensor], warnings: list[str]) -> dict[str, Tensor]:
    """The tensors that concern the transformer, after everything that cannot be applied is refused."""
    kept = {}
    for key, tensor in tensors.items():
        if key.startswith(TEXT_ENCODERS):
            continue
        reason = _first_match(NOT_A_LORA, key)
        if reason and not (".diff" in key and not bool(tensor.any())):
            raise LoraInvalid(f"the LoRA {reason}")
        reason = _first_match(ANOTHER_ARCHITECTURE, key)
        if reason:
            raise LoraIncompatible(f"the LoRA {reason}; this worker serves FLUX")
        if ".diff" not in key:
            kept[key] = tensor
    if not kept:
        raise LoraIncompatible("the LoRA changes nothing but text encoders; train it on the transformer")
    if any(k.startswith(TEXT_ENCODERS) and "up" in k and bool(t.any()) for k, t in tensors.items()):
        warnings.append("a LoRA's part for the text encoder was left out; only its transformer part is applied")
    return kept


def _first_match(table: Iterable[tuple[str, str]], key: str) -> str | None:
    return next((reason for pattern, reason in table if re.search(pattern, key)), None)


def _grouped(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """{layer: {"down", "up", "alpha"}} with the layer's name freed of its prefixes."""
    grouped: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.endswith(".alpha"):
            name, role = key.removesuffix(".alpha"), "alpha"
        elif (match := KEY.fullmatch(key)) is not None:
            name, role = match["layer"], "down" if match["down"] else "up"
            if match["kind"] == "bias":
                if bool(tensor.any()):
                    raise LoraInvalid(f"the LoRA has a bias for `{shown(name)}`; train it without biases")
                continue
        else:
            raise LoraInvalid(f"the file is no LoRA: `{shown(key)}` is no part of one")
        group = grouped.setdefault(_without_prefix(name), {})
        if role in group:
            raise LoraInvalid(f"the LoRA has two `{role}` matrices for `{shown(name)}`; keep one of them")
        group[role] = tensor
    return grouped


def _without_prefix(name: str) -> str:
    while (prefix := next((p for p in PREFIXES if name.startswith(p)), None)) is not None:
        name = name.removeprefix(prefix)
    return name


def _parts_of(name: str, names: LayerNames) -> tuple[Part, ...]:
    parts = names.parts.get(name)
    if parts is None:
        raise LoraIncompatible(
            f"the LoRA was made for another model: this one has no layer `{shown(name)}`; "
            "choose the `model` that it was trained on"
        )
    return parts


def _matrices(name: str, matrices: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    if "down" not in matrices or "up" not in matrices:
        raise LoraInvalid(f"the LoRA lacks one of the two matrices of `{shown(name)}`; export it again")
    down, up = (_as_matrix(name, matrices[role]) for role in ("down", "up"))
    if down.shape[0] != up.shape[1] or down.shape[0] == 0:
        raise LoraInvalid(f"the two matrices of `{shown(name)}` have ranks {down.shape[0]} and {up.shape[1]}")
    if down.shape[0] > MAX_RANK:
        raise LoraInvalid(f"the LoRA has rank {down.shape[0]}; up to {MAX_RANK} is taken: resize it to a lower rank")
    return down, up


def _as_matrix(name: str, tensor: Tensor) -> Tensor:
    """A 1x1 convolution is a matrix as well."""
    if tensor.ndim > 2 and all(side == 1 for side in tensor.shape[2:]):
        tensor = tensor.flatten(1)
    if tensor.ndim != 2:
        raise LoraInvalid(f"`{shown(name)}` of the LoRA has {tensor.ndim} dimensions; a matrix has 2")
    return tensor


def _factor(alpha: Tensor | None, alphas: _MetadataAlphas, name: str, *, rank: int) -> float:
    """What up @ down is multiplied by: alpha / rank, and 1 where the file names no alpha."""
    if alpha is not None:
        if alpha.numel() != 1:
            raise LoraInvalid(f"`{shown(name)}.alpha` of the LoRA is not a single number")
        return float(alpha) / rank
    return alphas.factor(name, rank)


def _scaled(name: str, up: Tensor, factor: float) -> Tensor:
    """`up` times `factor`, in 32 bits: in 16 bits alpha / rank takes small numbers below what they can hold."""
    if factor == 1.0:
        return up
    if not abs(factor) <= MAX_FACTOR:
        raise LoraInvalid(f"the alpha of `{shown(name)}` is out of range; export the LoRA again")
    return up.float() * factor


def _split(
    name: str, up: Tensor, down: Tensor, parts: tuple[Part, ...], shapes: Mapping[str, Shape]
) -> Iterable[tuple[Part, Tensor]]:
    """Each layer with its rows of `up`, once the widths are those of the model: nothing is padded or cut."""
    import torch

    wanted_in = shapes[parts[0].layer][1]
    wanted_out = sum(len(rows) for part in parts for rows in part.rows)
    given = (up.shape[0], down.shape[1])
    if given != (wanted_out, wanted_in):
        direction = "wide" if given[0] > wanted_out or given[1] > wanted_in else "narrow"
        raise LoraIncompatible(
            f"the LoRA is too {direction} for this model: `{shown(name)}` is {given[1]} -> {given[0]} there and "
            f"{wanted_in} -> {wanted_out} here; choose the `model` that it was trained on"
        )
    for part in parts:
        pieces = [up[rows.start : rows.stop] for rows in part.rows]
        yield part, pieces[0] if len(pieces) == 1 else torch.cat(pieces)


# ------------------------------------------------------------------------------------------ alphas beside the tensors


@dataclass(frozen=True, slots=True)
class _MetadataAlphas:
    """The alphas that diffusers writes into a file's notes in place of tensors."""

    default: float | None
    by_layer: Mapping[str, float]
    is_rank_stabilised: bool

    def factor(self, name: str, rank: int) -> float:
        alpha = self.by_layer.get(name, self.default)
        if alpha is None:
            return 1.0
        return alpha / (math.sqrt(rank) if self.is_rank_stabilised else rank)


def _metadata_alphas(metadata: Mapping[str, str]) -> _MetadataAlphas:
    try:
        notes = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except (ValueError, RecursionError) as error:
        raise LoraInvalid("the LoRA's `lora_adapter_metadata` is not valid JSON; export the file again") from error
    if not isinstance(notes, dict):
        raise LoraInvalid("the LoRA's `lora_adapter_metadata` is not a JSON object; export the file again")
    if notes.get("transformer.use_dora"):
        raise LoraInvalid("the LoRA is a DoRA, whose magnitudes would be lost; have it exported as a LoRA")
    alpha, patterns = notes.get("transformer.lora_alpha"), notes.get("transformer.alpha_pattern") or {}
    numbers = [*([] if alpha is None else [alpha]), *(patterns.values() if isinstance(patterns, dict) else [None])]
    if not all(isinstance(n, int | float) and abs(n) < 1e9 for n in numbers):
        raise LoraInvalid("the LoRA's alpha is out of range; export the file again")
    return _MetadataAlphas(
        default=alpha,
        by_layer={str(layer).removeprefix("^"): float(value) for layer, value in patterns.items()},
        is_rank_stabilised=bool(notes.get("transformer.use_rslora")),
    )
