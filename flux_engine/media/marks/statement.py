"""What a file's marks say: how it came about, in the words of IPTC, and by which model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

SourceType = Literal["trainedAlgorithmicMedia", "compositeWithTrainedAlgorithmicMedia"]

VOCABULARY: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/"
TOOL: Final = "flux-engine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """The model behind a file, and whether a given picture is part of it."""

    model: str
    revision: str
    is_composite: bool

    @property
    def source_type(self) -> SourceType:
        return "compositeWithTrainedAlgorithmicMedia" if self.is_composite else "trainedAlgorithmicMedia"

    @property
    def source_uri(self) -> str:
        """IPTC's URI of `source_type`."""
        return VOCABULARY + self.source_type
