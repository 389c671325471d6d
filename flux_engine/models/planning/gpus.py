"""The GPU that a plan is for, and the table of known cards.

A `GpuProperties` is a plain value, so a plan can be made for a card that is not here. A machine without a GPU is a
value as well: no compute capability, and its memory is the host's.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Final

from flux_engine.models.planning.calibration import Shares, shares_of
from flux_engine.units import GIB

CONTEXT_BYTES: Final = GIB // 2  # CUDA's context and kernels, which a fresh process loses before any tensor
USUAL_HOST_BYTES: Final = 62 * GIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Dense peak rates: TFLOP/s of matrix products in half and in 8-bit precision, GB/s of the memory; and which shares
    of them FLUX reaches."""

    half_tflops: float
    low_tflops: float | None  # fp8 from compute capability 8.9, int8 before; None without such units
    bandwidth_gb_s: float
    shares: Shares


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
    name: str, capability: tuple[int, int], gib: float, rates: tuple[float, float, float], *, watts: float
) -> GpuProperties:
    """A card of the table; `rates` are TFLOP/s in half and in 8-bit precision, and GB/s; `watts` its power limit."""
    total = int(gib * GIB)
    half_tflops, low_tflops, bandwidth_gb_s = rates
    return GpuProperties(
        name=name,
        compute_capability=capability,
        total_bytes=total,
        free_bytes=total - CONTEXT_BYTES,
        host_bytes=max(USUAL_HOST_BYTES, total * 3 // 2),
        speed=Speed(
            half_tflops=half_tflops,
            low_tflops=low_tflops,
            bandwidth_gb_s=bandwidth_gb_s,
            shares=shares_of(name, half_w=watts / half_tflops, low_w=watts / low_tflops),
        ),
    )


# Memory is what a process sees, less than the name on the box. Rates and watts are the vendor's, rates dense and with
# float32 accumulation where the card is slower with it.
CARDS: Final[tuple[GpuProperties, ...]] = (
    _card("Tesla T4", (7, 5), 14.6, (65, 130, 320), watts=70),
    _card("NVIDIA A100-SXM4-40GB", (8, 0), 39.4, (312, 624, 1555), watts=400),
    _card("NVIDIA A100 80GB PCIe", (8, 0), 79.1, (312, 624, 1935), watts=300),
    _card("NVIDIA A10", (8, 6), 22.0, (125, 250, 600), watts=150),
    _card("NVIDIA A10G", (8, 6), 22.0, (70, 140, 600), watts=150),
    _card("NVIDIA A40", (8, 6), 44.4, (150, 299, 696), watts=300),
    _card("NVIDIA RTX A4000", (8, 6), 15.7, (77, 153, 448), watts=140),
    _card("NVIDIA RTX A4500", (8, 6), 19.6, (95, 189, 640), watts=200),
    _card("NVIDIA RTX A5000", (8, 6), 23.6, (111, 222, 768), watts=230),
    _card("NVIDIA RTX A6000", (8, 6), 47.4, (155, 310, 768), watts=300),
    _card("NVIDIA GeForce RTX 3090", (8, 6), 23.6, (71, 284, 936), watts=350),
    _card("NVIDIA GeForce RTX 4080", (8, 9), 15.7, (97, 195, 717), watts=320),
    _card("NVIDIA GeForce RTX 4090", (8, 9), 23.5, (165, 330, 1008), watts=450),
    _card("NVIDIA RTX 4000 Ada Generation", (8, 9), 19.5, (77, 153, 360), watts=130),
    _card("NVIDIA RTX 6000 Ada Generation", (8, 9), 47.4, (364, 728, 960), watts=300),
    _card("NVIDIA L4", (8, 9), 22.0, (121, 242, 300), watts=72),
    _card("NVIDIA L40", (8, 9), 44.4, (181, 362, 864), watts=300),
    _card("NVIDIA L40S", (8, 9), 44.4, (362, 733, 864), watts=350),
    _card("NVIDIA H100 PCIe", (9, 0), 79.1, (756, 1513, 2000), watts=350),
    _card("NVIDIA H100 80GB HBM3", (9, 0), 79.1, (989, 1979, 3350), watts=700),
    _card("NVIDIA H200", (9, 0), 139.8, (989, 1979, 4800), watts=700),
    _card("NVIDIA B200", (10, 0), 178.4, (2250, 4500, 8000), watts=1000),
    _card("NVIDIA GeForce RTX 5090", (12, 0), 31.4, (210, 419, 1792), watts=575),
    _card("NVIDIA RTX PRO 6000 Blackwell Server Edition", (12, 0), 95.0, (504, 1007, 1792), watts=600),
)
# Not for rent; published runs on it are what the estimates are fitted to.
L20: Final = _card("NVIDIA L20", (8, 9), 44.4, (119.5, 239, 864), watts=275)
_NOISE: Final = re.compile(r"\b(nvidia|geforce|tesla|generation|server|edition)\b|[^a-z0-9]+")
_WORDS: Final = re.compile(r"[0-9]+|[a-z]+")
_DIGIT: Final = re.compile(r"[0-9]")


def cpu_machine(*, total_bytes: int, name: str = "CPU") -> GpuProperties:
    """A machine without a GPU."""
    return GpuProperties(
        name=name, compute_capability=None, total_bytes=total_bytes, free_bytes=total_bytes, host_bytes=total_bytes
    )


def find_card(name: str) -> GpuProperties | None:
    """The card of the table that `name` means: `A10G`, `rtx 4090`, `A100 40GB`; the first of several."""
    return next(iter(cards_named(name)), None)


def cards_named(name: str) -> list[GpuProperties]:
    """The cards that `name` may mean, best first: the one with that name, else all that have each of its words.

    A name is compared without its maker, its case and its punctuation: `a10` is the A10 and not the A10G, `A100` both
    A100s, `A100 40GB` the smaller one. Where no card has all words, its model counts: `A100-SXM4-80GB` is an A100.
    """
    exact = [card for card in CARDS if _key(card.name) == _key(name)]
    words = _words(name)
    if exact or not words:
        return exact
    model = next((word for word in _NOISE.sub(" ", name.casefold()).split() if _DIGIT.search(word)), None)
    return [card for card in CARDS if words <= _words(card.name)] or [
        card for card in CARDS if model is not None and model in _NOISE.sub(" ", card.name.casefold()).split()
    ]


def nearest_cards(name: str, *, count: int = 3) -> list[str]:
    """Short names of the cards whose names look most like `name`, for a message."""
    by_key = {_key(card.name): short_name(card) for card in CARDS}
    near = difflib.get_close_matches(_key(name), by_key, n=count, cutoff=0.5)
    return [by_key[key] for key in near]


def short_name(card: GpuProperties) -> str:
    """The card's name without its maker: `A10G`, `RTX 4090`."""
    return " ".join(re.sub(r"\b(NVIDIA|GeForce|Tesla|Generation|Server|Edition)\b", " ", card.name).split())


def _key(name: str) -> str:
    return _NOISE.sub("", name.casefold())


def _words(name: str) -> frozenset[str]:
    """The letters and numbers of a name: `A100 40GB` is a, 100, 40, gb."""
    return frozenset(_WORDS.findall(_NOISE.sub(" ", name.casefold())))


# Of a card that is not in the table, only to compare ways with one another.
NOMINAL_SPEED: Final = Speed(
    half_tflops=100.0,
    low_tflops=200.0,
    bandwidth_gb_s=800.0,
    shares=shares_of("", half_w=1.5, low_w=0.75),
)
