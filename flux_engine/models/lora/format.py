"""One canonical form for LoRAs of every trainer, checked against the layers of the model that is to take it.

Trainers differ in what they call a layer (`names`), what they call its matrices and put around names (`keys`), where
they note how strongly the LoRA acts (`strength`), and which layers they fuse (`parts`). Each is recognised on its own,
tensor by tensor, so a new mixture needs no code. diffusers' converters are not used: they take 19 + 38 blocks of 3072
for granted and leave out in silence what they do not know. Here a tensor is applied, or it has no effect, or it is left
out with a warning (`LEFT_OUT`: text encoders), or the LoRA is refused by name (`KINDS`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from flux_engine.errors import LoraIncompatible, LoraInvalid
from flux_engine.inputs.lora_kinds import left_out, other_kind
from flux_engine.inputs.safetensors_header import shown
from flux_engine.models.lora.file import LoraFile
from flux_engine.models.lora.keys import Key, Role, all_targets, parse_key
from flux_engine.models.lora.names import LayerNames
from flux_engine.models.lora.parts import Change, LoraLayer, merged, split
from flux_engine.models.lora.strength import NotedStrength, noted_strength
from flux_engine.models.lora.trained_on import check_trained_on, family, trained_on

if TYPE_CHECKING:
    from torch import Tensor

MAX_FACTOR: Final = 10_000.0  # alpha / rank; trainers stay below 10
DIFFERENCE: Final = re.compile(r"\.(diff|diff_b|w_norm|b_norm)$")
NO_ALPHA: Final = (
    "a LoRA's file gives no alpha, so it acts as if its alpha were its rank; if it is too strong or too weak, "
    "change its `scale`"
)


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
        return sum(layer.num_bytes for layer in self.layers.values())

    @property
    def has_magnitudes(self) -> bool:
        """Whether it is a DoRA."""
        return any(layer.magnitude is not None for layer in self.layers.values())


@dataclass(slots=True)
class _Group:
    """The tensors of one name, as they are collected."""

    key: Key
    tensors: dict[Role, Tensor] = field(default_factory=dict)


def prepare_lora(file: LoraFile, names: LayerNames, *, content_hash: str) -> PreparedLora:
    """Bring `file` into canonical form for the model whose layers `names` holds.

    Raises LoraInvalid where it is no LoRA, LoraIncompatible where it is one for another model.
    """
    tensors = _without_idle(file.tensors)
    if (kind := other_kind([*tensors, *file.unreadable])) is not None:
        raise kind.error()
    warnings = _left_out_warnings(tensors)
    groups = _grouped({name: tensor for name, tensor in tensors.items() if left_out(name) is None}, file.unreadable)
    strength = _strength(file.metadata, groups, warnings)
    targets = all_targets([group.key for group in groups.values()], names)
    changes: dict[str, list[Change]] = {}
    for group in groups.values():
        name = _shown_layer(group.key)
        if not targets[group.key]:
            raise _unknown_layer(name, names, file.metadata)
        for layer, change in split(name, _matrices(name, group, strength), targets[group.key], names.shapes):
            changes.setdefault(layer, []).append(change)
    layers = {layer: merged(layer, found, names.shapes[layer]) for layer, found in changes.items()}
    check_trained_on(file.metadata, names)
    return PreparedLora(content_hash=content_hash, layers=layers, warnings=tuple(warnings))


# ---------------------------------------------------------------------------------------------- what is not applied


def _without_idle(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All but full-weight differences that are zero. Raises LoraInvalid where one is not."""
    kept = {}
    for name, tensor in tensors.items():
        if not DIFFERENCE.search(name) or left_out(name) is not None:
            kept[name] = tensor
        elif bool(tensor.any()):
            raise LoraInvalid(
                f"the LoRA holds full-weight differences besides its matrices (`{shown(name)}`); have it exported "
                "without them, or as a LoRA"
            )
    return kept


def _left_out_warnings(tensors: Mapping[str, Tensor]) -> list[str]:
    """One warning for each kind of part that is left out and would have acted."""
    kinds: dict[str, bool] = {}
    for name, tensor in tensors.items():
        what = left_out(name)
        if what is not None:
            key = parse_key(name)
            has_effect = (key is None or key.role == "up") and bool(tensor.any())
            kinds[what] = kinds.get(what, False) or has_effect
    return [
        f"a LoRA's {what} was left out; only its transformer part is applied" for what, acts in kinds.items() if acts
    ]


# ------------------------------------------------------------------------------------------------ one name's tensors


