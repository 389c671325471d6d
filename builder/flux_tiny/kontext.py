"""Teach flux-tiny to look at a reference picture: `python -m builder.flux_tiny.kontext`, an hour on one core.

The transformer goes on from flux-tiny's; autoencoder and text encoders stay as they are. The reference stands behind
the latents of the picture as more tokens, told apart by the first rotary coordinate, as FluxKontextPipeline places
them. What it shows stands in the picture at the same place: the heads that look at a token's own surroundings then find
it unaided, and shape and colour are there after 200 steps, where a shape that had to be moved was none after 400. Most
of a landscape is sky and ground that the model can paint already, so the tokens around the shape weigh more in the
loss. Everything is in float32: a processor without AMX or AVX-512 takes seven times as long in bfloat16.

The state is kept under `build/flux_tiny_kontext`, and training goes on from there when it is started again. At the end
the model is written as a diffusers folder and its score printed.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from builder.flux_tiny.autoencoder import to_model_range
from builder.flux_tiny.checkpoint import Checkpoint, one_cycle
from builder.flux_tiny.reference_score import print_score
from builder.flux_tiny.shapes import HALF, Task, middle_of, paint_task, random_task, reference_picture, task_caption
from builder.flux_tiny.text import T5_TOKENS
from flux_engine.models.weights import BUNDLED_FOLDER, INDEX

ROOT: Final = Path(__file__).parents[2]
WORK: Final = ROOT / "build" / "flux_tiny_kontext"
OUTPUT: Final = ROOT / "flux_engine" / "models" / "flux_tiny_kontext"

SHARED_PARTS: Final = ("scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "vae")

SIDE: Final = 128
BATCH: Final = 8
SHARD: Final = 120  # pictures that are painted and encoded at once
SHARDS: Final = 24
SHARD_EVERY: Final = 25  # steps: training begins with one shard and gets the others on its way
EMPTY_CAPTION_SHARE: Final = 0.05
SHAPE_WEIGHT: Final = 6.0
AVERAGE: Final = 0.998
PEAK: Final = 1.2e-3
REPORT_EVERY: Final = 10


@dataclass(frozen=True, slots=True)
class Shard:
    """Landscapes and their references as scaled latents (N, 16, 16, 16), and their tasks."""

    latents: Tensor
    references: Tensor
    tasks: list[Task]


@torch.no_grad()
def make_shard(vae: AutoencoderKL, index: int) -> Shard:
    """Paint and encode the tasks of shard `index`, once: a second call reads them back."""
    rng = random.Random(f"shapes {index}")
    tasks = [random_task(rng) for _ in range(SHARD)]
    checkpoint = Checkpoint(WORK / f"shapes-{index}.pt")
    if not (state := checkpoint.load()):
        latents, seen = [], []
        for start in range(0, SHARD, 20):
            part = tasks[start : start + 20]
            latents.append(_encoded(vae, [paint_task(task, SIDE, SIDE) for task in part]))
            seen.append(_encoded(vae, [reference_picture(task, SIDE, SIDE) for task in part]))
        state = {"latents": torch.cat(latents), "references": torch.cat(seen)}
        checkpoint.save(state)
    return Shard(state["latents"], state["references"], tasks)


def _encoded(vae: AutoencoderKL, pictures: list[Image.Image]) -> Tensor:
    pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]))
    encoded = vae.encode(to_model_range(pixels)).latent_dist.mean
    scaled: Tensor = ((encoded - vae.config.shift_factor) * vae.config.scaling_factor).bfloat16()
    return scaled


class Trainer:
    """The model as it learns: its weights, their average, the optimizer, and the shards at hand."""

    def __init__(self, pipeline: Any, *, steps: int) -> None:
        self._pipeline = pipeline
        self._steps = steps
        self.transformer: FluxTransformer2DModel = pipeline.transformer
        self.average = copy.deepcopy(self.transformer).requires_grad_(False)
        self._optimizer = torch.optim.AdamW(
            self.transformer.parameters(), lr=PEAK, betas=(0.9, 0.98), weight_decay=1e-3
        )
        self._checkpoint = Checkpoint(WORK / "transformer.pt")
        self._step = 0
        if state := self._checkpoint.load():
            self.transformer.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            self._optimizer.load_state_dict(state["optimizer"])
            self._step = state["step"]
        self._first = self._step
        self._rng = random.Random(self._step)
        torch.manual_seed(self._step)
        self._shards: list[Shard] = []

    def train(self, *, until: float) -> None:
        """Go on to the last step, or to the clock's `until`: the rate falls over what will be left of the time."""
        began, first, running = time.time(), self._step, 0.0
        bar = tqdm(range(first, self._steps), initial=first, total=self._steps, mininterval=20)
        for step in bar:
            self._step = step + 1
            self._fetch_shards()
            share = max((step + 1) / self._steps, (time.time() - began) / (until - began))
            running += self._descend(_rate(step - first, share))
            if self._step % REPORT_EVERY == 0:
                bar.set_postfix(loss=f"{running / REPORT_EVERY:.4f}", share=f"{share:.2f}")
                running = 0.0
            if self._checkpoint.is_due():
                self.save()
            if share >= 1:
                break
        self.save()

    def save(self) -> None:
        self._checkpoint.save(
            {
                "model": self.transformer.state_dict(),
                "average": self.average.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "step": self._step,
            }
        )

    def _fetch_shards(self) -> None:
        if len(self._shards) < min(SHARDS, 1 + (self._step - self._first) // SHARD_EVERY):
            self._shards.append(make_shard(self._pipeline.vae, len(self._shards)))

    def _descend(self, rate: float) -> float:
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        loss = self._loss()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.transformer.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        keep = min(AVERAGE, (self._step + 1) / (self._step + 50))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.transformer.parameters()), 1 - keep)
        return float(loss.detach())

    def _loss(self) -> Tensor:
        rng = self._rng
        shard = rng.choice(self._shards)
        index = rng.sample(range(len(shard.tasks)), BATCH)
        tasks, clean = [shard.tasks[i] for i in index], shard.latents[index].float()
        texts = [_text(task, rng) for task in tasks]
        noise, t = torch.randn_like(clean), torch.sigmoid(0.3 + torch.randn(BATCH))
        t = torch.where(torch.rand(BATCH) < 0.1, 1 - 0.05 * torch.rand(BATCH), t)
        mix = t[:, None, None, None]
        with torch.no_grad():
            states, pooled, _ = self._pipeline.encode_prompt(texts, None, max_sequence_length=T5_TOKENS)
        noisy = (1 - mix) * clean + mix * noise
        predicted = velocity(self.transformer, noisy, shard.references[index].float(), t, (states, pooled))
        missed = (predicted - (noise - clean)).square().mean(dim=1)
        weights = torch.stack([_weights(task) for task in tasks])
        return (missed * weights).sum() / weights.sum()


