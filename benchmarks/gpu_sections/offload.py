"""Sections `offload` and `bundled`: weights that come and go, and a checkpoint that is made and loaded again."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.gpu_sections.bench import Bench
from benchmarks.gpu_sections.clock import seconds_of
from benchmarks.gpu_sections.random_flux import text_encoder, transformer, velocity
from benchmarks.gpu_sections.scale import Scale
from flux_engine.models.catalog import FLUX_TINY
from flux_engine.models.checkpoint import write_checkpoint
from flux_engine.models.loading import Source, load_tuned
from flux_engine.models.planning.optimizer import ModelOptimizer
from flux_engine.models.planning.plan import Preferences
from flux_engine.models.planning.seconds import GROUP_BYTES_PER_S, MODEL_OFFLOAD_BYTES_PER_S
from flux_engine.models.weights import BUNDLED_FOLDER
from flux_engine.settings import Quantisation

KEPT_BLOCKS: Final = (6, 12)  # of a transformer that is streamed: a rate needs no more, and the host's memory less


def offload(bench: Bench) -> None:
    """The text encoder on the device, layer by layer, and moved as a whole; then the transformer block by block."""
    bench.attempt("text encoder", lambda: _text(bench))
    bench.attempt("transformer", lambda: _transformer(bench))


def _text(bench: Bench) -> None:
    scale = bench.scale
    encoder = text_encoder(scale)
    tokens = torch.ones(1, scale.spec.limits.max_sequence_length, dtype=torch.long, device=scale.device)

    @torch.no_grad()
    def encode() -> Any:
        return encoder(tokens)

    encode()
    seconds, _ = seconds_of(encode, repeats=scale.repeats)
    bench.row("prompt, encoder on the device", seconds, "s")

    def there_and_back() -> None:
        encoder.to(scale.device)
        encode()
        encoder.to("cpu")

    there_and_back()
    _rate_row(bench, "prompt, encoder moved", encoder, there_and_back, expected=MODEL_OFFLOAD_BYTES_PER_S)
    _stream(scale, encoder, "leaf_level")
    encode()
    _rate_row(bench, "prompt, encoder streamed", encoder, encode, expected=GROUP_BYTES_PER_S)


def _transformer(bench: Bench) -> None:
    scale = bench.scale
    module = transformer(scale)
    module.transformer_blocks = module.transformer_blocks[: KEPT_BLOCKS[0]]
    module.single_transformer_blocks = module.single_transformer_blocks[: KEPT_BLOCKS[1]]
    _stream(scale, module, "block_level", num_blocks_per_group=1)

    def step() -> Any:
        return velocity(scale, module, side=scale.side)

    step()
    _rate_row(bench, "step, transformer by blocks", module, step, expected=GROUP_BYTES_PER_S)


def bundled(bench: Bench) -> None:
    """The bundled model quantised, kept, and loaded from what was kept: the same picture."""
    gpu, device = bench.gpu, bench.scale.device
    scheme: Quantisation = "int8_weight_only" if gpu.is_cpu else "fp8_dynamic"
    plan = ModelOptimizer().plan(gpu, FLUX_TINY, Preferences(quantisation=scheme, compile=not gpu.is_cpu))
    pictures = []
    with tempfile.TemporaryDirectory() as volume:
        source = Source(folder=BUNDLED_FOLDER, revision="1", volume=Path(volume))
        for name in ("quantised", "from the checkpoint"):
            seconds, tuned = seconds_of(lambda: load_tuned(FLUX_TINY, source, plan, device=device))
            bench.row(f"bundled model, {name}", seconds, "s")
            if tuned.checkpoint is not None and tuned.unsaved is not None:
                write_checkpoint(tuned.checkpoint, tuned.unsaved)
            pictures.append(_picture(tuned.pipeline))
        bench.figures["bundled model runs as"] = tuned.applied.precision
        if not tuned.is_from_checkpoint or not torch.equal(*pictures):
            raise ValueError("the checkpoint was not loaded, or paints another picture")


def _picture(pipeline: Any) -> torch.Tensor:
    made: torch.Tensor = pipeline(
        prompt="a red sun over purple mountains",
        width=128,
        height=128,
        num_inference_steps=2,
        max_sequence_length=32,
        generator=torch.Generator("cpu").manual_seed(7),
        output_type="pt",
    ).images
    return made.cpu()


def _stream(scale: Scale, module: Any, kind: str, **more: Any) -> None:
    from diffusers.hooks import apply_group_offloading

    module.to("cpu")
    apply_group_offloading(
        module,
        onload_device=torch.device(scale.device),
        offload_device=torch.device("cpu"),
        use_stream=scale.device == "cuda",
        offload_type=kind,
        **more,
    )


def _rate_row(bench: Bench, way: str, module: Any, work: Callable[[], Any], *, expected: float) -> None:
    """GB/s of the module's weights; `expected` bytes a second are what plans reckon with."""
    size = sum(weight.numel() * weight.element_size() for weight in module.parameters())
    seconds, _ = seconds_of(work, repeats=bench.scale.repeats)
    bench.row(way, seconds, "s", reckoned=None if bench.gpu.is_cpu else size / expected)
    bench.row(f"{way}: rate", size / seconds / 1e9, "GB/s", reckoned=None if bench.gpu.is_cpu else expected / 1e9)