def _grouped(tensors: Mapping[str, Tensor], unreadable: Mapping[str, str]) -> dict[tuple[str, int | None], _Group]:
    """The tensors by layer and number, as the trainer names them."""
    for name, dtype in unreadable.items():
        if left_out(name) is None:
            raise LoraInvalid(f"`{shown(name)}` of the LoRA is of type {dtype}, which holds no plain numbers")
    groups: dict[tuple[str, int | None], _Group] = {}
    for name, tensor in tensors.items():
        key = parse_key(name)
        if key is None:
            raise LoraInvalid(
                f"the file is no LoRA, or more than one: `{shown(name)}` is no part of a LoRA; have it exported "
                "with LoRA matrices alone"
            )
        if key.role == "rank":
            continue
        if key.role == "bias":
            if bool(tensor.any()):
                raise LoraInvalid(f"the LoRA has a bias for `{_shown_layer(key)}`; train it without biases")
            continue
        group = groups.setdefault((key.layer, key.number), _Group(key))
        if key.role in group.tensors:
            raise LoraInvalid(f"the LoRA has two `{key.role}` matrices for `{_shown_layer(key)}`; keep one of them")
        group.tensors[key.role] = tensor.T if key.is_transposed and tensor.ndim == 2 else tensor
    _share_alphas(groups)
    acting = {place: group for place, group in groups.items() if set(group.tensors) != {"alpha"}}
    if not acting:
        raise LoraInvalid("the LoRA holds no matrices; send the file that the trainer wrote")
    return acting


def _share_alphas(groups: dict[tuple[str, int | None], _Group]) -> None:
    """An alpha without a number is that of all numbered matrices of its layer, and one without a layer is for all."""
    for (layer, number), group in list(groups.items()):
        if set(group.tensors) == {"alpha"} and number is None:
            of_layer = [other for (name, n), other in groups.items() if n is not None and name == layer]
            meant = of_layer or ([other for other in groups.values() if other is not group] if layer == "" else [])
            for other in meant:
                other.tensors.setdefault("alpha", group.tensors["alpha"])
            if meant:
                del groups[layer, number]


def _shown_layer(key: Key) -> str:
    return shown(key.layer if key.number is None else f"{key.layer}.{key.number}")


def _strength(
    metadata: Mapping[str, str], groups: Mapping[tuple[str, int | None], _Group], warnings: list[str]
) -> NotedStrength:
    has_alphas = any("alpha" in group.tensors for group in groups.values())
    strength = noted_strength(metadata)
    if strength.uses_dora and not any("magnitude" in group.tensors for group in groups.values()):
        raise LoraInvalid("the LoRA's notes call it a DoRA, but its magnitudes are missing; export it again")
    if not has_alphas and not strength.is_given:
        warnings.append(NO_ALPHA)
    return strength


def _matrices(name: str, group: _Group, strength: NotedStrength) -> LoraLayer:
    """The two matrices of one name, and its magnitude, with alpha / rank multiplied in."""
    missing = {"down", "up"} - set(group.tensors)
    if missing:
        raise LoraInvalid(f"the LoRA lacks one of the two matrices of `{name}`; export it again")
    down, up = (_as_matrix(name, group.tensors[role]) for role in ("down", "up"))
    if down.shape[0] != up.shape[1] or down.shape[0] == 0:
        raise LoraInvalid(f"the two matrices of `{name}` have ranks {down.shape[0]} and {up.shape[1]}")
    factor = _factor(name, group.tensors.get("alpha"), strength, rank=down.shape[0], layer=group.key.layer)
    return LoraLayer(down, _scaled(name, up, factor), _magnitude(name, group.tensors.get("magnitude"), up.shape[0]))


def _as_matrix(name: str, tensor: Tensor) -> Tensor:
    """A 1x1 convolution is a matrix as well."""
    if tensor.ndim > 2 and all(side == 1 for side in tensor.shape[2:]):
        tensor = tensor.flatten(1)
    if tensor.ndim != 2:
        raise LoraInvalid(f"`{name}` of the LoRA has {tensor.ndim} dimensions; a matrix has 2")
    return tensor


def _factor(name: str, alpha: Tensor | None, strength: NotedStrength, *, rank: int, layer: str) -> float:
    """What up @ down is multiplied by: alpha / rank. Trainers read an alpha of 0 as the rank."""
    if alpha is None:
        return strength.factor(layer, rank)
    if alpha.numel() != 1:
        raise LoraInvalid(f"`{name}.alpha` of the LoRA is not a single number")
    return (float(alpha) or rank) / rank


def _scaled(name: str, up: Tensor, factor: float) -> Tensor:
    """`up` times `factor`, in 32 bits: in 16 bits alpha / rank takes small numbers below what they can hold."""
    if factor == 1.0:
        return up
    if not abs(factor) <= MAX_FACTOR:
        raise LoraInvalid(f"the alpha of `{name}` is out of range; export the LoRA again")
    return up.float() * factor


def _magnitude(name: str, magnitude: Tensor | None, rows: int) -> Tensor | None:
    """A DoRA's magnitude, one number for each row of the weight."""
    if magnitude is None or (magnitude.numel() == magnitude.shape[:1].numel() == rows):
        return None if magnitude is None else magnitude.flatten()
    raise LoraInvalid(
        f"the LoRA is a DoRA with magnitudes for the inputs of `{name}`, which cannot be applied; have it trained or "
        "exported with magnitudes for outputs, or as a LoRA"
    )


def _unknown_layer(name: str, names: LayerNames, metadata: Mapping[str, str]) -> LoraIncompatible:
    theirs = trained_on(metadata)
    whose = f" ({theirs}, by its notes)" if theirs is not None and theirs != family(names) else ""
    return LoraIncompatible(
        f"the LoRA was made for another model{whose}: this one has no layer `{name}`; "
        "choose the `model` that it was trained on"
    )
