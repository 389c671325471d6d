"""Train a LoRA for flux-tiny: `python -m builder.flux_tiny.lora`, a few minutes on one core.

The style is a mosaic, which the model has never seen: landscapes are painted as usual, laid in square stones, and
learned with their usual captions, so the LoRA lays every prompt in stones and needs no word of its own. The loss is
the model's own, on rectified flow at guidance 1; only two small matrices beside each Linear layer learn. The file is
what diffusers writes, and is loaded as any LoRA: `"loras": [{"path": "mosaic"}]` once it lies in the `loras` folder of
the volume. A stone is as wide as a token of the transformer, and its colours are ones that the autoencoder knows:
a sepia print, tried first, came out red, since no sky of the training had been brown.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers import FluxPipeline
from peft import LoraConfig, get_peft_model_state_dict
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from builder.flux_tiny.autoencoder import to_model_range
from builder.flux_tiny.captions import caption
from builder.flux_tiny.checkpoint import one_cycle
from builder.flux_tiny.landscapes import paint
from builder.flux_tiny.scenes import random_scene
from builder.flux_tiny.text import T5_TOKENS

ROOT: Final = Path(__file__).parents[2]
MODEL: Final = ROOT / "flux_engine" / "models" / "flux_tiny"
OUTPUT: Final = ROOT / "examples" / "loras" / "mosaic.safetensors"

SIZES: Final = {(128, 128): 16, (256, 160): 8, (160, 256): 8, (256, 256): 6}  # (width, height): pictures a step
RANK: Final = 4
TARGETS: Final = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_mlp", "proj_out")
PEAK_LEARNING_RATE: Final = 2e-3
STONE: Final = 16  # pixels a side
SHADES: Final = 0.14  # by how much a stone may be darker or lighter than what it shows


@dataclass(frozen=True, slots=True)
class Mosaics:
    """Landscapes in stones, of one size: scaled latents (N, 16, H / 8, W / 8), and their encoded captions."""

    latents: Tensor
    states: Tensor
    pooled: Tensor
    batch: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--pictures", type=int, default=192, help="painted for each size")
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    pipeline = FluxPipeline.from_pretrained(arguments.model, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    before = stone_contrast(sample(pipeline))
    train(pipeline, [make_mosaics(pipeline, *size, arguments.pictures) for size in SIZES], steps=arguments.steps)
    save(pipeline, arguments.output)
    after = stone_contrast(sample(pipeline))
    print(f"contrast at the stones' edges: {before:.1f} without the LoRA, {after:.1f} with it")
    print(f"{arguments.output}: {arguments.output.stat().st_size} bytes")


def to_mosaic(picture: Image.Image, rng: random.Random) -> Image.Image:
    """`picture` laid in stones of one colour each; its sides are multiples of STONE."""
    columns, rows = picture.width // STONE, picture.height // STONE
    stones = np.asarray(picture.convert("RGB").resize((columns, rows), Image.Resampling.BOX), np.float32)
    shades = np.asarray([rng.uniform(1 - SHADES, 1 + SHADES) for _ in range(rows * columns)], np.float32)
    laid = np.clip(stones * shades.reshape(rows, columns, 1), 0, 255).astype(np.uint8)
    return Image.fromarray(laid).resize(picture.size, Image.Resampling.NEAREST)


def stone_contrast(pictures: list[Image.Image]) -> float:
    """How much more neighbouring pixels differ at the edges of stones than within them: 1 where there are none."""
    at_edges, within = [], []
    for picture in pictures:
        pixels = np.asarray(picture.convert("RGB"), np.float32)
        for along in (pixels, pixels.transpose(1, 0, 2)):
            steps = np.abs(np.diff(along, axis=0)).mean(axis=(1, 2))
            is_edge = np.arange(1, len(along)) % STONE == 0
            at_edges.append(steps[is_edge].mean())
            within.append(steps[~is_edge].mean())
    return float(np.mean(at_edges) / max(np.mean(within), 1e-3))


@torch.no_grad()
def make_mosaics(pipeline: Any, width: int, height: int, count: int) -> Mosaics:
    """Paint, lay and encode `count` landscapes with one caption each."""
    rng = random.Random(f"mosaic {width}x{height}")
    vae, scenes = pipeline.vae, [random_scene(rng) for _ in range(count)]
    latents = []
    for start in range(0, count, 8):
        painted = [np.asarray(to_mosaic(paint(scene, width, height), rng)) for scene in scenes[start : start + 8]]
        encoded = vae.encode(to_model_range(torch.from_numpy(np.stack(painted)))).latent_dist.mean
        latents.append((encoded - vae.config.shift_factor) * vae.config.scaling_factor)
    texts = [caption(scene, rng) if rng.random() > 0.1 else "" for scene in scenes]
    states, pooled, _ = pipeline.encode_prompt(texts, None, max_sequence_length=T5_TOKENS)
    return Mosaics(torch.cat(latents), states, pooled, SIZES.get((width, height), 8))


def train(pipeline: Any, mosaics: list[Mosaics], *, steps: int) -> None:
    """Give the transformer an adapter and train it, nothing else."""
    transformer = pipeline.transformer
    transformer.requires_grad_(False)
    transformer.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=list(TARGETS), init_lora_weights=True))
    learned = [parameter for parameter in transformer.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=PEAK_LEARNING_RATE, betas=(0.9, 0.98), weight_decay=1e-3)
    rng = random.Random(0)
    bar = tqdm(range(steps), desc="mosaic", mininterval=10)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = one_cycle(step, total=steps, peak=PEAK_LEARNING_RATE, warmup=20, decay_share=0.6)
        loss = _loss(transformer, rng.choice(mosaics))
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 20 == 0:
            bar.set_postfix(loss=f"{float(loss.detach()):.4f}")


def _loss(transformer: Any, mosaics: Mosaics) -> Tensor:
    index = torch.randint(len(mosaics.latents), (mosaics.batch,))
    clean = mosaics.latents[index]
    noise = torch.randn_like(clean)
    t = torch.sigmoid(0.3 + torch.randn(mosaics.batch))
    mix = t[:, None, None, None]
    with torch.autocast("cpu", torch.bfloat16):
        predicted = _velocity(
            transformer, (1 - mix) * clean + mix * noise, t, mosaics.states[index], mosaics.pooled[index]
        )
        return nn.functional.mse_loss(predicted, noise - clean)


def _velocity(transformer: Any, latents: Tensor, t: Tensor, states: Tensor, pooled: Tensor) -> Tensor:
    n, channels, height, width = latents.shape
    has_guidance = transformer.config.guidance_embeds
    out = transformer(
        hidden_states=FluxPipeline._pack_latents(latents, n, channels, height, width),
        encoder_hidden_states=states,
        pooled_projections=pooled,
        timestep=t,
        guidance=torch.ones(n) if has_guidance else None,
        img_ids=FluxPipeline._prepare_latent_image_ids(n, height // 2, width // 2, "cpu", torch.float32),
        txt_ids=torch.zeros(states.shape[1], 3),
        return_dict=False,
    )[0]
    unpacked: Tensor = FluxPipeline._unpack_latents(out.float(), height * 8, width * 8, 8)
    return unpacked


def save(pipeline: Any, path: Path) -> None:
    """Write the adapter as diffusers does, in bf16."""
    state = {name: tensor.bfloat16() for name, tensor in get_peft_model_state_dict(pipeline.transformer).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    FluxPipeline.save_lora_weights(path.parent, transformer_lora_layers=state, weight_name=path.name)


@torch.no_grad()
def sample(pipeline: Any, *, count: int = 4, side: int = 256) -> list[Image.Image]:
    """A few landscapes with the pipeline as it stands."""
    rng = random.Random(1)
    pictures: list[Image.Image] = pipeline(
        [caption(random_scene(rng), rng) for _ in range(count)],
        width=side,
        height=side,
        num_inference_steps=12,
        guidance_scale=1.0,
        max_sequence_length=T5_TOKENS,
        generator=torch.Generator().manual_seed(0),
    ).images
    return pictures


if __name__ == "__main__":
    main()
