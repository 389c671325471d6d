"""Make flux-tiny from nothing: `python -m builder.flux_tiny.train`, or `make train-tiny`.

About two and a half hours on one core. Every stage keeps its state under `build/flux_tiny` and goes on from there
when it is started again. At the end the score is printed and the model written as a diffusers folder.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Final

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline

from builder.flux_tiny.autoencoder import polish_decoder, train_autoencoder
from builder.flux_tiny.flow import Bucket, Stage, TextToFlow, make_bucket, train_stage
from builder.flux_tiny.score import print_score

ROOT: Final = Path(__file__).parents[2]
WORK: Final = ROOT / "build" / "flux_tiny"
SHIPPED: Final = ROOT / "flux_engine" / "models" / "flux_tiny"

AUTOENCODER_STEPS: Final = 1700
DECODER_STEPS: Final = 4000
BUCKETS: Final = {  # (width, height): pictures
    (128, 128): 8000,
    (192, 128): 1500,
    (128, 192): 1500,
    (192, 192): 2000,
    (256, 160): 2000,
    (160, 256): 2000,
    (256, 256): 3000,
}
BETWEEN_PARTS: Final = 3  # one scene with its disc between two sides for so many others
ALL_SIZES: Final = {size: 3.0 if size == (256, 256) else 1.0 for size in BUCKETS}
SCORED_SIZES: Final = dict.fromkeys(BUCKETS, 0.4) | {(256, 256): 4.0, (256, 160): 3.0, (160, 256): 3.0}
WIDE: Final = {(256, 256): 1.0, (256, 160): 1.0}
STAGES: Final = (
    Stage("small", {(128, 128): 1.0}, steps=2000, peak=1e-3, decay_share=0.0),
    Stage("sizes", ALL_SIZES, steps=5000, peak=8e-4, decay_share=0.5),
    Stage("columns", WIDE, steps=600, peak=1e-3, decay_share=0.3, high_noise_share=0.6, asks_for_layout=True),
    Stage("layout", SCORED_SIZES, steps=900, peak=7e-4, decay_share=0.6, high_noise_share=0.2, asks_for_layout=True),
    Stage("shapes", SCORED_SIZES, steps=6000, peak=7e-4, decay_share=0.8, mean_logit=0.9, high_noise_share=0.05),
    Stage(
        "between",
        SCORED_SIZES,
        steps=1200,
        peak=6e-4,
        decay_share=0.8,
        mean_logit=0.6,
        high_noise_share=0.15,
        between_share=0.45,
    ),
    Stage(
        "guidance",
        SCORED_SIZES,
        steps=500,
        peak=3e-4,
        decay_share=0.7,
        high_noise_share=0.2,
        between_share=0.3,
        distils=True,
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="cores that are idle; busy ones stall one another")
    parser.add_argument("--output", type=Path, default=SHIPPED)
    parser.add_argument("--part", choices=("all", "latents", "flow", "decoder"), default="all")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    vae = train_autoencoder(WORK, steps=AUTOENCODER_STEPS)
    if arguments.part == "latents":
        latents(vae, list(reversed(ALL_SIZES)))  # the flow stage begins with the first
    if arguments.part in ("all", "decoder"):
        polish_decoder(WORK, vae, steps=DECODER_STEPS)
    model = TextToFlow()
    if arguments.part in ("all", "flow"):
        for stage in STAGES:
            between = latents(vae, list(stage.weights), is_between=True) if stage.between_share else []
            train_stage(WORK, stage, [*latents(vae, list(stage.weights)), *between], model)
    if arguments.part == "all":
        export(model, vae, arguments.output)
        print_score(arguments.output)


def latents(vae: AutoencoderKL, sizes: list[tuple[int, int]], *, is_between: bool = False) -> list[Bucket]:
    """The painted and encoded scenes of each (width, height)."""
    counts = {size: BUCKETS[size] // (BETWEEN_PARTS if is_between else 1) for size in sizes}
    return [
        make_bucket(WORK, vae, width=w, height=h, count=count, is_between=is_between)
        for (w, h), count in counts.items()
    ]


def export(model: TextToFlow, vae: AutoencoderKL, folder: Path) -> None:
    """Write an ordinary diffusers folder in bf16.

    Without a `dtype` diffusers loads its parts in float32 and transformers its own in the dtype of their config, so
    the text encoders' configs name float32: the folder then loads unaided, in one dtype.
    """
    pipeline = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
        vae=vae,
        text_encoder=model.clip,
        tokenizer=model.clip_tokenizer,
        text_encoder_2=model.t5,
        tokenizer_2=model.t5_tokenizer,
        transformer=model.transformer,
    )
    pipeline.to(torch.bfloat16).save_pretrained(folder)
    for part in ("text_encoder", "text_encoder_2"):
        path = folder / part / "config.json"
        path.write_text(
            json.dumps(json.loads(path.read_text()) | {"dtype": "float32"}, indent=2, sort_keys=True) + "\n"
        )


if __name__ == "__main__":
    main()
