"""The device that this worker finds itself on: the machine is asked, then the driver's own tool, and torch last."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flux_engine.errors import DeviceBroken
from flux_engine.models.planning.gpus import CONTEXT_BYTES, GpuProperties, cpu_machine, find_card
from flux_engine.models.planning.host_memory import total_memory
from flux_engine.units import MIB

DEVICES: Final = Path("/dev")
DRIVER_TIMEOUT_S: Final = 30.0  # of a host whose driver wakes up eight cards first
NOT_USABLE: Final = "this worker's GPU cannot be used; another worker can take the job: send it again"


@dataclass(frozen=True, slots=True)
class Driver:
    """A GPU's driver: its version, as `580.65.06`, and the compute capability that it tells of the first card."""

    version: str
    compute_capability: tuple[int, int] | None = None


def has_gpu(devices: Path = DEVICES) -> bool:
    """Whether an NVIDIA device is in sight, without importing torch.

    A container that was given the fourth card of its host sees `nvidia3` and no `nvidia0`.
    """
    is_hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    return not is_hidden and any(device.name[len("nvidia") :].isdigit() for device in devices.glob("nvidia*"))


def read_device(devices: Path = DEVICES) -> GpuProperties:
    """The device that this worker runs on; torch is imported only where the driver's own tool cannot tell.

    A job that is answered from the cache needs the plan's precision, and must not pay for torch. Raises DeviceBroken
    where a GPU is in sight that torch cannot use: the CPU would work on one job until its time is over.
    """
    if not has_gpu(devices):
        return cpu_machine(total_bytes=total_memory())
    query = "--query-gpu=name,compute_cap,memory.total,memory.free,mig.mode.current"
    try:
        told = _nvidia_smi(query, "--format=csv,noheader,nounits")
    except (OSError, subprocess.SubprocessError):
        return _as_torch_sees_it()
    return parse_driver(told, host_bytes=total_memory()) or _as_torch_sees_it()


def _as_torch_sees_it() -> GpuProperties:
    gpu = read_gpu()
    if gpu.is_cpu:
        raise DeviceBroken(NOT_USABLE)
    return gpu


def read_driver(devices: Path = DEVICES) -> Driver | None:
    """This machine's NVIDIA driver; None without a GPU or without the driver's tool.

    Raises subprocess.SubprocessError where the tool fails or hangs: the GPU cannot be used then.
    """
    if not has_gpu(devices):
        return None
    try:
        told = _nvidia_smi("--query-gpu=driver_version,compute_cap", "--format=csv,noheader")
    except OSError:
        return None
    lines = told.strip().splitlines()
    if not lines:
        return None
    version, _, capability = (field.strip() for field in lines[0].partition(","))
    return Driver(version, _capability(capability))


def _nvidia_smi(*arguments: str) -> str:
    return subprocess.run(  # noqa: S603  (nothing in it comes from outside)
        ["nvidia-smi", *arguments],  # noqa: S607  (the driver's place differs)
        capture_output=True,
        text=True,
        timeout=DRIVER_TIMEOUT_S,
        check=True,
    ).stdout


def parse_driver(told: str, *, host_bytes: int) -> GpuProperties | None:
    """The first device in nvidia-smi's lines; None where they do not say, as for a slice of a card (MIG)."""
    lines = told.strip().splitlines()
    fields = [field.strip() for field in lines[0].split(",")] if lines else []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "all")  # which the driver's tool does not look at
    if len(fields) != 5 or fields[4] == "Enabled" or visible not in ("0", "all"):
        return None
    name, capability, total_mib, free_mib, _ = fields
    compute_capability = _capability(capability)
    if compute_capability is None or not total_mib.isdigit() or not free_mib.isdigit():
        return None
    known = find_card(name)
    return GpuProperties(
        name=name,
        compute_capability=compute_capability,
        total_bytes=int(total_mib) * MIB,
        free_bytes=max(0, int(free_mib) * MIB - CONTEXT_BYTES),  # torch asks after the context is made
        host_bytes=host_bytes,
        count=1 if visible == "0" else len(lines),
        speed=known.speed if known else None,
    )


def read_gpu(index: int = 0) -> GpuProperties:
    """The properties of this machine's GPU `index`, or of its CPU; imports torch."""
    import torch

    host_bytes = total_memory()
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


def _capability(told: str) -> tuple[int, int] | None:
    major, _, minor = told.partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None
