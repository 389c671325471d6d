"""`python -m flux_engine plan`: how a model would run on this machine, or on a card of the table.

python -m flux_engine plan                                          this machine, the default model
python -m flux_engine plan --gpu A10G --model FLUX.1-dev --profile speed
python -m flux_engine plan --gpu "RTX 4090" --json                  for scripts
python -m flux_engine plan --all                                    every card and model as a table
python -m flux_engine plan --gpu A40 --offload model --no-compile    what a wish would cost, or why it is declined

torch is imported only to look at this machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Final, get_args

from flux_engine.models.catalog import CATALOG, FLUX_1_SCHNELL, FLUX_TINY, ModelSpec, find
from flux_engine.models.planning.device import read_gpu
from flux_engine.models.planning.gpus import CARDS, GpuProperties, find_card, short_name
from flux_engine.models.planning.optimizer import ModelOptimizer
from flux_engine.models.planning.plan import PROFILES, Plan, Preferences
from flux_engine.settings import Offload, Profile, Quantisation
from flux_engine.units import GIB

SHORT_SCHEMES: Final = {
    "none": "",
    "int8_weight_only": "int8",
    "int8_dynamic": "int8",
    "fp8_dynamic": "fp8",
}
TABLE_MODELS: Final = tuple(
    spec for spec in CATALOG if spec.name not in ("FLUX.1-Krea-dev", "FLUX.1-Kontext-dev", "flux-tiny")
)  # Krea and Kontext run as dev does, and flux-tiny runs anywhere


def main(arguments: Sequence[str]) -> int:
    """Print a plan; returns the exit code: 1 where the model does not fit."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.all:
        sys.stdout.write("\n".join(table(options.profile)) + "\n")
        return 0
    gpu = find_card(options.gpu) if options.gpu else read_gpu()
    if gpu is None:
        parser.error(f"--gpu: no such card; one of {', '.join(short_name(card) for card in CARDS)}")
    spec = _spec(options.model, gpu)
    if spec is None:
        parser.error(f"--model: no such model; one of {', '.join(model.name for model in CATALOG)}")
    plan = ModelOptimizer().plan(gpu, spec, _wishes(options))
    text = json.dumps(plan.to_dict(), indent=2) if options.json else "\n".join(describe(plan, spec))
    sys.stdout.write(text + "\n")
    return 0 if plan.fits else 1


def describe(plan: Plan, spec: ModelSpec) -> Iterator[str]:
    """The plan for a reader, a line for each choice with its reason."""
    yield f"{plan.model} on {plan.gpu}, profile {plan.profile}: {plan.line()}"
    yield ""
    values = {
        "dtype": plan.dtype,
        "quantisation": plan.transformer_quantisation,
        "text_quantisation": plan.quantisation_of(spec.largest_text_encoder.name),
        "offload": plan.offload,
        "attention": ", ".join(plan.attention),
        "compile": "yes" if plan.compile else "no",
        "step_cache": f"{plan.step_cache_threshold:g}" if plan.step_cache_threshold else "no",
        "vae": f"sliced, tiles of {plan.vae_tile_side}",
        "lora_mode": plan.lora_mode,
        "largest_batch": str(plan.largest_batch),
        "fits": "yes" if plan.fits else "no",
    }
    for choice, reason in plan.reasons.items():
        yield f"  {choice:<20} {values.get(choice, ''):<28} {reason}"
    yield ""
    for part in plan.parts:
        yield f"  {part.component:<20} {part.bytes / GIB:6.2f} GiB"
    if plan.lora_bytes:
        yield f"  {'LoRA slot':<20} {plan.lora_bytes / GIB:6.2f} GiB"
    yield f"  {'activations':<20} {plan.activation_bytes / GIB:6.2f} GiB at the most"
    yield f"  {'peak on the device':<20} {plan.peak_bytes / GIB:6.2f} GiB of {plan.limit_bytes / GIB:.2f}"
    if plan.seconds is not None:
        yield f"  {'expected':<20} {plan.seconds:6.1f} s an image (an estimate from arithmetic, not a measurement)"
    ladder, below = 0, plan.leaner()
    while below is not None:
        ladder, below = ladder + 1, below.leaner()
    yield f"  {'if memory runs out':<20} {ladder:>6} leaner plans"


def table(profile: Profile) -> Iterator[str]:
    """All cards against all models under one profile, in Markdown."""
    yield "| GPU | GiB | " + " | ".join(spec.name for spec in TABLE_MODELS) + " |"
    yield "|---|---|" + "---|" * len(TABLE_MODELS)
    optimizer = ModelOptimizer()
    for card in CARDS:
        plans = [optimizer.plan(card, spec, Preferences(profile=profile)) for spec in TABLE_MODELS]
        cells = " | ".join(_cell(plan, spec) for plan, spec in zip(plans, TABLE_MODELS, strict=True))
        yield f"| {short_name(card)} | {card.total_bytes / GIB:.1f} | {cells} |"


def _cell(plan: Plan, spec: ModelSpec) -> str:
    if not plan.fits:
        return "does not fit"
    transformer = SHORT_SCHEMES[plan.transformer_quantisation]
    text = SHORT_SCHEMES[plan.quantisation_of(spec.largest_text_encoder.name)]
    short_dtype = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}[plan.dtype]
    words = [transformer or short_dtype, f"text {text}" if text and text != transformer else ""]
    words += [f"{plan.offload} offload" if plan.offload != "none" else ""]
    seconds = f"{plan.seconds:.1f} s" if plan.seconds is not None else ""
    return ", ".join(word for word in (*words, f"{plan.peak_bytes / GIB:.0f} GiB", seconds) if word)


def _spec(name: str | None, gpu: GpuProperties) -> ModelSpec | None:
    if name is not None:
        return find(name)
    return FLUX_TINY if gpu.is_cpu else FLUX_1_SCHNELL


def _wishes(options: argparse.Namespace) -> Preferences:
    return Preferences(**{wish.name: getattr(options, wish.name) for wish in fields(Preferences)})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m flux_engine plan", description="How a model runs on a GPU.")
    parser.add_argument("--gpu", help="a card of the table, such as A10G or RTX 4090; by default this machine")
    parser.add_argument("--model", help="a model of the catalogue")
    parser.add_argument("--profile", choices=PROFILES, default="balanced")
    wishes = parser.add_argument_group("wishes, which the plan follows where no rule forbids it")
    wishes.add_argument("--quantisation", choices=get_args(Quantisation), help="of the transformer")
    wishes.add_argument("--text-quantisation", choices=get_args(Quantisation), help="of the largest text encoder")
    wishes.add_argument("--offload", choices=get_args(Offload))
    wishes.add_argument("--compile", action=argparse.BooleanOptionalAction, default=None)
    wishes.add_argument("--step-cache", action=argparse.BooleanOptionalAction, default=None)
    wishes.add_argument("--attention-slicing", action="store_true", help="says what stands in its place")
    wishes.add_argument("--max-batch", type=int, default=Preferences().max_batch, help="pictures in one call")
    wishes.add_argument("--steps", type=int, dest="num_inference_steps", help="denoising steps to estimate for")
    parser.add_argument("--json", action="store_true", help="the plan as JSON")
    parser.add_argument("--all", action="store_true", help="a table of all cards and models")
    return parser
