"""LoRAs as adapters of their own beside the base layers: those last used stay, and a job switches between them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from flux_engine.errors import LoraInvalid
from flux_engine.models.lora.attachment import delete, load, unload
from flux_engine.models.lora.format import PreparedLora
from flux_engine.models.lora.holder import AS_LORA, NO_DORA, Pipeline, ScaledLora

if TYPE_CHECKING:
    from torch import Tensor


class Adapters:
    """Adapters by content hash; the least recently used leave first."""

    def __init__(self, max_resident_bytes: int) -> None:
        self._max_bytes = max_resident_bytes
        self._bytes: OrderedDict[str, int] = OrderedDict()

    def clear(self, transformer: Any) -> None:
        self._bytes.clear()
        unload(transformer)

    def recover(self, transformer: Any) -> None:
        self.clear(transformer)

    def reserve(self, pipeline: Pipeline, transformer: Any) -> None:
        """Nothing: an adapter is made when its LoRA comes."""

    def variants(self, transformer: Any) -> Iterator[None]:
        yield

    def hold(self, pipeline: Pipeline, transformer: Any, wanted: Sequence[ScaledLora]) -> None:
        _check_dora(transformer, wanted)
        in_order = sorted(wanted, key=lambda item: not item.lora.has_magnitudes)  # a DoRA scales what comes before it
        names = {item.lora.content_hash: item for item in in_order}
        coming = sum(item.lora.num_bytes for name, item in names.items() if name not in self._bytes)
        self._evict(transformer, keep=names, coming=coming)
        for name, item in names.items():
            if name not in self._bytes:
                load(pipeline, transformer, _uniform(item.lora), name)
                self._bytes[name] = item.lora.num_bytes
            self._bytes.move_to_end(name)
        if names:
            transformer.set_adapters(list(names), [item.scale for item in in_order])
            transformer.enable_lora()
        elif self._bytes:
            transformer.disable_lora()

    def _evict(self, transformer: Any, *, keep: Collection[str], coming: int) -> None:
        for name in [name for name in self._bytes if name not in keep]:
            if sum(self._bytes.values()) + coming <= self._max_bytes:
                return
            delete(transformer, name)
            del self._bytes[name]
        if not self._bytes:
            unload(transformer)


def _check_dora(transformer: Any, wanted: Sequence[ScaledLora]) -> None:
    """Raises LoraInvalid where PEFT could not apply a DoRA exactly."""
    import torch

    doras = [item.lora for item in wanted if item.lora.has_magnitudes]
    if len(doras) > 1:
        raise LoraInvalid("of the LoRAs more than one is a DoRA, and only one can be applied at a time", field="loras")
    for lora in doras:
        if any(layer.magnitude is None for layer in lora.layers.values()):
            raise LoraInvalid(
                "the LoRA is a DoRA in some of its layers only; have it exported as a LoRA", field="loras"
            )
        weights = (transformer.get_submodule(name).weight for name in lora.layers)
        if any(type(weight.data) is not torch.Tensor or weight.is_meta for weight in weights):
            raise LoraInvalid(f"{NO_DORA} a model with quantised or offloaded weights; {AS_LORA}", field="loras")


def _uniform(lora: PreparedLora) -> dict[str, Tensor]:
    """The state that diffusers reads, every layer padded with zeros to one rank: then alpha = rank holds for all."""
    from torch.nn.functional import pad

    state = {}
    for name, layer in lora.layers.items():
        missing = lora.rank - layer.rank
        state[f"{name}.lora_A.weight"] = pad(layer.down, (0, 0, 0, missing)) if missing else layer.down
        state[f"{name}.lora_B.weight"] = pad(layer.up, (0, missing)) if missing else layer.up
        if layer.magnitude is not None:
            state[f"{name}.lora_magnitude_vector"] = layer.magnitude
    return state
