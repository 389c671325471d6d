"""What LoRAManager asks of its two ways to hold LoRAs: beside the base layers (adapters.py), or in a slot (slot.py)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from flux_engine.models.lora.format import PreparedLora

NO_DORA: Final = "the LoRA is a DoRA, which cannot be applied to"
AS_LORA: Final = "have it exported as a LoRA"


class Pipeline(Protocol):
    """What is needed of a diffusers FLUX pipeline: its transformer takes PEFT adapters."""

    transformer: Any


@dataclass(frozen=True, slots=True)
class ScaledLora:
    """A LoRA and how strongly it acts; negative scales turn it around, 0 is none."""

    lora: PreparedLora
    scale: float


class Holder(Protocol):
    """Holds a transformer to the LoRAs that it was asked for last. After an exception its state is unknown, until
    `clear` or `recover`."""

    def clear(self, transformer: Any) -> None:
        """Take everything out: nothing is known of what is in."""

    def recover(self, transformer: Any) -> None:
        """A change was interrupted: from here on `hold` may be called again."""

    def reserve(self, pipeline: Pipeline, transformer: Any) -> None:
        """Make what a transformer needs before it is compiled."""

    def hold(self, pipeline: Pipeline, transformer: Any, wanted: Sequence[ScaledLora]) -> None:
        """Make `wanted`, and nothing else, act. Raises LoraInvalid."""

    def variants(self, transformer: Any) -> Iterator[None]:
        """Put the transformer into each state that a job may find it in; ends in the state without a LoRA."""
