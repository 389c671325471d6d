"""Published and measured runs that the estimates are held against.

`is_fitted` runs are what the constants of `calibration.py` and `seconds.py` were taken from, the others are held out: a
test allows the estimates 15 % and 30 %. docs/gpus.md shows both. Each is FLUX.1-dev at 1024x1024 in 28 steps unless it
says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from flux_engine.models import catalog
from flux_engine.models.planning.estimate import part_plans
from flux_engine.models.planning.gpus import CARDS, L20, GpuProperties
from flux_engine.models.planning.seconds import PictureTime, picture_time
from flux_engine.models.planning.way import Way
from flux_engine.models.spec import ModelSpec
from flux_engine.settings import Offload, Quantisation


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """One run and how it was made."""

    card: str
    seconds: float
    source: str
    is_fitted: bool
    model: ModelSpec = catalog.FLUX_1_DEV
    steps: int = 28
    quantisation: Quantisation = "none"
    offload: Offload = "none"
    is_compiled: bool = False
    threshold: float | None = None
    has_lora: bool = False

    @property
    def way(self) -> Way:
        return Way(
            dtype="bfloat16",
            transformer=self.quantisation,
            text="none",
            offload=self.offload,
            tile_side=2048,
            is_compiled=self.is_compiled,
            threshold=self.threshold,
        )

    def describe(self) -> str:
        """The run in a few words."""
        words = [
            self.model.name,
            "bf16" if self.quantisation == "none" else self.quantisation.partition("_")[0],
            "compiled" if self.is_compiled else "eager",
            f"{self.offload} offload" if self.offload != "none" else "",
            "step cache" if self.threshold else "",
            "with a LoRA" if self.has_lora else "",
            f"{self.steps} steps" if self.steps != self.model.limits.num_inference_steps else "",
        ]
        return ", ".join(word for word in words if word)

    def estimate(self) -> float:
        """The seconds that a plan would say for this run."""
        speed = card_of(self.card).speed
        assert speed is not None  # noqa: S101 - every card of the table has one
        time: PictureTime = picture_time(
            self.model,
            speed,
            part_plans(self.model, self.way),
            self.way,
            steps=self.steps,
            pixels=self.model.limits.side**2,
        )
        return time.total + (time.slot if self.has_lora else 0.0)


def has_run_of(model: ModelSpec, offload: Offload) -> bool:
    """Whether a run of that architecture with that offload is published, on whatever card."""
    return any(anchor.model.shape == model.shape and anchor.offload == offload for anchor in ANCHORS)


def card_of(name: str) -> GpuProperties:
    return next(card for card in (*CARDS, L20) if card.name == name)


H100: Final = "NVIDIA H100 80GB HBM3"
H200: Final = "NVIDIA H200"
A100: Final = "NVIDIA A100 80GB PCIe"
L40S: Final = "NVIDIA L40S"
B200: Final = "NVIDIA B200"
RTX_4090: Final = "NVIDIA GeForce RTX 4090"
DIFFUSERS_DOCS: Final = "diffusers, published for an L20"
TORCHAO: Final = "sayakpaul/diffusers-torchao"
ELASTIC: Final = "TheStageAI/Elastic-FLUX.1-dev"
PARA: Final = "chengzeyi/ParaAttention"
LORA_FAST: Final = "Hugging Face, fast LoRA inference"
DIFFUSERS_CI: Final = "diffusers, benchmark CI"
SGLANG: Final = "sgl-project/sglang #19673"
CACHE_DIT: Final = "huggingface/flux-fast #13"
MEASURED: Final = "benchmarks.gpu with torch 2.11 (docs/measuring-gpus.md)"
SLOW: Final = f"{MEASURED}, with a kernel that is called no longer"

ANCHORS: Final = (
    Anchor(card=H100, seconds=5.31, source=MEASURED, is_fitted=True),
    Anchor(card=H100, seconds=3.97, source=MEASURED, is_fitted=True, is_compiled=True),
    Anchor(card=H100, seconds=2.97, source=TORCHAO, is_fitted=True, is_compiled=True, quantisation="fp8_dynamic"),
    Anchor(card=A100, seconds=13.8, source=PARA, is_fitted=True),
    Anchor(card=A100, seconds=10.0, source=PARA, is_fitted=True, is_compiled=True),
    Anchor(card=L40S, seconds=13.8, source=DIFFUSERS_CI, is_fitted=True),
    Anchor(card=L40S, seconds=10.5, source=DIFFUSERS_CI, is_fitted=True, is_compiled=True),
    Anchor(card=L40S, seconds=9.22, source=ELASTIC, is_fitted=True, is_compiled=True, quantisation="fp8_dynamic"),
    Anchor(card=B200, seconds=4.4, source=ELASTIC, is_fitted=True),
    Anchor(card=B200, seconds=2.13, source=ELASTIC, is_fitted=True, is_compiled=True),
    Anchor(card=B200, seconds=1.9, source=ELASTIC, is_fitted=True, is_compiled=True, quantisation="fp8_dynamic"),
    Anchor(card=L20.name, seconds=23.6, source=SGLANG, is_fitted=True),
    Anchor(card=L20.name, seconds=20.3, source=SGLANG, is_fitted=True, is_compiled=True),
    Anchor(card="NVIDIA A40", seconds=30.3, source="a run published for the A40", is_fitted=True),
    Anchor(card=RTX_4090, seconds=35.4, source=LORA_FAST, is_fitted=True, offload="model", has_lora=True),
    Anchor(
        card=RTX_4090, seconds=31.2, source=LORA_FAST, is_fitted=True, offload="model", is_compiled=True, has_lora=True
    ),
    Anchor(
        card=RTX_4090,
        seconds=9.67,
        source=LORA_FAST,
        is_fitted=True,
        is_compiled=True,
        quantisation="fp8_dynamic",
        has_lora=True,
    ),
    Anchor(
        card=RTX_4090,
        seconds=8.0,
        source="aredden/flux-fp8-api, kernels of its own",
        is_fitted=False,
        is_compiled=True,
        quantisation="fp8_dynamic",
    ),
    Anchor(
        card=H100,
        seconds=4.3,
        source=f"{LORA_FAST}, without flash attention 3",
        is_fitted=False,
        is_compiled=True,
        quantisation="fp8_dynamic",
        has_lora=True,
    ),
    Anchor(
        card=H100,
        seconds=3.55,
        source=f"{LORA_FAST}, with flash attention 3",
        is_fitted=False,
        is_compiled=True,
        quantisation="fp8_dynamic",
        has_lora=True,
    ),
    Anchor(card=H100, seconds=4.42, source=MEASURED, is_fitted=False, is_compiled=True, has_lora=True),
    Anchor(card=H100, seconds=3.67, source=SLOW, is_fitted=False, is_compiled=True, quantisation="fp8_dynamic"),
    Anchor(card=H100, seconds=5.15, source=SLOW, is_fitted=False, is_compiled=True, quantisation="int8_dynamic"),
    Anchor(card=H100, seconds=6.5, source=f"{TORCHAO}, an earlier PyTorch", is_fitted=False),
    Anchor(card=H100, seconds=4.2, source=TORCHAO, is_fitted=False, is_compiled=True),
    Anchor(card=L20.name, seconds=12.8, source=SGLANG, is_fitted=False, is_compiled=True, threshold=0.12),
    Anchor(card=L20.name, seconds=56.0, source=DIFFUSERS_DOCS, is_fitted=False, offload="model"),
    Anchor(card=L20.name, seconds=335.0, source=DIFFUSERS_DOCS, is_fitted=True, offload="sequential"),
    Anchor(card=H200, seconds=5.58, source=SGLANG, is_fitted=False),
    Anchor(card=H200, seconds=4.32, source=SGLANG, is_fitted=False, is_compiled=True),
    Anchor(card=H200, seconds=2.38, source=SGLANG, is_fitted=False, is_compiled=True, threshold=0.12),
    Anchor(card=L40S, seconds=16.0, source=ELASTIC, is_fitted=False),
    Anchor(card=L40S, seconds=14.4, source=ELASTIC, is_fitted=False, is_compiled=True),
    Anchor(
        card="NVIDIA RTX 6000 Ada Generation",
        seconds=10.0,
        source="aredden/flux-fp8-api, kernels of its own",
        is_fitted=False,
        is_compiled=True,
        quantisation="fp8_dynamic",
    ),
    Anchor(card=H100, seconds=1.13, source=CACHE_DIT, is_fitted=False, model=catalog.FLUX_1_SCHNELL, steps=4),
    Anchor(
        card=H100,
        seconds=0.72,
        source=CACHE_DIT,
        is_fitted=False,
        model=catalog.FLUX_1_SCHNELL,
        steps=4,
        is_compiled=True,
    ),
    Anchor(
        card=H100, seconds=0.57, source="inferencebench.io", is_fitted=False, model=catalog.FLUX_2_KLEIN_4B, steps=4
    ),
    Anchor(
        card="NVIDIA GeForce RTX 5090",
        seconds=1.2,
        source="ComfyUI, fp8 weights and nothing compiled",
        is_fitted=False,
        model=catalog.FLUX_2_KLEIN_4B,
        steps=4,
    ),
)
# Published, and no measure of these plans: the RTX 5090's 5.53 s of Elastic-FLUX.1-dev in 8 bits is beyond the card's
# peak with float32 accumulation, so its kernels accumulate in half precision, which torchao's do not. An
# H100's 3.38 s in int8 (diffusers-torchao) are of max-autotune, whose products scale in place; without, as here, int8
# took longer than bfloat16.
