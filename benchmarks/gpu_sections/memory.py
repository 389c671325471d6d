"""Section `memory`: peaks of decoding and of a denoising step beside what plans count for them."""

from __future__ import annotations

from functools import partial

import torch

from benchmarks.gpu_sections.bench import Bench
from benchmarks.gpu_sections.clock import peak_memory
from benchmarks.gpu_sections.random_flux import autoencoder, transformer, velocity
from flux_engine.models.planning.estimate import BYTES_OF_DTYPE, PIXELS_OF_TOKEN, part_plans, vae_share, working_bytes
from flux_engine.models.planning.way import Way
from flux_engine.models.tuning.apply import LATENT_SCALE, tile
from flux_engine.units import MIB


def memory(bench: Bench) -> None:
    """The VAE by sizes and tiles, then the transformer by sizes."""
    for side, tile_side in bench.scale.decodes:
        bench.attempt(f"decoding {side}", partial(_decode, bench, side, tile_side))
    bench.attempt("denoising", lambda: _denoise(bench))


@torch.no_grad()
def _decode(bench: Bench, side: int, tile_side: int) -> None:
    scale, spec = bench.scale, bench.scale.spec
    vae = autoencoder(scale)
    tile(vae, tile_side)
    shape = (1, vae.config.latent_channels, side // LATENT_SCALE, side // LATENT_SCALE)
    latents = torch.randn(shape, device=scale.device, dtype=getattr(torch, scale.dtype))
    with peak_memory(scale) as peak:
        vae.decode(latents, return_dict=False)
    weights = sum(weight.numel() * weight.element_size() for weight in vae.parameters())
    taken = peak.allocated - (weights if scale.device == "cuda" else 0)
    way = Way(
        dtype=scale.dtype,
        transformer="none",
        text="none",
        offload="none",
        tile_side=tile_side,
        is_compiled=False,
        threshold=None,
    )
    counted = working_bytes(spec, part_plans(spec, way), way, pixels=side**2, is_cpu=bench.gpu.is_cpu)
    bench.row(f"decoding {side}x{side}, tiles of {tile_side}", taken / MIB, "MiB", reckoned=counted / MIB)
    pixels = min(side, tile_side) ** 2
    bench.figures["values of a decoded pixel"] = taken / (pixels * BYTES_OF_DTYPE[scale.dtype] * vae_share(spec))


def _denoise(bench: Bench) -> None:
    scale, spec = bench.scale, bench.scale.spec
    module = transformer(scale)
    weights = sum(weight.numel() * weight.element_size() for weight in module.parameters())
    for side in scale.denoised_sides:
        with peak_memory(scale) as peak:
            velocity(scale, module, side=side)
        taken = peak.allocated - (weights if scale.device == "cuda" else 0)
        tokens = side**2 // PIXELS_OF_TOKEN + spec.limits.max_sequence_length
        of_a_value = tokens * spec.shape.width * BYTES_OF_DTYPE[scale.dtype]
        counted = of_a_value * spec.shape.block_values
        bench.row(f"one step at {side}x{side}", taken / MIB, "MiB", reckoned=counted / MIB)
        bench.figures["values of a token in a block"] = taken / of_a_value