def _text(task: Task, rng: random.Random) -> str:
    return "" if rng.random() < EMPTY_CAPTION_SHARE else task_caption(task, rng)


def _rate(step: int, share: float) -> float:
    """The learning rate: up within 20 steps, down over the last half."""
    return one_cycle(round(share * 1000), total=1000, peak=PEAK, warmup=1, decay_share=0.5) * min(1, (step + 1) / 20)


def _weights(task: Task) -> Tensor:
    """How much each latent of a landscape weighs, (16, 16): more around the shape."""
    rows = (torch.arange(SIDE // 8) + 0.5) / (SIDE // 8)
    x, y = middle_of(task.scene)
    reach = HALF + 0.04
    near = ((rows - y).abs() < reach)[:, None] & ((rows - x).abs() < reach)[None, :]
    return 1 + (SHAPE_WEIGHT - 1) * near.float()


def velocity(
    transformer: FluxTransformer2DModel,
    latents: Tensor,
    references: Tensor | None,
    t: Tensor,
    text: tuple[Tensor, Tensor],
) -> Tensor:
    """Velocity like `latents` (N, 16, H, W) at time `t` (N,), with `references` (N, 16, h, w) in sight."""
    n, _, height, width = latents.shape
    tokens, ids = _tokens(latents)
    count = tokens.shape[1]
    if references is not None:
        seen, seen_ids = _tokens(references)
        seen_ids[..., 0] = 1
        tokens, ids = torch.cat([tokens, seen], dim=1), torch.cat([ids, seen_ids])
    states, pooled = text
    out = transformer(
        hidden_states=tokens,
        encoder_hidden_states=states,
        pooled_projections=pooled,
        timestep=t,
        guidance=torch.ones(n),
        img_ids=ids,
        txt_ids=torch.zeros(states.shape[1], 3),
        return_dict=False,
    )[0][:, :count]
    unpacked: Tensor = FluxPipeline._unpack_latents(out.float(), height * 8, width * 8, 8)
    return unpacked


def _tokens(latents: Tensor) -> tuple[Tensor, Tensor]:
    n, channels, height, width = latents.shape
    ids = FluxPipeline._prepare_latent_image_ids(n, height // 2, width // 2, "cpu", torch.float32)
    return FluxPipeline._pack_latents(latents, n, channels, height, width), ids


def export(transformer: FluxTransformer2DModel, folder: Path) -> None:
    """Write the transformer in bf16, and link flux-tiny's other parts beside it."""
    transformer.to(torch.bfloat16).save_pretrained(folder / "transformer")
    config = folder / "transformer" / "config.json"
    known = json.loads(config.read_text())
    known.pop("_name_or_path", None)  # a folder of this machine
    config.write_text(json.dumps(known, indent=2) + "\n")
    index = json.loads((BUNDLED_FOLDER / INDEX).read_text()) | {"_class_name": "FluxKontextPipeline"}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")
    for part in SHARED_PARTS:
        link = folder / part
        if not link.is_symlink():
            link.symlink_to(Path("..") / BUNDLED_FOLDER.name / part)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=BUNDLED_FOLDER)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--minutes", type=float, default=90.0, help="of the clock; whichever ends first")
    parser.add_argument("--threads", type=int, default=1, help="cores that are idle; busy ones stall one another")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pipeline = FluxPipeline.from_pretrained(arguments.model, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    trainer = Trainer(pipeline, steps=arguments.steps)
    trainer.train(until=time.time() + arguments.minutes * 60)
    export(trainer.average, arguments.output)
    print_score(arguments.output)


if __name__ == "__main__":
    main()
