"""`python -m flux_engine capabilities`: what a worker on this machine serves.

python -m flux_engine capabilities                     models, LoRAs and the plan, for a reader
python -m flux_engine capabilities --json              all of it, with the JSON Schema of jobs
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from flux_engine.build import build_worker
from flux_engine.cli.local import summary
from flux_engine.job.base import JsonObject
from flux_engine.logs import set_up_logs
from flux_engine.settings import Settings, SettingsError
from flux_engine.units import MIB

ROW: Final = "  {:<40} {:<8} {:<14} {:<9} {:<10} {}"


def main(arguments: Sequence[str]) -> int:
    """Print the answer; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m flux_engine capabilities", description="What a worker on this machine serves."
    )
    parser.add_argument("--json", action="store_true", help="the whole answer, with the JSON Schema of jobs")
    options = parser.parse_args(arguments)
    answer = asked({"op": "capabilities"})
    return printed(answer, describe(answer), as_json=options.json)


def asked(question: JsonObject) -> JsonObject:
    """The answer of a worker of this machine's settings, or its error. Ends the process where they are wrong."""
    try:
        settings = Settings.from_environment(os.environ)
        set_up_logs("ERROR", as_json=False)
        worker = build_worker(settings, is_local=True)
    except SettingsError as error:
        sys.exit(str(error))

    async def ask() -> JsonObject:
        try:
            return await worker.run({"id": "local", "input": question})
        finally:
            await worker.close()

    return asyncio.run(ask())


def printed(answer: JsonObject, lines: Iterator[str], *, as_json: bool) -> int:
    """Write an answer for a script or a reader; returns the exit code."""
    if "error" in answer and not as_json:
        sys.stdout.write(summary(answer) + "\n")
    else:
        sys.stdout.write((json.dumps(answer, ensure_ascii=False) if as_json else "\n".join(lines)) + "\n")
    return 1 if "error" in answer else 0


def describe(answer: JsonObject) -> Iterator[str]:
    """The answer for a reader."""
    yield f"flux-engine {answer['version']['engine']}"
    yield ""
    yield ROW.format("model", "weights", "steps", "guidance", "size", "videos")
    for model in answer["models"]:
        defaults, (low, high) = model["defaults"], model["bounds"]["num_inference_steps"]
        yield ROW.format(
            model["id"] + (" (default)" if model["is_default"] else ""),
            "loaded" if model["is_loaded"] else "here" if model["is_on_volume"] else "-",
            f"{defaults['num_inference_steps']} ({low} to {high})",
            "none" if defaults["guidance_scale"] is None else f"{defaults['guidance_scale']:g}",
            f"{defaults['width']}x{defaults['height']}",
            "yes" if model["makes_videos"] else "no",
        )
    yield ""
    for lora in answer["loras"]:
        yield f"  LoRA {lora['name']}, {lora['bytes'] / MIB:.1f} MiB"
    if not answer["loras"]:
        yield "  no LoRA on the volume"
    if (plan := answer["plan"]) is not None:
        yield f"  {plan['model']} on {plan['gpu']}: {plan['summary']}"
