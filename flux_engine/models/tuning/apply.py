"""Carrying out a Plan on a loaded pipeline, in the order that works, and saying what really took effect.

Attention, then the VAE, then where the parts are, then the step cache, and compilation last, since it freezes what the
others change. Where a package or the hardware lacks a choice, the next one of its chain is tried and the fallback is
reported, not raised. Dtype and quantisation belong to loading (`quantisation.loading`) and are only read here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from flux_engine.models.planning.plan import Plan, pixel_way_of, precision_of
from flux_engine.models.tuning.compilation import compile_failure
from flux_engine.models.tuning.fallback import Fallback, FallbackNoted
from flux_engine.models.tuning.quantisation import quantisation_of
from flux_engine.models.tuning.step_cache import begin_call, enable_step_cache
from flux_engine.settings import Offload, Quantisation

OFFLOAD_CHAIN: Final[dict[Offload, tuple[Offload, ...]]] = {
    "none": ("none",),
    "text": ("text", "none"),
    "balanced": ("balanced",),
    "model": ("model", "group", "none"),
    "group": ("group", "model", "none"),
    "sequential": ("sequential", "group", "none"),
}
RECOMPILE_LIMIT: Final = 64
LATENT_SCALE: Final = 8  # pixels of a latent's side


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedPlan:
    """What took effect of a plan, and what fell back."""

    plan: Plan
    dtype: str
    quantisations: dict[str, Quantisation]
    attention: str
    offload: Offload
    vae_tile_side: int
    has_step_cache: bool
    is_compiled: bool
    fallbacks: tuple[Fallback, ...]

    @property
    def precision(self) -> str:
        """As Plan.precision, of what took effect."""
        return precision_of(self.dtype, self.quantisations)

    @property
    def pixel_way(self) -> str:
        """As Plan.pixel_way, of what took effect."""
        threshold = self.plan.step_cache_threshold if self.has_step_cache else None
        return pixel_way_of(self.quantisations, threshold, self.vae_tile_side)

    @property
    def is_quantised(self) -> bool:
        return any(scheme != "none" for scheme in self.quantisations.values())

    def to_dict(self) -> dict[str, Any]:
        """For the result under `model`, the log, or a file."""
        return {
            "profile": self.plan.profile,
            "dtype": self.dtype,
            "quantisation": {name: scheme for name, scheme in self.quantisations.items() if scheme != "none"},
            "attention": self.attention,
            "offload": self.offload,
            "vae_tile_side": self.vae_tile_side,
            "step_cache": self.plan.step_cache_threshold if self.has_step_cache else None,
            "compiled": self.is_compiled,
            "peak_bytes_planned": self.plan.peak_bytes,
            "refused": [f"{one.choice} {one.wanted}: {one.why}" for one in self.fallbacks],
            "reasons": self.plan.reasons,
        }

    def begin_call(self, pipeline: Any, *, num_inference_steps: int, has_true_cfg: bool = False) -> None:
        """To be called before each call of a pipeline, so that nothing of the last one stays in the step cache."""
        if self.has_step_cache and self.plan.step_cache_threshold is not None:
            begin_call(
                pipeline,
                self.plan.step_cache_threshold,
                num_inference_steps=num_inference_steps,
                has_true_cfg=has_true_cfg,
                blocks=_block_count(pipeline.transformer),
            )


def apply(pipeline: Any, plan: Plan, *, device: str, fallbacks: tuple[Fallback, ...] = ()) -> AppliedPlan:
    """Carry out `plan` on a pipeline loaded with its `loading` arguments, whose fallbacks come in."""
    _want_no_gradients(pipeline)
    noted = list(fallbacks)
    quantisations = {part.component: quantisation_of(getattr(pipeline, part.component)) for part in plan.parts}
    attention = _apply_attention(pipeline.transformer, plan.attention, device=device, fallbacks=noted)
    _apply_vae(pipeline.vae, plan)
    offload = _apply_offload(pipeline, plan.offload, device=device, fallbacks=noted)
    has_step_cache = _apply_step_cache(pipeline, plan, noted)
    is_compiled = plan.compile and _apply_compile(pipeline.transformer, device=device, fallbacks=noted)
    return AppliedPlan(
        plan=plan,
        dtype=str(pipeline.transformer.dtype).removeprefix("torch."),
        quantisations=quantisations,
        attention=attention,
        offload=offload,
        vae_tile_side=plan.vae_tile_side,
        has_step_cache=has_step_cache,
        is_compiled=is_compiled,
        fallbacks=tuple(noted),
    )


def tile(vae: Any, side: int) -> None:
    """Decode in tiles of `side` pixels. It is set too: FLUX's own, 1024 pixels, would leave a 1024 picture whole."""
    vae.enable_tiling()
    vae.tile_sample_min_size = side
    vae.tile_latent_min_size = side // LATENT_SCALE


def _want_no_gradients(pipeline: Any) -> None:
    """Quantised weights want none, those reloaded from a checkpoint do: two keys of the compiled code's cache. Streamed
    to a GPU, those that do keep the graph of their copy, and torch refuses to put the next copy in their place."""
    from torch import nn

    for component in pipeline.components.values():
        if isinstance(component, nn.Module):
            component.requires_grad_(False)


