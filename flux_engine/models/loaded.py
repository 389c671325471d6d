"""LoadedModel: a pipeline that is ready to be called, with what holds its LoRAs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flux_engine.errors import InputFetchFailed, LoraIncompatible, LoraInvalid
from flux_engine.inputs.lora_volume import StoredLora
from flux_engine.job.fingerprint import ModelIdentity
from flux_engine.models.beside.upsampler import Upsampler
from flux_engine.models.loading import Tuned
from flux_engine.models.lora.format import PreparedLora
from flux_engine.models.lora.holder import ScaledLora
from flux_engine.models.lora.library import LoraLibrary
from flux_engine.models.lora.manager import LoRAManager
from flux_engine.models.planning.plan import Plan
from flux_engine.models.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A pipeline that is ready to be called, what it is made of, and the LoRAs that it holds."""

    spec: ModelSpec
    identity: ModelIdentity
    tuned: Tuned
    lora_library: LoraLibrary
    lora_manager: LoRAManager
    upsampler: Upsampler | None = None  # writes prompts out, where it is here
    phases_ms: Mapping[str, float] = field(
        default_factory=dict
    )  # phases of the cold start: imports, weights, apply, warm_up

    @property
    def pipeline(self) -> Any:
        return self.tuned.pipeline

    @property
    def device(self) -> str:
        """Where the pipeline computes, as torch names it."""
        return str(self.pipeline._execution_device)

    @property
    def plan(self) -> Plan:
        return self.tuned.applied.plan

    def apply_loras(self, loras: Iterable[tuple[StoredLora, float]]) -> list[str]:
        """Make these LoRAs, each at its scale, and no others act; returns warnings about those that do. One at scale 0
        does not: its job shares its result with jobs that name no LoRA.

        Raises LoraInvalid or LoraIncompatible with the `field` of the one at fault, or InputFetchFailed where a file
        was evicted while the job waited.
        """
        scaled = [ScaledLora(self._prepared(stored, index), scale) for index, (stored, scale) in enumerate(loras)]
        self.lora_manager.apply(self.pipeline, scaled)
        return [warning for item in scaled if item.scale for warning in item.lora.warnings]

    def _prepared(self, stored: StoredLora, index: int) -> PreparedLora:
        try:
            return self.lora_library.prepare(stored.path, content_hash=stored.sha256)
        except (LoraInvalid, LoraIncompatible) as error:
            raise type(error)(error.message, field=f"loras[{index}]") from error
        except FileNotFoundError as error:
            message = "a LoRA was evicted to make room for others while the job waited; send it again"
            raise InputFetchFailed(message, field="loras", retryable=True) from error
