"""LoRAs in the memory of one adapter of fixed rank, for a compiled transformer: no shape changes with the job.

Several lie side by side along the rank, with their scales multiplied in. No shape and no Python value changes, so
nothing is compiled again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from flux_engine.errors import LoraInvalid
from flux_engine.models.lora.attachment import load, unload
from flux_engine.models.lora.holder import AS_LORA, NO_DORA, Pipeline, ScaledLora
from flux_engine.models.lora.names import linear_shapes

if TYPE_CHECKING:
    from torch import Tensor, nn

SLOT: Final = "slot"


class Slot:
    """One adapter of fixed rank around every Linear layer; LoRAs are written into its memory.

    A job without LoRAs bypasses it: filled or not, the slot makes each layer read its input and write its output twice,
    which is 8 to 21 % of a step.
    """

    def __init__(self, rank: int, room_bytes: int | None) -> None:
        self._least_rank = rank
        self._room_bytes = room_bytes
        self._rank = 0
        self._slots: dict[str, tuple[Tensor, Tensor]] = {}

    def clear(self, transformer: Any) -> None:
        self._rank, self._slots = 0, {}
        unload(transformer)

    def recover(self, transformer: Any) -> None:
        """A slot that was made is whole, and is about to be written from end to end."""
        if not self._slots:
            self.clear(transformer)

    def reserve(self, pipeline: Pipeline, transformer: Any) -> None:
        self._make(pipeline, transformer, self._least_rank)

    def hold(self, pipeline: Pipeline, transformer: Any, wanted: Sequence[ScaledLora]) -> None:
        import torch

        if any(item.lora.has_magnitudes for item in wanted):
            raise LoraInvalid(f"{NO_DORA} a compiled model; {AS_LORA}", field="loras")
        if not wanted:
            if self._slots:
                transformer.disable_lora()
            return
        rank = max(self._least_rank, sum(item.lora.rank for item in wanted))
        if rank > self._rank or (rank == self._least_rank < self._rank):  # a large one is not kept for small LoRAs
            self._make(pipeline, transformer, self._rank_for(transformer, rank))
        with torch.no_grad():
            for name, (down, up) in self._slots.items():
                _write(down, up, [(item.lora.layers[name], item.scale) for item in wanted if name in item.lora.layers])
        transformer.enable_lora()

    def variants(self, transformer: Any) -> Iterator[None]:
        transformer.enable_lora()
        yield
        transformer.disable_lora()
        yield

    def _rank_for(self, transformer: Any, rank: int) -> int:
        """The slot's rank for LoRAs of `rank` together: the next power of two, or less where memory ends before.

        Raises LoraInvalid where they do not fit beside the model.
        """
        rounded = 1 << (rank - 1).bit_length()
        if self._room_bytes is None or rank <= self._least_rank:
            return rounded
        sides = sum(sum(shape) for shape in linear_shapes(transformer).values())
        most = int(self._room_bytes // (sides * transformer.dtype.itemsize))
        if rank > most:
            raise LoraInvalid(
                f"the LoRAs have rank {rank} together, and this worker's GPU has room for {most} beside the model: "
                "send fewer, or resize them",
                field="loras",
            )
        return min(rounded, most)

    def _make(self, pipeline: Pipeline, transformer: Any, rank: int) -> None:
        import torch

        self.clear(transformer)
        state = {}
        for name, (out_features, in_features) in linear_shapes(transformer).items():
            device = transformer.get_parameter(f"{name}.weight").device  # no copy through host memory
            state[f"{name}.lora_A.weight"] = torch.zeros(rank, in_features, dtype=transformer.dtype, device=device)
            state[f"{name}.lora_B.weight"] = torch.zeros(out_features, rank, dtype=transformer.dtype, device=device)
        load(pipeline, transformer, state, SLOT)
        self._slots = _slots(transformer)
        self._rank = rank


def _write(down: Tensor, up: Tensor, layers: Sequence[tuple[Any, float]]) -> None:
    """Fill one layer's slot, in place; what no LoRA fills is zero."""
    down.zero_()
    up.zero_()
    start = 0
    for layer, scale in layers:
        end = start + layer.rank
        down[start:end].copy_(layer.down)
        up[:, start:end].copy_(layer.up.float() * scale)
        start = end


def _slots(transformer: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    from peft.tuners.lora import LoraLayer

    return {
        name: (module.lora_A[SLOT].weight, module.lora_B[SLOT].weight)
        for name, module in transformer.named_modules()
        if isinstance(module, LoraLayer)
    }
