"""The image autoencoder of flux-tiny: FLUX's own kind (16 latent channels, 8x), 0.85 M parameters."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Final

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.nn import functional
from tqdm import tqdm

from builder.flux_tiny.checkpoint import Checkpoint, one_cycle
from builder.flux_tiny.landscapes import paint
from builder.flux_tiny.scenes import random_scene

CROP: Final = 64
PICTURES: Final = 4000
POOL_SIZES: Final = ((256, 256), (192, 192), (128, 128), (256, 160), (160, 256))


def new_autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 48, 64),
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=8,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        sample_size=256,
    )


def train_autoencoder(folder: Path, *, steps: int, batch: int = 32, peak: float = 2e-3) -> AutoencoderKL:
    """Train, or go on training, until `steps`; returns the autoencoder with its latents' mean and scale set."""
    checkpoint = Checkpoint(folder / "autoencoder.pt")
    vae = new_autoencoder()
    optimizer = torch.optim.AdamW(vae.parameters(), lr=peak, betas=(0.9, 0.99), weight_decay=1e-4)
    first = 0
    if state := checkpoint.load():
        vae.load_state_dict(state["vae"])
        if "optimizer" not in state:
            vae.register_to_config(**state["latents"])
            return vae
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    pool = _picture_pool(seed=first)
    rng = np.random.default_rng(first)
    bar = tqdm(range(first, steps), initial=first, total=steps, desc="autoencoder", mininterval=5)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = one_cycle(step, total=steps, peak=peak, warmup=200, decay_share=0.5)
        loss, error = _losses(vae, _crops(pool, rng, batch))
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 20 == 0:
            bar.set_postfix(l1=f"{error:.4f}")
        if checkpoint.is_due():
            checkpoint.save({"vae": vae.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1})
    latents = _latent_statistics(vae, pool)
    vae.register_to_config(**latents)
    checkpoint.save({"vae": vae.state_dict(), "latents": latents})
    return vae


def polish_decoder(folder: Path, vae: AutoencoderKL, *, steps: int, batch: int = 24, peak: float = 1.5e-3) -> None:
    """Train the decoder alone: the latents that the flow has learned stay as they are."""
    checkpoint = Checkpoint(folder / "decoder.pt")
    optimizer = torch.optim.AdamW(vae.decoder.parameters(), lr=peak, betas=(0.9, 0.99), weight_decay=1e-4)
    first = 0
    if state := checkpoint.load():
        vae.decoder.load_state_dict(state["decoder"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    if first >= steps:
        return
    pool = _picture_pool(seed=first + 1)
    rng = np.random.default_rng(first + 1)
    bar = tqdm(range(first, steps), initial=first, total=steps, desc="decoder", mininterval=10)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = one_cycle(step, total=steps, peak=peak, warmup=100, decay_share=0.6)
        pixels = _crops(pool, rng, batch)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                latents = vae.encode(pixels).latent_dist.mean
            decoded = vae.decode(latents).sample.float()
        loss = _picture_loss(decoded, pixels)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(vae.decoder.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 20 == 0:
            bar.set_postfix(l1=f"{float(functional.l1_loss(decoded.detach(), pixels)):.4f}")
        if checkpoint.is_due() or step + 1 == steps:
            checkpoint.save(
                {"decoder": vae.decoder.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
            )


def _picture_loss(decoded: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """L1 + L2 + L1 of the gradients."""
    edges = functional.l1_loss(decoded.diff(dim=2), pixels.diff(dim=2)) + functional.l1_loss(
        decoded.diff(dim=3), pixels.diff(dim=3)
    )
    return functional.l1_loss(decoded, pixels) + functional.mse_loss(decoded, pixels) + edges


def _losses(vae: AutoencoderKL, pixels: torch.Tensor) -> tuple[torch.Tensor, float]:
    """The picture loss + 1e-3 KL on `pixels` (N, 3, H, W) in -1 to 1; and the plain L1."""
    with torch.autocast("cpu", torch.bfloat16):
        posterior = vae.encode(pixels).latent_dist
        decoded = vae.decode(posterior.sample()).sample
    decoded = decoded.float()
    mean, log_variance = posterior.mean.float(), posterior.logvar.float()
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    return _picture_loss(decoded, pixels) + 1e-3 * kl, float(functional.l1_loss(decoded.detach(), pixels))


def _picture_pool(seed: int) -> list[torch.Tensor]:
    rng = random.Random(seed)
    return [
        torch.from_numpy(np.asarray(paint(random_scene(rng), *POOL_SIZES[i % len(POOL_SIZES)])).copy())
        for i in tqdm(range(PICTURES), desc="painting", mininterval=5)
    ]


def _crops(pool: list[torch.Tensor], rng: np.random.Generator, batch: int) -> torch.Tensor:
    crops = []
    for index in rng.integers(len(pool), size=batch):
        picture = pool[index]
        top = rng.integers(picture.shape[0] - CROP + 1)
        left = rng.integers(picture.shape[1] - CROP + 1)
        crops.append(picture[top : top + CROP, left : left + CROP])
    return to_model_range(torch.stack(crops))


def to_model_range(pictures: torch.Tensor) -> torch.Tensor:
    """uint8 pictures (N, H, W, 3) as floats (N, 3, H, W) in -1 to 1."""
    return pictures.permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def _latent_statistics(vae: AutoencoderKL, pool: list[torch.Tensor]) -> dict[str, float]:
    latents = torch.cat([vae.encode(to_model_range(p[None])).latent_dist.mean.flatten() for p in pool[:400]])
    return {"shift_factor": float(latents.mean()), "scaling_factor": float(1 / latents.std())}
