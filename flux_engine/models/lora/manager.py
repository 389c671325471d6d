"""LoRAManager: which adapters are in the pipeline's transformer, and at what scale.

Two ways with one result. `adapters` keeps the adapters last used beside the base layers and switches between them.
`slot` is for a compiled transformer: one adapter of fixed rank around every Linear layer, made once. Later LoRAs are
copied into its memory, several side by side along the rank, with their scales multiplied in. No shape and no Python
value changes, so nothing is compiled again.

Everything here runs on the one GPU thread. The state is unknown from the moment it begins to change until it has
changed: after an exception or a cancellation in between, the next `apply` takes everything out and starts anew.
Nothing is read, fetched or checked here: a PreparedLora fits its model.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from flux_engine.errors import LoraInvalid
from flux_engine.models.lora.format import PreparedLora
from flux_engine.models.lora.names import linear_shapes
from flux_engine.models.planning.plan import SLOT_RANK, LoraMode
from flux_engine.units import GIB

if TYPE_CHECKING:
    from torch import Tensor, nn

SLOT: Final = "slot"
MAX_TOTAL_RANK: Final = 512  # sum over the LoRAs of one job: 5.5 GB on FLUX.1 where every layer has one
NO_DORA: Final = "the LoRA is a DoRA, which cannot be applied to"
AS_LORA: Final = "have it exported as a LoRA"
MAX_RESIDENT_BYTES: Final = 2 * GIB


class Pipeline(Protocol):
    """What is needed of a diffusers FLUX pipeline: its transformer takes PEFT adapters."""

    transformer: Any


@dataclass(frozen=True, slots=True)
class ScaledLora:
    """A LoRA and how strongly it acts; negative scales turn it around, 0 is none."""

    lora: PreparedLora
    scale: float


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
        self._holder: _Adapters | _Slot
        self._holder = _Adapters(max_resident_bytes) if mode == "adapters" else _Slot(slot_rank, slot_room_bytes)
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


class _Adapters:
    """Adapters by content hash; the least recently used leave first."""

    def __init__(self, max_resident_bytes: int) -> None:
        self._max_bytes = max_resident_bytes
        self._bytes: OrderedDict[str, int] = OrderedDict()

    def clear(self, transformer: Any) -> None:
        self._bytes.clear()
        _unload(transformer)

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
                _load(pipeline, transformer, _uniform(item.lora), name)
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
            with _expected_warnings():
                transformer.delete_adapters(name)
            del self._bytes[name]
        if not self._bytes:
            _unload(transformer)


class _Slot:
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
        _unload(transformer)

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
            device = transformer.get_parameter(f"{name}.weight").device  # at once where it stays, not by the host
            state[f"{name}.lora_A.weight"] = torch.zeros(rank, in_features, dtype=transformer.dtype, device=device)
            state[f"{name}.lora_B.weight"] = torch.zeros(out_features, rank, dtype=transformer.dtype, device=device)
        _load(pipeline, transformer, state, SLOT)
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


def _load(pipeline: Pipeline, transformer: Any, state: dict[str, Tensor], name: str) -> None:
    """diffusers gets the pipeline only where the transformer is offloaded. It renews the hooks of every part that it
    sees, and would pin the memory of a streamed text encoder once more."""
    hooked = pipeline if _is_offloaded(transformer) else None
    with _expected_warnings():
        transformer.load_lora_adapter(state, prefix=None, adapter_name=name, _pipeline=hooked, low_cpu_mem_usage=True)


def _is_offloaded(transformer: Any) -> bool:
    """Whether accelerate's or diffusers' hooks move the transformer's layers."""
    return any(
        hasattr(module, "_hf_hook") or _moves(getattr(module, "_diffusers_hook", None))
        for module in transformer.modules()
    )


def _moves(hooks: Any) -> bool:
    return hooks is not None and hooks.get_hook("group_offloading") is not None


@contextmanager
def _expected_warnings() -> Iterator[None]:
    """PEFT warns of several adapters in a model and of deleting an active one: both are what is wanted here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        warnings.filterwarnings("ignore", message="Adapter .* was active which is now deleted")
        yield


def _unload(transformer: Any) -> None:
    """Give the base layers back; free where there is nothing around them."""
    if any(hasattr(module, "base_layer") for module in transformer.modules()):
        transformer.unload_lora()
