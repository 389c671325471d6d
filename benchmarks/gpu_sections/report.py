"""The table at the end, and the constants that the findings imply, beside those that plans reckon with."""

from __future__ import annotations

from typing import Any, Final

from benchmarks.gpu_sections.bench import Bench, Row
from flux_engine.models.planning.estimate import (
    BYTES_OF_DTYPE,
    PIXELS_OF_TOKEN,
    VAE_VALUES_OF_PIXEL,
    VAE_VALUES_OF_PIXEL_ON_CPU,
)
from flux_engine.models.planning.seconds import GROUP_BYTES_PER_S, MODEL_OFFLOAD_BYTES_PER_S, SLOT_TRAFFIC, step_flop
from flux_engine.units import GIB

MAX_ROWS: Final = 40
SHOWN: Final = (
    "plain",
    "ours",
    "settle",
    "gemm",
    "numbers",
    "cache",
    "blob",
    "memory",
    "offload",
    "bundled",
    "kernels",
    "env",
)
PLAIN: Final = "diffusers"


def table(bench: Bench) -> str:
    """`way | reckoned | measured | ratio | x plain | peak` in Markdown; the most telling sections first."""
    rows = sorted(bench.rows, key=lambda row: SHOWN.index(row.section))[:MAX_ROWS]
    plain = _measured(bench, PLAIN, "s")
    head = ("section", "way", "reckoned", "measured", "ratio", "x plain", "peak GiB")
    lines = [head, ("---",) * len(head), *(_cells(row, plain) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def constants_table(bench: Bench) -> str:
    """Each constant: what plans reckon with and what this run implies."""
    found = constants(bench)
    head = ("constant", "plans reckon with", "this run implies")
    rows = [(name, _figure(one["ours"]), _figure(one["measured"])) for name, one in found["all"].items()]
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def constants(bench: Bench) -> dict[str, Any]:
    """`shares` go into the table of cards by `builder.calibrate`; `all` is for a reader."""
    shares = _shares(bench)
    ours = bench.gpu.speed.shares if bench.gpu.speed is not None else None
    found: dict[str, tuple[float | None, float | None]] = {
        f"share of the peak, {name}": (getattr(ours, name, None), value) for name, value in shares.items()
    }
    values = VAE_VALUES_OF_PIXEL_ON_CPU if bench.gpu.is_cpu else VAE_VALUES_OF_PIXEL
    figures = bench.figures
    is_cpu = bench.gpu.is_cpu
    found |= {
        "SLOT_TRAFFIC": (SLOT_TRAFFIC, _slot_traffic(bench)),
        "VAE_VALUES_OF_PIXEL": (values, _number(figures.get("values of a decoded pixel"))),
        "block_values": (bench.scale.spec.shape.block_values, _number(figures.get("values of a token in a block"))),
        "share of a cached step": (None, _number(figures.get("share of a cached step"))),
        "GROUP_BYTES_PER_S": (GROUP_BYTES_PER_S, None if is_cpu else _rate(bench, "prompt, encoder streamed: rate")),
        "MODEL_OFFLOAD_BYTES_PER_S": (
            MODEL_OFFLOAD_BYTES_PER_S,
            None if is_cpu else _rate(bench, "prompt, encoder moved: rate"),
        ),
    }
    everything = {name: {"ours": mine, "measured": measured} for name, (mine, measured) in found.items()}
    return {"shares": {name: round(value, 3) for name, value in shares.items()}, "all": everything}


def _shares(bench: Bench) -> dict[str, float]:
    """Of the card's peaks, by the arithmetic of seconds.py turned around; empty on a device without known peaks."""
    speed, scale = bench.gpu.speed, bench.scale
    if speed is None:
        return {}
    linear, attention = step_flop(scale.spec, pixels=scale.side**2)
    half = (linear + attention) / (speed.half_tflops * 1e12)
    found: dict[str, float] = {}
    eager = _measured(bench, f"{PLAIN}: step", "ms a step")
    compiled = _step_of(bench, "ours, quality")
    low, int8 = _step_of(bench, "ours, speed (fp8"), _step_of(bench, "ours, int8")
    if eager is not None:
        found["eager"] = half / (eager / 1000)
    if compiled is not None:
        found["compiled"] = half / (compiled / 1000)
    if low is not None and speed.low_tflops is not None:
        mixed = linear / (speed.low_tflops * 1e12) + attention / (speed.half_tflops * 1e12)
        found["low"] = mixed / (low / 1000)
    if int8 is not None and compiled is not None:
        found["int8_gain"] = compiled / int8
    return found


def _slot_traffic(bench: Bench) -> float | None:
    """Reads and writes of the slot for each token and feature, by the difference of two steps."""
    speed, scale = bench.gpu.speed, bench.scale
    without, with_slot = _step_of(bench, "ours, speed"), _step_of(bench, "ours, speed", has_slot=True)
    if speed is None or without is None or with_slot is None:
        return None
    tokens = scale.side**2 // PIXELS_OF_TOKEN + scale.spec.limits.max_sequence_length
    moved = (with_slot - without) / 1000 * speed.bandwidth_gb_s * 1e9
    return moved / (tokens * scale.spec.shape.linear_sides * BYTES_OF_DTYPE["bfloat16"])


def _step_of(bench: Bench, way: str, *, has_slot: bool = False) -> float | None:
    ending = ", with a LoRA: step" if has_slot else "): step"
    return next((row.measured for row in bench.rows if row.way.startswith(way) and row.way.endswith(ending)), None)


def _rate(bench: Bench, way: str) -> float | None:
    measured = _measured(bench, way, "GB/s")
    return None if measured is None else measured * 1e9


def _measured(bench: Bench, way: str, unit: str) -> float | None:
    return next((row.measured for row in bench.rows if row.way == way and row.unit == unit), None)


def _number(value: object) -> float | None:
    return value if isinstance(value, float) else None


def _cells(row: Row, plain: float | None) -> tuple[str, ...]:
    is_picture = row.unit == "s" and row.section in ("plain", "ours") and ":" not in row.way
    return (
        row.section,
        row.way,
        _figure(row.reckoned),
        f"{_figure(row.measured)} {row.unit}".strip(),
        f"{row.measured / row.reckoned:.2f}" if row.reckoned else "",
        f"{plain / row.measured:.2f}" if is_picture and plain is not None else "",
        f"{row.peak_bytes / GIB:.2f}" if row.peak_bytes is not None else "",
    )


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if value < 1e5 else f"{value:.2e}"
