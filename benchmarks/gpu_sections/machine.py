"""Section `env`: what the machine is, and what its matrix units, attention and buses reach without FLUX."""

from __future__ import annotations

import platform
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.gpu_sections.bench import Bench
from benchmarks.gpu_sections.clock import seconds_of
from flux_engine.models.planning.device import read_driver
from flux_engine.models.planning.host_cpus import usable_cpus
from flux_engine.models.planning.host_memory import available_memory
from flux_engine.models.tuning.versions import version_of
from flux_engine.units import MIB

PACKAGES: Final = ("torch", "diffusers", "transformers", "accelerate", "peft", "torchao", "cache-dit", "triton")
HEADS: Final = 24  # FLUX.1's attention
HEAD_WIDTH: Final = 128
COPIED_MIB: Final = 512
REPEATS: Final = 5


def env(bench: Bench) -> None:
    """Versions first: a figure belongs to them."""
    for package in PACKAGES:
        bench.figures[f"version of {package}"] = version_of(package)
    driver = read_driver()
    bench.figures |= {
        "python": platform.python_version(),
        "cpus": usable_cpus(),
        "free host bytes": available_memory(),
        "free device bytes": bench.gpu.free_bytes,
        "driver": driver.version if driver is not None else "none",
    }
    bench.attempt("matrix products", lambda: _products(bench))
    bench.attempt("attention", lambda: _attention(bench))
    bench.attempt("copies", lambda: _copies(bench))


def _products(bench: Bench) -> None:
    """TFLOP/s of one Linear layer, beside the card's peak."""
    scale, speed = bench.scale, bench.gpu.speed
    for width in scale.gemm_widths:
        flop = 2.0 * scale.gemm_rows * scale.gemm_widths[0] * width
        for name, multiply in _multiplications(bench, width).items():
            peak = None if speed is None else speed.half_tflops if name == scale.dtype else speed.low_tflops
            way = f"{name} {scale.gemm_rows}x{width}"
            bench.attempt(way, partial(_rate, bench, way, multiply, flop=flop, peak=peak))


def _rate(bench: Bench, way: str, work: Callable[[], Any], *, flop: float, peak: float | None) -> None:
    work()
    seconds, _ = seconds_of(work, repeats=REPEATS)
    bench.row(way, flop / seconds / 1e12, "TFLOP/s", reckoned=peak)


def _multiplications(bench: Bench, width: int) -> dict[str, Callable[[], Any]]:
    scale, device = bench.scale, bench.scale.device
    rows, inner = scale.gemm_rows, scale.gemm_widths[0]
    dtype = getattr(torch, scale.dtype)
    one = torch.randn(rows, inner, device=device, dtype=dtype)
    other = torch.randn(width, inner, device=device, dtype=dtype)
    small, small_other = (matrix.clamp(-1, 1).mul(127).to(torch.int8) for matrix in (one, other))
    found: dict[str, Callable[[], Any]] = {
        scale.dtype: lambda: one @ other.T,
        "int8": lambda: torch._int_mm(small, small_other.T),
    }
    if bench.gpu.has_capability(8, 9):
        eighth, eighth_other = one.to(torch.float8_e4m3fn), other.to(torch.float8_e4m3fn)
        scales = {
            "fp8 by row": (torch.ones(rows, 1, device=device), torch.ones(1, width, device=device)),
            "fp8 by tensor": (torch.ones((), device=device), torch.ones((), device=device)),
        }
        found |= {
            name: partial(torch._scaled_mm, eighth, eighth_other.T, *pair, out_dtype=torch.bfloat16)
            for name, pair in scales.items()
        }
    return found


def _attention(bench: Bench) -> None:
    """TFLOP/s of FLUX.1's attention at 1024x1024 and at 1440x1440, by PyTorch's choice and by cuDNN."""
    scale, speed = bench.scale, bench.gpu.speed
    is_cpu = scale.device == "cpu"
    heads, lengths = (2, (96,)) if is_cpu else (HEADS, (4608, 8704))
    peak = speed.half_tflops if speed is not None else None
    for length in lengths:
        query = torch.randn(1, heads, length, HEAD_WIDTH, device=scale.device, dtype=getattr(torch, scale.dtype))
        flop = 4.0 * length**2 * heads * HEAD_WIDTH
        for name, attend in (("native", _attended), *((("cudnn", _attended_by_cudnn),) if not is_cpu else ())):
            way = f"attention, {name}, {length} tokens"
            bench.attempt(way, partial(_rate, bench, way, partial(attend, query), flop=flop, peak=peak))


def _attended(query: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(query, query, query)


def _attended_by_cudnn(query: Tensor) -> Tensor:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return _attended(query)


def _copies(bench: Bench) -> None:
    """GB/s within the device's memory, and from the host's, pinned and pageable."""
    scale, speed = bench.scale, bench.gpu.speed
    on_host = torch.empty((COPIED_MIB if scale.device == "cuda" else 16) * MIB, dtype=torch.uint8)
    on_device = on_host.to(scale.device)
    target = torch.empty_like(on_device)
    size = on_device.numel() / 1e9
    seconds, _ = seconds_of(lambda: target.copy_(on_device), repeats=REPEATS)
    # A copy reads and writes.
    bench.row("copy", 2 * size / seconds, "GB/s", reckoned=speed.bandwidth_gb_s if speed is not None else None)
    if scale.device == "cuda":
        for name, source in (("pageable", on_host), ("pinned", on_host.pin_memory())):
            seconds, _ = seconds_of(partial(target.copy_, source), repeats=REPEATS)
            bench.row(f"host to device, {name}", size / seconds, "GB/s")
