"""Why a plan is as it is, in one sentence for each choice, with what the next best way would have cost."""

from __future__ import annotations

from typing import Final

from flux_engine.models.planning.gpus import GpuProperties
from flux_engine.models.planning.plan import DYNAMIC, MIN_CACHED_STEPS, Plan, Preferences
from flux_engine.models.planning.way import FEW_STEPS, STAYING, steps_of
from flux_engine.models.spec import ModelSpec
from flux_engine.units import GIB

DTYPES: Final = {
    "bfloat16": "bfloat16 runs at full rate from compute capability 8.0",
    "float16": "no bfloat16 before compute capability 8.0, and this model's blocks clip what float16 cannot hold",
    "float32": "exact, and a small model on a CPU is as quick in it",
}
QUANTISATIONS: Final = {
    "none": "the weights stay as they are",
    "int8_weight_only": "half the bytes, each product at full precision",
    "int8_dynamic": "half the bytes, and this card's int8 matrix units",
    "fp8_tensor": "half the bytes, and fp8 matrix units, with one scale for each matrix",
    "fp8_dynamic": "half the bytes, and fp8 matrix units, from compute capability 8.9",
}
OFFLOADS: Final = {
    "none": "everything stays on the device",
    "text": "the largest text encoder comes layer by layer for each prompt; the transformer and the VAE stay",
    "balanced": "the model is spread over all GPUs",
    "model": "the parts take turns on the device",
    "group": "the blocks come to the device one after the other, the next one while one runs",
    "sequential": "layer by layer: slow, but it needs least",
}


def reasons_of(plan: Plan, gpu: GpuProperties, model: ModelSpec, wishes: Preferences) -> dict[str, str]:
    """A sentence for each choice of `plan`, the wishes that were declined included."""
    reasons = {
        "fits": _fits(plan),
        "dtype": "the model's blocks overflow float16" if _is_widened(plan, gpu) else DTYPES[plan.dtype],
        "quantisation": _quantisation(plan, model.transformer.name),
        "text_quantisation": _quantisation(plan, model.largest_text_encoder.name),
        "offload": "a CPU has nowhere to offload to" if gpu.is_cpu else OFFLOADS[plan.offload],
        "attention": "PyTorch's memory-efficient attention; faster kernels are tried first where the card has them",
        "compile": _compile(plan, gpu, model, wishes),
        "step_cache": _step_cache(plan, model, wishes),
        "vae": f"pictures are decoded one at a time, over {plan.vae_tile_side} pixels a side in tiles",
        "lora_mode": "compiled blocks take LoRAs into one slot of fixed shape"
        if plan.lora_mode == "slot"
        else "adapters come and go freely where nothing is compiled",
        "largest_batch": _largest_batch(plan, gpu),
    }
    if wishes.profile == "quality" and plan.is_quantised and plan.fits:
        reasons["precision"] = "precision is given up: no way without loss fits"
    if wishes.attention_slicing:
        reasons["attention_slicing"] = (
            "FLUX has no sliced attention: its attention never holds the whole matrix. "
            "The VAE is sliced and tiled instead, which is where memory peaks"
        )
    priced = {choice: f"{reason}{_next_best(plan, choice)}" for choice, reason in reasons.items()}
    return priced | _declined(plan, wishes)


def _next_best(plan: Plan, choice: str) -> str:
    other = plan.alternatives.get(choice)
    if other is None:
        return ""
    cost = f"{other.peak_bytes / GIB:.1f} GiB" if plan.seconds is None else ""
    if plan.seconds is not None and other.seconds is not None:
        cost = f"{other.seconds:.1f} s and {other.peak_bytes / GIB:.1f} GiB"
    return f" (next best: {other.value}, {cost})"


def _quantisation(plan: Plan, component: str) -> str:
    scheme = plan.quantisation_of(component)
    if scheme == "none" and plan.dtype == "float16":
        return "8-bit weights overflow float16, the half precision that this card has"
    return QUANTISATIONS[scheme]


def _fits(plan: Plan) -> str:
    figures = f"{plan.peak_bytes / GIB:.1f} GiB at the peak, {plan.limit_bytes / GIB:.1f} GiB may be used"
    if plan.fits:
        return figures
    if plan.peak_bytes <= plan.limit_bytes:
        return f"the host's memory does not hold {plan.host_bytes / GIB:.1f} GiB of offloaded weights"
    return f"nothing fits: even the leanest way needs {figures}"


def _is_widened(plan: Plan, gpu: GpuProperties) -> bool:
    return plan.dtype == "float32" and not gpu.is_cpu


def _compile(plan: Plan, gpu: GpuProperties, model: ModelSpec, wishes: Preferences) -> str:
    if plan.compile:
        return "asked for" if wishes.compile else "the repeated blocks are compiled before the first picture"
    has_few_steps = steps_of(model, wishes) <= FEW_STEPS and not wishes.is_kept_warm
    is_quantised = plan.transformer_quantisation != "none"
    causes = {
        "asked not to": wishes.compile is False,
        "offloaded blocks move while they run": plan.offload not in (*STAYING, "model"),
        "quantised weights that are compiled cannot be moved": plan.offload == "model" and is_quantised,
        "it gains little on this device": gpu.is_cpu or not gpu.has_capability(8, 0),
        "the memory profile starts quickest without": wishes.profile == "memory",
        "so few steps win back no compilation, unless the worker is kept warm": has_few_steps and not is_quantised,
    }
    return next((why for why, holds in causes.items() if holds), "the model is too small")


def _step_cache(plan: Plan, model: ModelSpec, wishes: Preferences) -> str:
    if plan.step_cache_threshold:
        return f"blocks that change less than {plan.step_cache_threshold:g} from step to step are reused"
    steps = steps_of(model, wishes)
    if steps < MIN_CACHED_STEPS:
        return f"{steps} steps are too few: from {MIN_CACHED_STEPS} on"
    if plan.offload not in STAYING:
        return "not together with offloading the transformer"
    return "every step is computed in this profile"


def _largest_batch(plan: Plan, gpu: GpuProperties) -> str:
    if plan.step_cache_threshold:
        return "a step cache decides for all pictures of a call at once"
    if gpu.is_cpu:
        return "one by one on a CPU, which gains nothing by more"
    return "frames of a video that are made in one call, as many as fit beside the weights"


def _declined(plan: Plan, wishes: Preferences) -> dict[str, str]:
    """The wishes that a rule kept from being fulfilled."""
    declined = {}
    if wishes.quantisation not in (None, plan.transformer_quantisation):
        needs = "compilation and " if wishes.quantisation in DYNAMIC and not plan.compile else ""
        declined["declined_quantisation"] = f"{wishes.quantisation} needs {needs}a card that has it"
    if wishes.offload not in (None, plan.offload):
        declined["declined_offload"] = f"{wishes.offload} cannot run on this machine"
    if wishes.compile and not plan.compile:
        declined["declined_compile"] = "not together with this offload, or on this card"
    if wishes.step_cache and plan.step_cache_threshold is None:
        declined["declined_step_cache"] = f"only from {MIN_CACHED_STEPS} steps, where the transformer stays"
    return declined
