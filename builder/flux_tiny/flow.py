"""The flow transformer of flux-tiny and its two text encoders, trained together by rectified flow.

A latent x0 and noise x1 are joined by x_t = (1 - t) x0 + t x1, and the model learns the velocity x1 - x0 (Liu et
al. 2022; Esser et al. 2024 for the choice of t). A last stage distils guidance, as FLUX.1-dev's was: the target
becomes the frozen model's own guided velocity, unconditional + g (conditional - unconditional), with g told to
the student, so that one pass paints what two painted and `guidance_scale` works.
"""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm
from transformers import CLIPTokenizer, T5Tokenizer

from builder.flux_tiny.autoencoder import to_model_range
from builder.flux_tiny.captions import caption, captions_around
from builder.flux_tiny.checkpoint import Checkpoint, one_cycle
from builder.flux_tiny.landscapes import paint
from builder.flux_tiny.probes import LayoutProbes
from builder.flux_tiny.scenes import Scene, random_scene, scene_between
from builder.flux_tiny.text import (
    CLIP_TOKENS,
    T5_TOKENS,
    new_clip_encoder,
    new_clip_tokenizer,
    new_t5_encoder,
    new_t5_tokenizer,
)

AVERAGE: Final = 0.999
MODULATIONS: Final = ("norm.linear", "norm1.linear", "norm1_context.linear", "norm_out.linear")
EMPTY_CAPTION_SHARE: Final = 0.1
TOKENS_A_BATCH: Final = 48 * 64
HIGH_NOISE_RANGE: Final = 0.05
GUIDANCE_RANGE: Final = (1.0, 4.0)


