"""How strongly a LoRA acts: alpha / rank, where the alpha stands in the file's notes.

Most trainers write an alpha tensor beside each layer's matrices, and then that counts. diffusers and PEFT write it
into notes: `lora_adapter_metadata` of a file, `adapter_config.json` beside it, or a plain `lora_alpha`.
`ss_network_alpha` is none of them: kohya's converters multiply it into the matrices and leave the note as it was.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from flux_engine.errors import LoraInvalid
from flux_engine.inputs.safetensors_header import shown
from flux_engine.models.lora.names import flat

JSON_NOTES: Final = ("lora_adapter_metadata", "adapter_config")  # objects with PEFT's fields; the first that is there
COMPONENTS: Final = ("transformer.", "unet.", "")  # what diffusers puts before PEFT's fields
ALPHA_NOTES: Final = ("lora_alpha", "network_alpha", "alpha")  # plain ones
MAX_ALPHA: Final = 1e9
CHANGES_THE_BASE: Final = ("pissa", "olora", "corda", "loftq")  # ways of PEFT to begin that leave other base weights


@dataclass(frozen=True, slots=True)
class NotedStrength:
    """The alphas in a file's notes: one for all layers, or by the end of a layer's name."""

    default: float | None = None
    by_layer: Mapping[str, float] = field(default_factory=dict)
    is_rank_stabilised: bool = False
    uses_dora: bool = False

    @property
    def is_given(self) -> bool:
        return self.default is not None or bool(self.by_layer)

    def factor(self, layer: str, rank: int) -> float:
        """What up @ down of `layer` is multiplied by; 1 where no alpha is noted, as if it were the rank."""
        name = flat(layer)
        alpha = next(
            (alpha for end, alpha in self.by_layer.items() if name == end or name.endswith(f"_{end}")), self.default
        )
        if not alpha:  # trainers read an alpha of 0 as the rank
            return 1.0
        return alpha / (math.sqrt(rank) if self.is_rank_stabilised else rank)


def noted_strength(metadata: Mapping[str, str]) -> NotedStrength:
    """The strength that a file's notes give. Raises LoraInvalid where a note of PEFT's is no note of PEFT's."""
    for note in JSON_NOTES:
        if metadata.get(note, "").strip():
            fields = _fields(note, metadata[note])
            if any(name in fields for name in ("lora_alpha", "alpha_pattern", "use_dora")):
                return _of_peft(fields)
    plain = {name.removeprefix(component): value for component in COMPONENTS for name, value in metadata.items()}
    return NotedStrength(default=next(_plain_alphas(plain), None), is_rank_stabilised=_is_true(plain.get("use_rslora")))


def _fields(note: str, text: str) -> dict[str, object]:
    """PEFT's fields in `text`, without the component's name that diffusers puts before them."""
    try:
        noted = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LoraInvalid(f"the LoRA's `{note}` is not valid JSON; export the file again") from error
    if not isinstance(noted, dict):
        raise LoraInvalid(f"the LoRA's `{note}` is not a JSON object; export the file again")
    for component in COMPONENTS:
        inner = noted.get(component.rstrip("."))
        if isinstance(inner, dict):
            return inner
        fields = {name.removeprefix(component): value for name, value in noted.items() if name.startswith(component)}
        if "lora_alpha" in fields or "r" in fields:
            return fields
    return noted


def _of_peft(fields: Mapping[str, object]) -> NotedStrength:
    patterns = fields.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise _out_of_range()
    begun = fields.get("init_lora_weights")
    if isinstance(begun, str) and begun.lower().startswith(CHANGES_THE_BASE):
        raise LoraInvalid(
            f"the LoRA was begun as {shown(begun)}, which changes the base model's weights as well; save it with "
            "PEFT's `path_initial_model_for_weight_conversion`, which makes a plain LoRA of it"
        )
    alpha = fields.get("lora_alpha")
    return NotedStrength(
        default=None if alpha is None else _alpha(alpha),
        by_layer={_layer_end(str(name)): _alpha(value) for name, value in patterns.items()},
        is_rank_stabilised=_is_true(fields.get("use_rslora")),
        uses_dora=_is_true(fields.get("use_dora")),
    )


def _layer_end(pattern: str) -> str:
    """The name that PEFT's pattern means. It is a regular expression there, of which only plain names are read."""
    name = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")
    if re.search(r"[^A-Za-z0-9_.-]", name):
        raise LoraInvalid("the LoRA's `alpha_pattern` holds more than names of layers; export it with alpha tensors")
    return flat(name)


def _alpha(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < MAX_ALPHA:
        raise _out_of_range()
    return float(value)


def _out_of_range() -> LoraInvalid:
    return LoraInvalid("the alpha in the LoRA's notes is no number, or out of range; export the file again")


def _plain_alphas(notes: Mapping[str, str]) -> Iterator[float]:
    """The alphas among plain notes that are numbers: anybody may have written them."""
    for name in ALPHA_NOTES:
        try:
            alpha = float(notes.get(name, ""))
        except ValueError:
            continue
        if abs(alpha) < MAX_ALPHA:
            yield alpha


def _is_true(value: object) -> bool:
    return value is True or (isinstance(value, str) and value.strip().lower() == "true")
