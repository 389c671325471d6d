"""Which shares of its peak rates a card reaches with FLUX: measured, published, or interpolated.

`calibration.json` holds an entry a card with its origin; `python -m builder.calibrate gpu.json` writes what
`benchmarks.gpu` measured into it. A card without an entry gets the curve through the published runs: the less
power it has for its peak rate, the smaller the share.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

FILE: Final = Path(__file__).with_name("calibration.json")
# share = at_reference x (watts per TFLOP/s / reference) ** slope, through published runs of FLUX.1-dev at 1024x1024 in
# 28 steps: a card that has little power for its peak does not hold its clock. Eager and compiled: L20 (2.3 W) 23.6 and
# 20.3 s, sglang #19673; H100 (0.71 W), B200 (0.44 W) as in calibration.json. Capped at the L20, the best published.
EAGER_CURVE: Final = (0.33, 0.71, 0.695, 0.745)
COMPILED_CURVE: Final = (0.452, 0.444, 0.35, 0.868)
# In 8 bits, of the bound that has the Linear layers at the 8-bit rate and attention at the half rate: B200 (0.22 W),
# H100 (0.35 W) and RTX 4090 (1.36 W) as in calibration.json.
LOW_CURVE: Final = (0.305, 0.222, 0.597, 0.9)
# int8 with torch.compile against bfloat16 with it: 4.2 s and 3.38 s on an H100 under max-autotune, diffusers-torchao.
# The product is written in int32 and read back, so the card's int8 rate says little; and an H100 without max-autotune
# takes kernels of the A100 for it and gains nothing (0.86, its own entry).
INT8_GAIN: Final = 1.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Shares of the dense peak that the denoising loop reaches. `origin` None: interpolated, nothing is published."""

    eager: float
    compiled: float
    low: float  # fp8, of the mixed bound
    int8_gain: float = INT8_GAIN
    origin: str | None = None


def shares_of(card: str, *, half_w: float, low_w: float) -> Shares:
    """The shares of the card of that name; what its entry leaves out is interpolated from its watts per TFLOP/s in half
    and in 8-bit precision."""
    entry: dict[str, Any] = ENTRIES.get(card, {})
    return Shares(
        eager=entry.get("eager", _on(EAGER_CURVE, half_w)),
        compiled=entry.get("compiled", _on(COMPILED_CURVE, half_w)),
        low=entry.get("low", _on(LOW_CURVE, low_w)),
        int8_gain=entry.get("int8_gain", INT8_GAIN),
        origin=entry.get("origin"),
    )


def _on(curve: tuple[float, float, float, float], watts: float) -> float:
    at_reference, reference, slope, most = curve
    return min(most, at_reference * float((watts / reference) ** slope))


ENTRIES: Final[dict[str, dict[str, Any]]] = json.loads(FILE.read_text(encoding="utf-8"))
