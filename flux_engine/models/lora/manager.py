"""LoRAManager: which adapters are in the pipeline's transformer, and at what scale.

Two ways with one result. `adapters` keeps the adapters last used beside the base layers and switches between them.
`slot` is for a compiled transformer: one adapter of fixed rank around every Linear layer, made once, into whose memory
later LoRAs are copied.

Everything here runs on the one GPU thread. The state is unknown from the moment it begins to change until it has
changed: after an exception or a cancellation in between, the next `apply` takes everything out and starts anew.
Nothing is read, fetched or checked here: a PreparedLora fits its model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from flux_engine.errors import LoraInvalid
from flux_engine.models.lora.adapters import Adapters
from flux_engine.models.lora.holder import Holder, Pipeline, ScaledLora
from flux_engine.models.lora.slot import Slot
from flux_engine.models.planning.plan import SLOT_RANK, LoraMode
from flux_engine.units import GIB

MAX_TOTAL_RANK: Final = 512  # sum over the LoRAs of one job: 5.5 GB on FLUX.1 where every layer has one
MAX_RESIDENT_BYTES: Final = 2 * GIB


class LoRAManager:
    """Holds a transformer to the LoRAs of the job at hand.

    `max_resident_bytes` bounds, in `adapters` mode, the memory of adapters that stay beside those of the job;
    `slot_rank` is the least rank of the slot, which grows (and is compiled again) when a job's ranks add up to more, up
    to `slot_room_bytes`.
    """

    def __init__(
        self,
        *,
        mode: LoraMode = "adapters",
        slot_rank: int = SLOT_RANK,
        slot_room_bytes: int | None = None,
        max_resident_bytes: int = MAX_RESIDENT_BYTES,
    ) -> None:
        self._holder: Holder
        self._holder = Adapters(max_resident_bytes) if mode == "adapters" else Slot(slot_rank, slot_room_bytes)
        self._applied: tuple[tuple[str, float], ...] | None = ()  # None: unknown, a change was interrupted
        self._transformer: Any = None

    def apply(self, pipeline: Pipeline, loras: Sequence[ScaledLora] = ()) -> None:
        """Make `loras`, and nothing else, act on the pipeline's transformer; none for a job without LoRAs.

        The same LoRA named twice acts with the sum of its scales. Does nothing where this is the state already. Raises
        LoraInvalid where their ranks add up to more than MAX_TOTAL_RANK, or than there is room for in a slot.
        """
        wanted = _merged(loras)
        _check_ranks(wanted)
        key = tuple((item.lora.content_hash, item.scale) for item in wanted)
        transformer = _eager(pipeline.transformer)
        if self._transformer is transformer and self._applied == key:
            return
        was_unknown, self._applied = self._applied is None, None
        if self._transformer is not transformer:  # a model that was loaded anew
            self._holder.clear(transformer)
            self._transformer = transformer
        elif was_unknown:
            self._holder.recover(transformer)
        self._holder.hold(pipeline, transformer, wanted)
        self._applied = key

    def reserve(self, pipeline: Pipeline) -> None:
        """Make the slot now, so that a transformer compiled after this call is never compiled again for a LoRA."""
        self._transformer, self._applied = None, None
        transformer = _eager(pipeline.transformer)
        self._holder.clear(transformer)
        self._holder.reserve(pipeline, transformer)
        self._transformer, self._applied = transformer, ()

    def variants(self, pipeline: Pipeline) -> Iterator[None]:
        """Put the transformer into each state that a job may find it in, so that all of them are compiled beforehand:
        `for _ in manager.variants(pipeline): pipeline(...)`. Ends in the state without a LoRA."""
        return self._holder.variants(_eager(pipeline.transformer))

    @property
    def applied(self) -> tuple[tuple[str, float], ...] | None:
        """(content hash, scale) of what acts now; None while that is unknown."""
        return self._applied


def _eager(transformer: Any) -> Any:
    """The module inside of torch.compile's wrapper."""
    return getattr(transformer, "_orig_mod", transformer)


def _merged(loras: Iterable[ScaledLora]) -> list[ScaledLora]:
    merged: dict[str, ScaledLora] = {}
    for item in loras:
        other = merged.get(item.lora.content_hash)
        merged[item.lora.content_hash] = ScaledLora(item.lora, item.scale + (other.scale if other else 0.0))
    return [item for item in merged.values() if item.scale != 0.0]


def _check_ranks(wanted: Sequence[ScaledLora]) -> None:
    """Raises LoraInvalid where the LoRAs together would take more memory than a plan can hold free for them."""
    total = sum(item.lora.rank for item in wanted)
    if total > MAX_TOTAL_RANK:
        raise LoraInvalid(
            f"the LoRAs have rank {total} together, and up to {MAX_TOTAL_RANK} is taken: send fewer, or resize them",
            field="loras",
        )
