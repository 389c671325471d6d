"""The two matrices of a name, brought to the layers of the model: split by rows, checked, and put together again.

A trainer may have one fused layer where diffusers has several, several where diffusers has one, or the same layer
under two names. Whatever comes in, out comes one change for each layer, exactly the sum that the trainer meant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from flux_engine.errors import FluxError, LoraIncompatible, LoraInvalid
from flux_engine.inputs.safetensors_header import shown
from flux_engine.models.lora.names import Part, Shape, Target

if TYPE_CHECKING:
    from torch import Tensor

MAX_RANK: Final = 256
SAME: Final = 1e-3  # how far two changes of one layer may differ, relative to their size, to be the same one
PROBES: Final = 4


@dataclass(frozen=True, slots=True)
class LoraLayer:
    """The change of one Linear layer: up @ down, with alpha / rank already in `up`.

    `down` is (rank, in_features), `up` (out_features, rank); both on the CPU, floats. With a `magnitude`
    (out_features), a DoRA's, each row of the changed weight is scaled to that length.
    """

    down: Tensor
    up: Tensor
    magnitude: Tensor | None = None

    @property
    def rank(self) -> int:
        return int(self.down.shape[0])

    @property
    def num_bytes(self) -> int:
        return self.down.nbytes + self.up.nbytes + (0 if self.magnitude is None else self.magnitude.nbytes)


@dataclass(frozen=True, slots=True)
class Change:
    """What one name of the file changes: some rows of one layer."""

    name: str
    rows: range
    matrices: LoraLayer


def split(
    name: str, matrices: LoraLayer, targets: Sequence[Target], shapes: Mapping[str, Shape]
) -> list[tuple[str, Change]]:
    """Each layer with its rows of `matrices`, once the widths are those of the model: nothing is padded or cut.

    The first of `targets` with as many rows as the matrices is meant. Raises LoraIncompatible.
    """
    rows, width = matrices.up.shape[0], matrices.down.shape[1]
    parts = next((parts for target in targets if (parts := _fitting(target, rows))), None)
    wanted_in = shapes[targets[0].parts[0].layer][1]
    if parts is None or width != wanted_in:
        raise _other_shape(name, given=(rows, width), wanted=(targets[-1].num_rows, wanted_in))
    if len({part.layer for part in parts}) == 1 and all(part.source == part.target for part in parts):
        return [(parts[0].layer, Change(name, range(rows), matrices))]
    return [(part.layer, Change(name, part.target, _rows_of(matrices, part))) for part in parts]


def _fitting(target: Target, rows: int) -> tuple[Part, ...] | None:
    if rows == target.num_rows:
        return target.parts
    leading = target.parts[: target.leading]
    return leading if leading and rows == sum(len(part.source) for part in leading) else None


def _other_shape(name: str, *, given: Shape, wanted: Shape) -> FluxError:
    if flat_input(name) and given[1] == 2 * wanted[1]:
        return LoraIncompatible(
            "the LoRA is a control LoRA, which doubles the model's input; send `control` with its type and picture "
            "instead"
        )
    direction = "wide" if given[0] > wanted[0] or given[1] > wanted[1] else "narrow"
    return LoraIncompatible(
        f"the LoRA is too {direction} for this model: `{shown(name)}` is {given[1]} -> {given[0]} there and "
        f"{wanted[1]} -> {wanted[0]} here; choose the `model` that it was trained on"
    )


def flat_input(name: str) -> bool:
    """Whether `name` is that of the layer which takes the picture in."""
    return name.replace(".", "_").rstrip("_").endswith(("x_embedder", "img_in"))


def _rows_of(matrices: LoraLayer, part: Part) -> LoraLayer:
    """The rows of one part, without the columns that are zero in all of them: blocks of a fused matrix share none."""
    rows = slice(part.source.start, part.source.stop)
    up, down = matrices.up[rows], matrices.down
    used = up.any(dim=0)
    if 0 < int(used.sum()) < len(used):
        up, down = up[:, used], down[used]
    return LoraLayer(down, up, None if matrices.magnitude is None else matrices.magnitude[rows])


def merged(layer: str, changes: Sequence[Change], shape: Shape) -> LoraLayer:
    """One change of `layer` out of all that the file holds.

    Raises LoraInvalid where two of them change the same rows differently, or the rank is over MAX_RANK.
    """
    kept: list[Change] = []
    for change in changes:
        twin = next((other for other in kept if _overlap(other.rows, change.rows)), None)
        if twin is None:
            kept.append(change)
        elif twin.rows != change.rows or not _are_same(twin.matrices, change.matrices):
            raise LoraInvalid(
                f"the LoRA changes the layer `{shown(layer)}` twice and differently, as `{shown(twin.name)}` and "
                f"`{shown(change.name)}`; keep one of them"
            )
    is_whole = len(kept) == 1 and kept[0].rows == range(shape[0])
    lora = kept[0].matrices if is_whole else _together(layer, kept, shape)
    if lora.rank > MAX_RANK:
        raise LoraInvalid(f"the LoRA has rank {lora.rank}; up to {MAX_RANK} is taken: resize it to a lower rank")
    return lora


def _overlap(one: range, other: range) -> bool:
    return one.start < other.stop and other.start < one.stop


def _are_same(one: LoraLayer, other: LoraLayer) -> bool:
    """Whether two changes of the same rows are equal, asked with a few random inputs."""
    import torch

    inputs = torch.randn(one.down.shape[1], PROBES, generator=torch.Generator().manual_seed(0))
    given = [change.up.float() @ (change.down.float() @ inputs) for change in (one, other)]
    is_dora = one.magnitude is not None or other.magnitude is not None
    return not is_dora and bool((given[0] - given[1]).norm() <= SAME * given[0].norm())


def _together(layer: str, changes: Sequence[Change], shape: Shape) -> LoraLayer:
    """Changes of different rows, side by side along the rank; once where they share their "down" matrix."""
    import torch

    if any(change.matrices.magnitude is not None for change in changes):
        return _together_with_magnitudes(layer, changes, shape)
    first = changes[0].matrices.down
    is_shared = all(change.matrices.down is first or torch.equal(change.matrices.down, first) for change in changes)
    dtype = torch.float32 if len({change.matrices.up.dtype for change in changes}) > 1 else changes[0].matrices.up.dtype
    rank = first.shape[0] if is_shared else sum(change.matrices.rank for change in changes)
    up, start = torch.zeros(shape[0], rank, dtype=dtype), 0
    for change in changes:
        rows = slice(change.rows.start, change.rows.stop)
        end = rank if is_shared else start + change.matrices.rank
        up[rows, start:end] = change.matrices.up.to(dtype)
        start = 0 if is_shared else end
    down = first if is_shared else torch.cat([change.matrices.down for change in changes])
    return LoraLayer(down, up)


def _together_with_magnitudes(layer: str, changes: Sequence[Change], shape: Shape) -> LoraLayer:
    """As `_together`, where every row of the layer has a magnitude."""
    import torch

    plain = _together(layer, [replace(c, matrices=replace(c.matrices, magnitude=None)) for c in changes], shape)
    magnitude = torch.full((shape[0],), torch.nan)
    for change in changes:
        if change.matrices.magnitude is not None:
            magnitude[change.rows.start : change.rows.stop] = change.matrices.magnitude.float()
    if bool(magnitude.isnan().any()):
        raise LoraInvalid(
            f"the LoRA is a DoRA in a part of the layer `{shown(layer)}` only; export it as a LoRA, without magnitudes"
        )
    return LoraLayer(plain.down, plain.up, magnitude)
