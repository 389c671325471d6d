"""What is measured on a device: the real shape on a GPU, and on a CPU a small one that exercises the same code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from flux_engine.models.catalog import FLUX_1_DEV, FLUX_TINY
from flux_engine.models.planning.plan import DType, Preferences
from flux_engine.models.spec import ModelSpec

DeviceName = Literal["cuda", "cpu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Sizes and counts. Sides are of square pictures, in pixels."""

    device: DeviceName
    spec: ModelSpec
    side: int
    other_sides: tuple[int, ...]  # pictures that must not compile anything again
    steps: int  # of a timed picture
    repeats: int
    decodes: tuple[tuple[int, int], ...]  # sides of a picture and of the tiles that it is decoded in
    denoised_sides: tuple[int, ...]
    gemm_rows: int
    gemm_widths: tuple[int, ...]
    ways: tuple[tuple[str, Preferences], ...]  # by name: what plans are made with
    step_way: Preferences  # of sections that are about steps and not about how they are compiled
    blob_sides: tuple[int, ...]  # pictures that a worker of the section `blob` warms up with

    @property
    def dtype(self) -> DType:
        return "bfloat16" if self.device == "cuda" else "float32"

    @property
    def fastest(self) -> Preferences:
        return dict(self.ways)["speed"]


def _wishes(**given: object) -> Preferences:
    """A way that stays on the device and computes every step."""
    return Preferences(**({"offload": "none", "step_cache": False, "is_kept_warm": True} | given))  # type: ignore[arg-type]


ON_A_GPU: Final = Scale(
    device="cuda",
    spec=FLUX_1_DEV,
    side=1024,
    other_sides=(512, 1440),
    steps=10,
    repeats=3,
    decodes=((1024, 512), (1024, 1024), (1440, 1024), (2048, 1024), (2048, 2048)),
    denoised_sides=(1024, 1440, 2048),
    gemm_rows=4608,
    gemm_widths=(3072, 9216, 12288, 15360),
    ways=(
        ("quality", _wishes(profile="quality")),
        ("speed", _wishes(profile="speed")),
        ("int8", _wishes(profile="speed", quantisation="int8_dynamic")),
    ),
    step_way=_wishes(profile="speed"),
    blob_sides=(1024, 512),
)
ON_A_CPU: Final = Scale(
    device="cpu",
    spec=FLUX_TINY,
    side=64,
    other_sides=(96,),
    steps=2,
    repeats=1,
    decodes=((128, 64), (128, 128)),
    denoised_sides=(64, 128),
    gemm_rows=96,
    gemm_widths=(128, 512),
    ways=(("speed", _wishes(profile="speed", quantisation="none", compile=True)),),  # int8 takes longer to trace
    step_way=_wishes(profile="speed", quantisation="int8_weight_only", compile=False),
    blob_sides=(64,),
)
