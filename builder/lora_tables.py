"""The tables of docs/loras.md, from those that the worker reads LoRAs by."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from flux_engine.inputs.lora_content import FILES, PYTORCH
from flux_engine.inputs.lora_kinds import KINDS, LEFT_OUT, ONLY_TEXT, TEXT_ENCODER, UNKNOWN
from flux_engine.models.lora.file import FLOATS, WIDENED
from flux_engine.models.lora.keys import PREFIXES, ROLES, WRAPPERS
from flux_engine.models.lora.names import BLOCKS, HALVES_SWAPPED, LAYERS
from flux_engine.models.lora.strength import ALPHA_NOTES, JSON_NOTES

Table = tuple[tuple[str, ...], Iterable[tuple[str, ...]]]
MATRICES: Final = {
    "down": "the matrix at the layer's input",
    "up": "the matrix at its output",
    "alpha": "alpha, of any number type and shape of one",
    "magnitude": "a DoRA's magnitudes",
    "rank": "the rank, which is not needed",
}


def words() -> Table:
    """What may stand around a layer's name."""
    rows = [(MATRICES[role], _listed(names)) for role, names in ROLES.items()]
    rows += [
        ("before the layer", _listed(PREFIXES)),
        ("around a module, anywhere", _listed(WRAPPERS)),
        ("alpha in the file's notes", _listed((*JSON_NOTES, *ALPHA_NOTES))),
        ("types of numbers", _listed((*FLOATS, *WIDENED))),
    ]
    return ("what", "words"), rows


def layers() -> Table:
    """The layers of diffusers and their other names."""
    named: dict[str, list[str]] = {}
    for ours, others, blocks in BLOCKS:
        for name, targets in blocks.items():
            for target in targets:
                named.setdefault(f"{ours}.N.{target}", []).append(f"{(*others, ours)[0]}.N.{name}")
    for name, targets in (*LAYERS.items(), *HALVES_SWAPPED.items()):
        for target in targets:
            named.setdefault(target, []).append(name)
    return ("layer", "also named"), ((f"`{layer}`", _listed(names)) for layer, names in named.items())


def refused() -> Table:
    """What else a file may be."""
    kinds = [(kind.what, kind.instead) for kind in (*KINDS, ONLY_TEXT, TEXT_ENCODER, UNKNOWN)]
    files = dict.fromkeys((f"is {what}", advice) for _, _, what, advice in FILES)
    what, _, advice = PYTORCH.text.partition("; ")
    return ("the file", "instead"), [*kinds, *files, (f"is {what}", advice)]


def left_out() -> Table:
    """Parts of a LoRA that are not applied."""
    return ("what", "its tensors' names"), ((what, f"`{pattern.pattern}`") for pattern, what in LEFT_OUT)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