@dataclass(frozen=True, slots=True)
class Bucket:
    """Latents of one size, (N, 16, H / 8, W / 8), already shifted and scaled, and the scenes they show.

    The discs of `is_between` stand anywhere from left to right, and no caption of their own says where.
    """

    width: int
    height: int
    latents: Tensor
    scenes: list[Scene]
    is_between: bool = False

    @property
    def batch(self) -> int:
        return max(8, TOKENS_A_BATCH // (self.width * self.height // 256))


@dataclass(frozen=True, slots=True)
class Stage:
    """One part of the training: which buckets, how often each, for how many steps."""

    name: str
    weights: dict[tuple[int, int], float]
    steps: int
    peak: float
    decay_share: float
    mean_logit: float = 0.3  # of the times; larger pictures settle their shapes at noisier ones
    high_noise_share: float = 0.0  # of the times drawn from 0.95 to 1, where a picture's layout is decided
    between_share: float = 0.0  # of the batches, from the buckets whose captions are blended
    asks_for_layout: bool = False  # with LayoutProbes
    distils: bool = False


class TextToFlow(nn.Module):
    """Captions and noisy latents in, velocity out: everything that is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.clip_tokenizer: CLIPTokenizer = new_clip_tokenizer()
        self.t5_tokenizer: T5Tokenizer = new_t5_tokenizer()
        self.clip = new_clip_encoder(self.clip_tokenizer)
        self.t5 = new_t5_encoder(self.t5_tokenizer)
        self.transformer = FluxTransformer2DModel(
            in_channels=64,
            num_layers=3,
            num_single_layers=5,
            attention_head_dim=32,
            num_attention_heads=4,
            joint_attention_dim=96,
            pooled_projection_dim=64,
            guidance_embeds=True,
            axes_dims_rope=(4, 14, 14),
        )
        for name, layer in self.transformer.named_modules():
            if isinstance(layer, nn.Linear) and (name == "proj_out" or name.endswith(MODULATIONS)):
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def encode(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Token states (N, T5_TOKENS, 96) and the pooled state (N, 64), padded as FluxPipeline pads them."""
        clip = self.clip_tokenizer(
            texts, padding="max_length", max_length=CLIP_TOKENS, truncation=True, return_tensors="pt"
        )
        t5 = self.t5_tokenizer(texts, padding="max_length", max_length=T5_TOKENS, truncation=True, return_tensors="pt")
        return self.t5(t5.input_ids)[0], self.clip(clip.input_ids).pooler_output

    def velocity(self, latents: Tensor, t: Tensor, text: tuple[Tensor, Tensor], guidance: Tensor) -> Tensor:
        """Velocity like `latents` (N, 16, H, W) at time `t` (N,), 0 for the picture and 1 for noise."""
        n, channels, height, width = latents.shape
        packed = FluxPipeline._pack_latents(latents, n, channels, height, width)
        image_ids = FluxPipeline._prepare_latent_image_ids(n, height // 2, width // 2, "cpu", torch.float32)
        states, pooled = text
        out = self.transformer(
            hidden_states=packed,
            encoder_hidden_states=states,
            pooled_projections=pooled,
            timestep=t,
            guidance=guidance,
            img_ids=image_ids,
            txt_ids=torch.zeros(states.shape[1], 3),
            return_dict=False,
        )[0]
        velocity: Tensor = FluxPipeline._unpack_latents(out.float(), height * 8, width * 8, 8)
        return velocity


def train_stage(
    folder: Path, stage: Stage, buckets: list[Bucket], model: TextToFlow, *, report_every: int = 50
) -> None:
    """Train `model` through `stage`, or what is left of it; leaves the averaged weights in `model`."""
    checkpoint = Checkpoint(folder / f"flow-{stage.name}.pt")
    state: dict[str, Any] = checkpoint.load() or {}
    if state.get("step", 0) >= stage.steps:
        model.load_state_dict(state["average"])
        return
    teacher = copy.deepcopy(model).requires_grad_(False).eval() if stage.distils else None
    average = copy.deepcopy(model).requires_grad_(False)
    probes = LayoutProbes(model.transformer) if stage.asks_for_layout else None
    learned = [*model.parameters(), *(probes.parameters() if probes is not None else ())]
    optimizer = torch.optim.AdamW(learned, lr=stage.peak, betas=(0.9, 0.98), weight_decay=1e-3)
    if state:
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
    first = state.get("step", 0)
    rng = random.Random(f"{stage.name} {first}")
    torch.manual_seed(rng.getrandbits(32))
    chosen = [b for b in buckets if (b.width, b.height) in stage.weights]
    share = {True: stage.between_share, False: 1 - stage.between_share}
    weights = [stage.weights[b.width, b.height] * share[b.is_between] for b in chosen]
    running = 0.0
    bar = tqdm(range(first, stage.steps), initial=first, total=stage.steps, desc=stage.name, mininterval=10)
    for step in bar:
        rate = one_cycle(step, total=stage.steps, peak=stage.peak, warmup=200, decay_share=stage.decay_share)
        bucket = rng.choices(chosen, weights)[0]
        with _attention(bucket):
            loss = _loss(model, teacher, probes, _draw(bucket, stage, rng))
            torch.autograd.backward(loss)
        _descend(optimizer, model, rate)
        _update_average(average, model, min(AVERAGE, (step + 1) / (step + 50)))
        running += float(loss.detach())
        if (step + 1) % report_every == 0:
            bar.set_postfix(loss=f"{running / report_every:.4f}")
            running = 0.0
        if checkpoint.is_due() or step + 1 == stage.steps:
            checkpoint.save(
                {
                    "model": model.state_dict(),
                    "average": average.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "step": step + 1,
                }
            )
    model.load_state_dict(average.state_dict())
    if probes is not None:
        probes.detach()


@dataclass(frozen=True, slots=True)
class Batch:
    """Latents x0 and noise x1 (N, 16, H / 8, W / 8), times (N,), and the captions of the scenes they show.

    Where there are `texts_beyond`, a scene lies between its two captions, `shares` (N,) of the way to the second.
    """

    clean: Tensor
    noise: Tensor
    t: Tensor
    scenes: list[Scene]
    texts: list[str]
    texts_beyond: list[str]
    shares: Tensor

    @property
    def noisy(self) -> Tensor:
        mix = self.t[:, None, None, None]
        return (1 - mix) * self.clean + mix * self.noise

    def encoded_by(self, model: TextToFlow) -> tuple[Tensor, Tensor]:
        """The captions' states and pooled states, blended as a video's keyframes are."""
        states, pooled = model.encode(self.texts)
        if not self.texts_beyond:
            return states, pooled
        states_beyond, pooled_beyond = model.encode(self.texts_beyond)
        share = self.shares[:, None]
        return states.lerp(states_beyond, share[..., None]), pooled.lerp(pooled_beyond, share)


def _draw(bucket: Bucket, stage: Stage, rng: random.Random) -> Batch:
    n = bucket.batch
    index = rng.choices(range(len(bucket.scenes)), k=n)
    scenes = [bucket.scenes[i] for i in index]
    beyond: list[str] = []
    shares: list[float] = [0.0] * n
    if bucket.is_between:
        texts, beyond, shares = (
            list(column) for column in zip(*(captions_around(s, rng) for s in scenes), strict=True)
        )
    else:
        texts = [caption(scene, rng) if rng.random() >= EMPTY_CAPTION_SHARE else "" for scene in scenes]
    clean = bucket.latents[index].float()
    t = torch.sigmoid(stage.mean_logit + torch.randn(n))
    t = torch.where(torch.rand(n) < stage.high_noise_share, 1 - HIGH_NOISE_RANGE * torch.rand(n), t)
    return Batch(clean, torch.randn_like(clean), t, scenes, texts, beyond, torch.tensor(shares))


def _loss(model: TextToFlow, teacher: TextToFlow | None, probes: LayoutProbes | None, batch: Batch) -> Tensor:
    guidance = torch.ones_like(batch.t)
    with torch.autocast("cpu", torch.bfloat16):
        target = batch.noise - batch.clean
        if teacher is not None:
            guidance = torch.empty_like(batch.t).uniform_(*GUIDANCE_RANGE)
            target = _guided(teacher, batch, guidance)
        predicted = model.velocity(batch.noisy, batch.t, batch.encoded_by(model), guidance)
        loss: Tensor = nn.functional.mse_loss(predicted, target)
    if probes is not None:
        rows, columns = (side // 2 for side in batch.clean.shape[-2:])
        loss = loss + probes.loss(batch.scenes, batch.texts, columns=columns, rows=rows)
    return loss


def _attention(bucket: Bucket) -> Any:
    """On a CPU the fused attention's backward pass is 40 % of a step at 96 tokens; plain products beat it there."""
    is_small = bucket.width * bucket.height <= 192 * 128
    return sdpa_kernel([SDPBackend.MATH] if is_small else [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH])


@torch.no_grad()
def _guided(teacher: TextToFlow, batch: Batch, guidance: Tensor) -> Tensor:
    ones = torch.ones_like(batch.t)
    conditional = teacher.velocity(batch.noisy, batch.t, batch.encoded_by(teacher), ones)
    unconditional = teacher.velocity(batch.noisy, batch.t, teacher.encode([""] * len(batch.texts)), ones)
    return unconditional + guidance[:, None, None, None] * (conditional - unconditional)


def _descend(optimizer: torch.optim.Optimizer, model: nn.Module, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


@torch.no_grad()
def _update_average(average: nn.Module, model: nn.Module, keep: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - keep)


@torch.no_grad()
def make_bucket(
    folder: Path, vae: AutoencoderKL, *, width: int, height: int, count: int, is_between: bool = False
) -> Bucket:
    """Paint `count` scenes and encode them, once: a second call reads them back."""
    name = f"{'between' if is_between else 'latents'}-{width}x{height}"
    rng = random.Random(name if is_between else f"{width}x{height}")
    scenes = [scene_between(rng) if is_between else random_scene(rng) for _ in range(count)]
    checkpoint = Checkpoint(folder / f"{name}.pt")
    if not (state := checkpoint.load()):
        latents = []
        for start in tqdm(range(0, count, 16), desc=name, mininterval=10):
            pictures = np.stack([np.asarray(paint(scene, width, height)) for scene in scenes[start : start + 16]])
            encoded = vae.encode(to_model_range(torch.from_numpy(pictures))).latent_dist.mean
            latents.append(((encoded - vae.config.shift_factor) * vae.config.scaling_factor).bfloat16())
        state = {"latents": torch.cat(latents)}
        checkpoint.save(state)
    return Bucket(width=width, height=height, latents=state["latents"], scenes=scenes, is_between=is_between)
