"""`python -m flux_engine plan`: how a model would run on this machine, or on a card of the table.

python -m flux_engine plan                                          this machine, the default model
python -m flux_engine plan --gpu A10G --model FLUX.1-dev --profile speed
python -m flux_engine plan --gpu "RTX 4090" --json                  for scripts
python -m flux_engine plan --gpu l40s --compare --price 0.79         all profiles side by side, with the price a picture
python -m flux_engine plan --all                                    every card and model as a table
python -m flux_engine plan --gpu A40 --offload model --no-compile    what a wish would cost, or why it is declined

torch is imported only to look at this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import get_args

from flux_engine.cli import plan_tables
from flux_engine.models.catalog import CATALOG, FLUX_1_SCHNELL, FLUX_TINY, ModelSpec, find
from flux_engine.models.planning.cold_start import cold_start
from flux_engine.models.planning.device import read_gpu
from flux_engine.models.planning.estimate import reference_pixels, working_bytes
from flux_engine.models.planning.gpus import CARDS, GpuProperties, Speed, cards_named, nearest_cards, short_name
from flux_engine.models.planning.optimizer import ModelOptimizer
from flux_engine.models.planning.plan import PROFILES, Plan, Preferences
from flux_engine.models.planning.seconds import picture_time, way_of
from flux_engine.settings import Offload, Quantisation
from flux_engine.units import GIB


def main(arguments: Sequence[str]) -> int:
    """Print a plan; returns the exit code: 1 where the model does not fit."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.all:
        sys.stdout.write("\n".join(plan_tables.cards_by_models(options.profile)) + "\n")
        return 0
    gpu = _gpu(options.gpu, parser) if options.gpu else read_gpu()
    spec = _spec(options.model, gpu)
    if spec is None:
        parser.error(f"--model: no such model; one of {', '.join(model.name for model in CATALOG)}")
    if options.compare:
        return _compare(gpu, spec, options)
    plan = ModelOptimizer().plan(gpu, spec, _wishes(options))
    price = price_per_hour(options.price, os.environ)
    text = json.dumps(plan.to_dict(), indent=2) if options.json else "\n".join(describe(plan, spec, price, gpu.speed))
    sys.stdout.write(text + "\n")
    return 0 if plan.fits else 1


def price_per_hour(given: float | None, environment: Mapping[str, str]) -> float | None:
    """What an hour of the GPU costs: as given, or GPU_PRICE_PER_HOUR. None where neither is a price."""
    try:
        price = given if given is not None else float(environment.get("GPU_PRICE_PER_HOUR", ""))
    except ValueError:
        return None
    return price if price > 0 else None


def _compare(gpu: GpuProperties, spec: ModelSpec, options: argparse.Namespace) -> int:
    """All profiles side by side, with the same wishes."""
    wishes = _wishes(options)
    plans = [ModelOptimizer().plan(gpu, spec, replace(wishes, profile=profile)) for profile in PROFILES]
    if options.json:
        text = json.dumps([plan.to_dict() for plan in plans], indent=2)
    else:
        price = price_per_hour(options.price, os.environ)
        table = plan_tables.side_by_side(plans, spec, price_per_hour=price)
        text = "\n".join((f"{spec.name} on {gpu.name}", "", *table))
    sys.stdout.write(text + "\n")
    return 0 if any(plan.fits for plan in plans) else 1


def describe(plan: Plan, spec: ModelSpec, price: float | None = None, speed: Speed | None = None) -> Iterator[str]:
    """The plan for a reader, a line for each choice with its reason. `price` is that of an hour of the GPU, `speed` its
    rates."""
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
    yield from _figures(plan, spec, price)
    yield from _with_references(plan, spec, speed)


def _figures(plan: Plan, spec: ModelSpec, price: float | None) -> Iterator[str]:
    for part in plan.parts:
        yield f"  {part.component:<20} {part.bytes / GIB:6.2f} GiB"
    if plan.lora_bytes:
        yield f"  {'LoRA slot':<20} {plan.lora_bytes / GIB:6.2f} GiB"
    yield f"  {'activations':<20} {plan.activation_bytes / GIB:6.2f} GiB at the most"
    yield f"  {'peak on the device':<20} {plan.peak_bytes / GIB:6.2f} GiB of {plan.limit_bytes / GIB:.2f}"
    if plan.seconds is not None:
        basis = plan.origin or "no run of this model on this card is published: interpolated between others"
        yield f"  {'expected':<20} {plan.seconds:6.1f} s an image (an estimate, not a measurement; {basis})"
        if plan.lora_seconds:
            yield f"  {'with a LoRA':<20} {plan.seconds + plan.lora_seconds:6.1f} s an image"
        if price is not None:
            yield f"  {'price':<20} {plan_tables.price_of(plan, price):>8} a warm image at ${price:g} an hour"
    first, later = (cold_start(plan, spec, storage="volume", is_first=is_first).total for is_first in (True, False))
    disk = cold_start(plan, spec, storage="disk", is_first=False).total
    yield f"  {'cold start':<20} {later:6.0f} s from a network volume, {disk:.0f} s from a disk; first {first:.0f} s"
    ladder, below = 0, plan.leaner()
    while below is not None:
        ladder, below = ladder + 1, below.leaner()
    yield f"  {'if memory runs out':<20} {ladder:>6} leaner plans"


def _with_references(plan: Plan, spec: ModelSpec, speed: Speed | None) -> Iterator[str]:
    """What as many references as the model takes cost. Plans have room for one; a job with more that does not fit is
    run by a leaner plan."""
    count = spec.limits.max_references
    if count == 0 or speed is None:
        return
    way = way_of(plan, spec)
    sizes = {"steps": spec.limits.num_inference_steps, "pixels": spec.limits.side**2}
    seen = reference_pixels(spec, count=count)
    time = picture_time(spec, speed, plan.parts, way, seen_pixels=seen, **sizes)
    working = working_bytes(spec, plan.parts, way, pixels=spec.limits.max_pixels, references=count)
    peak = (plan.peak_bytes - plan.activation_bytes + working) / GIB
    what = f"with {count} reference{'s' if count > 1 else ''}"
    yield f"  {what:<20} {time.total:6.1f} s an image, {peak:.2f} GiB at the peak"


def _gpu(name: str, parser: argparse.ArgumentParser) -> GpuProperties:
    """The card that `name` means; ends the command where it means none or several."""
    cards = cards_named(name)
    if len(cards) == 1:
        return cards[0]
    if cards:
        parser.error(f"--gpu: {name} may be any of {', '.join(short_name(card) for card in cards)}; name one")
    near = nearest_cards(name)
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    parser.error(f"--gpu: no such card; {meant}one of {', '.join(short_name(card) for card in CARDS)}")


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
    wishes.add_argument("--kept-warm", action="store_true", dest="is_kept_warm", help="as WARMUP=eager")
    parser.add_argument("--json", action="store_true", help="the plan as JSON")
    parser.add_argument("--compare", action="store_true", help="all profiles side by side")
    parser.add_argument("--price", type=float, help="of an hour of the GPU; by default GPU_PRICE_PER_HOUR")
    parser.add_argument("--all", action="store_true", help="a table of all cards and models")
    return parser
