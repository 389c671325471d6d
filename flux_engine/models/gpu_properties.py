"""What a plan depends on of the machine: read from the device, or taken from the table of known cards.

A `GpuProperties` is a plain value, so a plan can be made for a card that is not here. A machine without a GPU is a
value as well: no compute capability, and its memory is the host's.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

DEVICES: Final = Path("/dev")
GIB: Final = 1024**3
MIB: Final = 1024**2
DRIVER_TIMEOUT_S: Final = 30.0  # of a host whose driver wakes up eight cards first
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


def has_gpu(devices: Path = DEVICES) -> bool:
    """Whether an NVIDIA device is in sight, told without importing torch.

    A container that was given the fourth card of its host sees `nvidia3` and no `nvidia0`.
    """
    is_hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return not is_hidden and any(device.name[len("nvidia") :].isdigit() for device in devices.glob("nvidia*"))


def read_device() -> GpuProperties:
    """The device that this worker runs on; torch is imported only where the driver's own tool cannot tell.

    A job that is answered from the cache needs the plan's precision, and must not pay for torch.
    """
    if not has_gpu():
        return cpu_machine(total_bytes=host_memory())
    query = "--query-gpu=name,compute_cap,memory.total,memory.free,mig.mode.current"
    try:
        told = _nvidia_smi(query, "--format=csv,noheader,nounits")
    except (OSError, subprocess.SubprocessError):
        return read_gpu()
    return parse_driver(told, host_bytes=host_memory()) or read_gpu()


def driver_version(devices: Path = DEVICES) -> str | None:
    """The version of this machine's NVIDIA driver, as `580.65.06`; None without a GPU or without the driver's tool.

    Raises subprocess.SubprocessError where the tool fails or hangs: the GPU cannot be used then.
    """
    if not has_gpu(devices):
        return None
    try:
        told = _nvidia_smi("--query-gpu=driver_version", "--format=csv,noheader")
    except OSError:
        return None
    return next(iter(told.split()), None)


def _nvidia_smi(*arguments: str) -> str:
    return subprocess.run(  # noqa: S603  (nothing in it comes from outside)
        ["nvidia-smi", *arguments],  # noqa: S607  (the driver's place differs)
        capture_output=True,
        text=True,
        timeout=DRIVER_TIMEOUT_S,
        check=True,
    ).stdout


def parse_driver(told: str, *, host_bytes: int) -> GpuProperties | None:
    """The first device in nvidia-smi's lines; None where it cannot be told, as for a slice of a card (MIG)."""
    lines = told.strip().splitlines()
    fields = [field.strip() for field in lines[0].split(",")] if lines else []
    if len(fields) != 5 or fields[4] == "Enabled" or os.environ.get("CUDA_VISIBLE_DEVICES", "0") not in ("0", "all"):
        return None
    name, capability, total_mib, free_mib, _ = fields
    major, _, minor = capability.partition(".")
    if not all(part.isdigit() for part in (major, minor, total_mib, free_mib)):
        return None
    known = find_card(name)
    return GpuProperties(
        name=name,
        compute_capability=(int(major), int(minor)),
        total_bytes=int(total_mib) * MIB,
        free_bytes=max(0, int(free_mib) * MIB - CONTEXT_BYTES),  # torch asks after the context is made
        host_bytes=host_bytes,
        count=len(lines),
        speed=known.speed if known else None,
    )


def read_gpu(index: int = 0) -> GpuProperties:
    """The properties of this machine's GPU `index`, or of its CPU; imports torch."""
    import torch

    host_bytes = host_memory()
    if not torch.cuda.is_available():
        return cpu_machine(total_bytes=host_bytes)
    properties = torch.cuda.get_device_properties(index)
    free, total = torch.cuda.mem_get_info(index)
    known = find_card(properties.name)
    return GpuProperties(
        name=properties.name,
        compute_capability=(properties.major, properties.minor),
        total_bytes=total,
        free_bytes=free,
        host_bytes=host_bytes,
        count=torch.cuda.device_count(),
        speed=known.speed if known else None,
    )


def host_memory() -> int:
    """Bytes of memory that this container may use: the machine's, or its control group's limit."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as limit:
            text = limit.read().strip()
    except FileNotFoundError:
        return physical
    return min(physical, int(text)) if text.isdigit() else physical


def _key(name: str) -> str:
    return _NOISE.sub("", name.casefold())