def _apply_attention(transformer: Any, candidates: tuple[str, ...], *, device: str, fallbacks: list[Fallback]) -> str:
    """The first backend that runs one small attention here: some are accepted by name and fail when called."""
    import torch
    from diffusers.models.attention_dispatch import dispatch_attention_fn

    heads, width = transformer.config.num_attention_heads, transformer.config.attention_head_dim
    for name in candidates:
        with FallbackNoted(fallbacks, choice="attention", wanted=name):
            transformer.set_attention_backend(name)
            query = torch.ones(1, 128, heads, width, device=device, dtype=transformer.dtype)
            dispatch_attention_fn(query, query, query)
            return name
    transformer.set_attention_backend("native")
    return "native"


def _apply_vae(vae: Any, plan: Plan) -> None:
    if plan.vae_slicing:
        vae.enable_slicing()
    tile(vae, plan.vae_tile_side)


def _apply_offload(pipeline: Any, wanted: Offload, *, device: str, fallbacks: list[Fallback]) -> Offload:
    for offload in OFFLOAD_CHAIN[wanted]:
        with FallbackNoted(fallbacks, choice="offload", wanted=offload):
            _place(pipeline, offload, device=device)
            return offload
    return "none"


def _place(pipeline: Any, offload: Offload, *, device: str) -> None:
    if device == "cpu" and offload in ("model", "sequential"):
        raise ValueError("a machine without a GPU has nothing to offload from")
    match offload:
        case "none":
            if getattr(pipeline, "hf_device_map", None) is None:
                pipeline.to(device)
        case "text":
            _stream_text(pipeline, device=device)
        case "balanced":
            pass  # `from_pretrained` has spread the parts already
        case "model":
            pipeline.enable_model_cpu_offload(device=device)
        case "group":
            _offload_groups(pipeline, device=device)
        case "sequential":
            pipeline.enable_sequential_cpu_offload(device=device)


def _offload_groups(pipeline: Any, *, device: str) -> None:
    """The transformer block by block, the text encoders layer by layer, the VAE on the device.

    By blocks a text encoder would come whole, since its layers are no direct children; and the decoder of FLUX.2's VAE
    would not come at all, since it is called past `forward`, where the hooks are.
    """
    pipeline.transformer.enable_group_offload(**_between(device), offload_type="block_level", num_blocks_per_group=1)
    for encoder in _text_encoders(pipeline):
        _stream(encoder, device=device)
    pipeline.vae.to(device)


def _stream_text(pipeline: Any, *, device: str) -> None:
    """The largest text encoder comes layer by layer while a prompt is encoded; all else stays on the device."""
    from torch import nn

    largest = max(_text_encoders(pipeline), key=lambda encoder: sum(weight.numel() for weight in encoder.parameters()))
    for component in pipeline.components.values():
        if isinstance(component, nn.Module) and component is not largest:
            nn.Module.to(component, device)  # the libraries' own `to` rejects some quantised components
    _stream(largest, device=device)


def _stream(encoder: Any, *, device: str) -> None:
    from diffusers.hooks import apply_group_offloading

    apply_group_offloading(encoder, **_between(device), offload_type="leaf_level")


def _between(device: str) -> dict[str, Any]:
    """Where offloaded layers run and where they rest; on a GPU they are copied while the layer before runs."""
    import torch

    return {
        "onload_device": torch.device(device),
        "offload_device": torch.device("cpu"),
        "use_stream": device == "cuda",
    }


def _text_encoders(pipeline: Any) -> list[Any]:
    return [part for name, part in pipeline.components.items() if name.startswith("text_encoder") and part is not None]


def _apply_step_cache(pipeline: Any, plan: Plan, fallbacks: list[Fallback]) -> bool:
    if plan.step_cache_threshold is None:
        return False
    with FallbackNoted(fallbacks, choice="step_cache", wanted="cache-dit"):
        enable_step_cache(pipeline, plan.step_cache_threshold, blocks=_block_count(pipeline.transformer))
        return True
    return False


def _apply_compile(transformer: Any, *, device: str, fallbacks: list[Fallback]) -> bool:
    """Compile the repeated blocks for any size: whole-model compilation takes seven times as long."""
    if (why := compile_failure(device)) is not None:
        fallbacks.append(Fallback(choice="compile", wanted="repeated blocks", why=why))
        return False
    with FallbackNoted(fallbacks, choice="compile", wanted="repeated blocks"):
        _prepare_dynamo()
        transformer.compile_repeated_blocks(fullgraph=True, dynamic=True)
        return True
    return False


def _prepare_dynamo() -> None:
    """torch gives up at 8 recompilations of each block's code, with an error. Two are the warm-up's; each rank of the
    LoRA slot, a batch of frames, and another model of the same class take two more (measured).

    Floats of the modules are constants: a slot holds a LoRA's scale in its weights. By default torch traces a block
    with symbols in their place, finds that some cannot be, and traces it again; and what it traced in vain is in no
    cache, so that later workers did so as well.
    """
    import torch._dynamo

    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, RECOMPILE_LIMIT)
    torch._dynamo.config.specialize_float = True


def _block_count(transformer: Any) -> int:
    return int(transformer.config.num_layers) + int(transformer.config.num_single_layers)
