"""What a file's marks say: how it came about, in the words of IPTC, and by which model."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

SourceType = Literal["trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia"]

VOCABULARY: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/"
TOOL: Final = "flux-engine"


@dataclass(frozen=True, kw_only=True)
class Ingredient:
    """A picture that a job brought: the field that named it, and its file as it came."""

    field: str
    data: bytes

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """The model behind a file, its prompt, and whether a given picture is part of it. Such pictures are here only
    where their own provenance is to be kept."""

    model: str
    revision: str
    is_composite: bool
    prompt: str = ""
    ingredients: tuple[Ingredient, ...] = ()

    @property
    def source_type(self) -> SourceType:
        return "compositeWithTrainedAlgorithmicMedia" if self.is_composite else "trainedAlgorithmicMedia"

    @property
    def source_uri(self) -> str:
        """IPTC's URI of `source_type`."""
        return VOCABULARY + self.source_type
