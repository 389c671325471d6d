"""A tensor's name taken apart: the layer that it changes, and its role in that change.

`ROLES` lists what the trainers call the two matrices, the alpha and the magnitude; `PREFIXES` what may stand before a
layer's name; `WRAPPERS` what compilers, distributed training and PEFT put around a module. Any mixture is read, so a
new trainer that mixes known words needs no code.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

from flux_engine.models.lora.names import LayerNames, Target, flat

Role = Literal["down", "up", "alpha", "magnitude", "bias", "rank"]

ROLES: Final[dict[Role, tuple[str, ...]]] = {
    "down": ("lora_A", "lora_down", "lora.down", "lora_linear_layer.down", "down", "lora_a"),
    "up": ("lora_B", "lora_up", "lora.up", "lora_linear_layer.up", "up", "lora_b"),
    "alpha": ("alpha", "lora_alpha", "network_alpha"),
    "magnitude": ("dora_scale", "lora_magnitude_vector", "magnitude"),
    "rank": ("rank", "lora_rank"),
}
TRANSPOSED: Final = ("lora_a", "lora_b")  # how MLX names its transposed matrices
PREFIXES: Final = (  # stripped one after the other, as often as they come
    *("base_model.model", "base_model", "model.diffusion_model", "diffusion_model", "transformer", "unet", "model"),
    *("pipe.dit", "pipe.transformer", "pipe", "dit", "denoiser", "net", "flux"),
    *("lora_unet", "lora_transformer", "lora_dit", "lora_flux", "lycoris", "lora"),
)
WRAPPERS: Final = (  # dropped wherever they stand
    *("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module", "module"),
    *("base_layer", "original_module"),
)
OF_BLOCKS: Final = ("single", "double", "transformer", "blocks", "block", "layers", "layer")  # no word before a name
SEPARATOR: Final = "$$"  # stands for a dot in ai-toolkit's module names

_WORDS: Final = {word: role for role, words in ROLES.items() for word in words}
_KEY: Final = re.compile(
    r"(?P<layer>.*?)(?:^|\.)(?P<word>"
    + "|".join(re.escape(word) for word in sorted(_WORDS, key=len, reverse=True))
    + r")(?:\.(?P<adapter>(?!(?:weight|bias)$)[^.]+))?(?:\.(?P<kind>weight|bias))?"
)
_WRAPPERS: Final = frozenset(WRAPPERS)
_FLAT_WRAPPERS: Final = re.compile("|".join(f"_?{wrapper}_" for wrapper in WRAPPERS if wrapper.startswith("_")))
_FLAT_PREFIXES: Final = tuple(f"{flat(prefix)}_" for prefix in PREFIXES)


@dataclass(frozen=True, slots=True)
class Key:
    """What a tensor's name says: the layer as the trainer calls it, the role, and the part of a fused layer.

    `is_transposed`: the matrix is written for multiplication from the other side.
    """

    layer: str
    role: Role
    number: int | None = None
    is_transposed: bool = False


def parse_key(name: str) -> Key | None:
    """`name` taken apart; None where it is no part of a LoRA."""
    match = _KEY.fullmatch(name.replace(SEPARATOR, "."))
    if match is None:
        return None
    role: Role = "bias" if match["kind"] == "bias" else _WORDS[match["word"]]
    layer = ".".join(part for part in match["layer"].split(".") if part not in _WRAPPERS)
    adapter = match["adapter"] or ""
    number = int(adapter) if re.fullmatch(r"[0-9]{1,2}", adapter) else None
    return Key(layer, role, number, is_transposed=match["word"] in TRANSPOSED)


def find_targets(key: Key, names: LayerNames) -> list[Target]:
    """What `key`'s layer may stand for in the model: the part of its number where there is one, and the whole."""
    for name in _without_prefixes(key.layer):
        numbered = [] if key.number is None else [names.targets.get(f"{name}_{key.number}")]
        found = [target for target in (*numbered, names.targets.get(name)) if target is not None]
        if found:
            return found
    return []


def all_targets(keys: Collection[Key], names: LayerNames) -> dict[Key, list[Target]]:
    """What each of a file's keys may stand for, nothing where that is unknown.

    Words that stand before all of them alike, such as a wrapper's `ema`, are no part of the names, if without them
    every one is known.
    """
    found = {key: find_targets(key, names) for key in keys}
    if all(found.values()):
        return found
    for start in _shared_words([flat(key.layer) for key in keys]):
        inner = {key: find_targets(replace(key, layer=flat(key.layer).removeprefix(start)), names) for key in keys}
        if all(inner.values()):
            return inner
    return found


def _shared_words(layers: list[str]) -> Iterator[str]:
    """The first word that all of `layers` begin with, then the first two and so on, up to the name of a block."""
    start = ""
    for word, *others in zip(*(layer.split("_") for layer in layers), strict=False):
        if set(others) - {word} or word.isdigit() or word in OF_BLOCKS:
            return
        start += f"{word}_"
        yield start


def _without_prefixes(layer: str) -> Iterator[str]:
    """`layer` with underscores, first as it is, then with one prefix less each time."""
    name = _FLAT_WRAPPERS.sub("_", layer.replace(".", "_")).strip("_")
    while True:
        yield name
        prefix = next((prefix for prefix in _FLAT_PREFIXES if name.startswith(prefix)), None)
        if prefix is None:
            return
        name = name.removeprefix(prefix).strip("_")
