"""What a plan depends on of the machine, and the table of known cards.

A `GpuProperties` is a plain value, so a plan can be made for a card that is not here. A machine without a GPU is a
value as well: no compute capability, and its memory is the host's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from flux_engine.units import GIB

CONTEXT_BYTES: Final = GIB // 2  # CUDA's context and kernels, which a fresh process loses before any tensor
USUAL_HOST_BYTES: Final = 62 * GIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Dense peak rates: TFLOP/s of matrix products in half and in 8-bit precision, GB/s of the memory."""

    half_tflops: float
    low_tflops: float | None  # fp8 from compute capability 8.9, int8 before; None without such units
    bandwidth_gb_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProperties:
    """The device that a plan is for."""

    name: str
    compute_capability: tuple[int, int] | None  # None: no GPU
    total_bytes: int
    free_bytes: int
    host_bytes: int
    count: int = 1
    speed: Speed | None = None  # None: not in the table, so no seconds are estimated

    @property
    def is_cpu(self) -> bool:
        return self.compute_capability is None

    def has_capability(self, major: int, minor: int) -> bool:
        """Whether the compute capability is that or higher."""
        return self.compute_capability is not None and self.compute_capability >= (major, minor)


def _card(
    name: str, capability: tuple[int, int], gib: float, rates: tuple[float, float | None, float]
) -> GpuProperties:
    """A card of the table; `rates` are TFLOP/s in half and in 8-bit precision, and GB/s."""
    total = int(gib * GIB)
    half_tflops, low_tflops, bandwidth_gb_s = rates
    return GpuProperties(
        name=name,
        compute_capability=capability,
        total_bytes=total,
        free_bytes=total - CONTEXT_BYTES,
        host_bytes=max(USUAL_HOST_BYTES, total * 3 // 2),
        speed=Speed(half_tflops=half_tflops, low_tflops=low_tflops, bandwidth_gb_s=bandwidth_gb_s),
    )


# Memory is what a process sees, less than the name on the box. Rates are the vendor's, dense, with float32
# accumulation where the card is slower with it.
CARDS: Final[tuple[GpuProperties, ...]] = (
    _card("Tesla T4", (7, 5), 14.6, (65, 130, 320)),
    _card("NVIDIA A100-SXM4-40GB", (8, 0), 39.4, (312, 624, 1555)),
    _card("NVIDIA A100 80GB PCIe", (8, 0), 79.1, (312, 624, 1935)),
    _card("NVIDIA A10", (8, 6), 22.0, (125, 250, 600)),
    _card("NVIDIA A10G", (8, 6), 22.0, (70, 140, 600)),
    _card("NVIDIA A40", (8, 6), 44.4, (150, 299, 696)),
    _card("NVIDIA RTX A4000", (8, 6), 15.7, (77, 153, 448)),
    _card("NVIDIA RTX A4500", (8, 6), 19.6, (95, 189, 640)),
    _card("NVIDIA RTX A5000", (8, 6), 23.6, (111, 222, 768)),
    _card("NVIDIA RTX A6000", (8, 6), 47.4, (155, 310, 768)),
    _card("NVIDIA GeForce RTX 3090", (8, 6), 23.6, (71, 284, 936)),
    _card("NVIDIA GeForce RTX 4080", (8, 9), 15.7, (97, 195, 717)),
    _card("NVIDIA GeForce RTX 4090", (8, 9), 23.5, (165, 330, 1008)),
    _card("NVIDIA RTX 4000 Ada Generation", (8, 9), 19.5, (77, 153, 360)),
    _card("NVIDIA RTX 6000 Ada Generation", (8, 9), 47.4, (364, 728, 960)),
    _card("NVIDIA L4", (8, 9), 22.0, (121, 242, 300)),
    _card("NVIDIA L40", (8, 9), 44.4, (181, 362, 864)),
    _card("NVIDIA L40S", (8, 9), 44.4, (362, 733, 864)),
    _card("NVIDIA H100 PCIe", (9, 0), 79.1, (756, 1513, 2000)),
    _card("NVIDIA H100 80GB HBM3", (9, 0), 79.1, (989, 1979, 3350)),
    _card("NVIDIA H200", (9, 0), 139.8, (989, 1979, 4800)),
    _card("NVIDIA B200", (10, 0), 178.4, (2250, 4500, 8000)),
    _card("NVIDIA GeForce RTX 5090", (12, 0), 31.4, (210, 419, 1792)),
    _card("NVIDIA RTX PRO 6000 Blackwell Server Edition", (12, 0), 95.0, (504, 1007, 1792)),
)
_NOISE: Final = re.compile(r"\b(nvidia|geforce|tesla|generation|server|edition)\b|[^a-z0-9]+")


def cpu_machine(*, total_bytes: int, name: str = "CPU") -> GpuProperties:
    """A machine without a GPU."""
    return GpuProperties(
        name=name, compute_capability=None, total_bytes=total_bytes, free_bytes=total_bytes, host_bytes=total_bytes
    )


def find_card(name: str) -> GpuProperties | None:
    """The card of the table that `name` means: `A10G`, `rtx 4090`, `NVIDIA H100 PCIe`; the first that it is part of."""
    wanted = _key(name)
    if not wanted:
        return None
    by_key = {_key(card.name): card for card in CARDS}
    part_of = (card for key, card in by_key.items() if wanted in key)
    return by_key.get(wanted) or next(part_of, None)


def short_name(card: GpuProperties) -> str:
    """The card's name without its maker: `A10G`, `RTX 4090`."""
    return " ".join(re.sub(r"\b(NVIDIA|GeForce|Tesla|Generation|Server|Edition)\b", " ", card.name).split())


def _key(name: str) -> str:
    return _NOISE.sub("", name.casefold())
