"""The tables of docs/models.md, from those that the worker reads models' files by."""

from __future__ import annotations

from collections.abc import Iterable

from flux_engine.models.single_file.header import CONVERT, OTHERS, PYTORCH
from flux_engine.models.single_file.kinds import OTHERS as OTHER_MODELS
from flux_engine.models.single_file.kinds import PACKED, UNKNOWN
from flux_engine.models.single_file.model_file import NARROW, PACKED_IN_GGUF, PLAIN

Table = tuple[tuple[str, ...], Iterable[tuple[str, ...]]]


def types() -> Table:
    """The types of numbers that are read."""
    return ("format", "plain", "widened"), [
        ("safetensors", _listed(PLAIN), _listed(NARROW)),
        ("GGUF", _listed(PLAIN), _listed(PACKED_IN_GGUF)),
    ]


def refused() -> Table:
    """What else a file may be."""
    kinds = [(kind.what, kind.instead) for kind in (*PACKED, *OTHER_MODELS, UNKNOWN)]
    files = dict.fromkeys((f"is {what}", advice) for _, _, what, advice in OTHERS)
    return ("the file", "instead"), [*kinds, *files, (f"is {PYTORCH}", CONVERT)]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
