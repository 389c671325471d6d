"""`python -m flux_engine estimate`: what a job would take on this machine, without having it done.

python -m flux_engine estimate "a red sun" --steps 8 --size 192x128
python -m flux_engine estimate video "a red sun" --duration 2 --json
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Final

from flux_engine.cli.capabilities import asked, printed
from flux_engine.cli.generate import job_input, picture_parser, video_parser
from flux_engine.job.base import JsonObject

SOURCES: Final = {
    "measured": "measured on jobs like it",
    "scaled": "scaled from jobs of other sizes",
    "planned": "by the plan's arithmetic, not measured",
}


def main(arguments: Sequence[str]) -> int:
    """Print the answer; returns the exit code."""
    is_video = arguments[:1] == ["video"]
    parser = video_parser() if is_video else picture_parser()
    parser.prog = "python -m flux_engine estimate" + (" video" if is_video else "")
    parser.description = "What a job would take on this machine; its options are those of the job."
    options = parser.parse_args(arguments[1:] if is_video else arguments)
    try:
        job = job_input(options)
    except (OSError, ValueError) as error:
        sys.exit(f"--job: {error}")
    answer = asked({"op": "estimate", **job})
    return printed(answer, describe(answer), as_json=options.json)


def describe(answer: JsonObject) -> Iterator[str]:
    """The answer for a reader."""
    parameters, seconds = answer["parameters"], answer["seconds"]
    size = f"{parameters['width']}x{parameters['height']}, {parameters['num_inference_steps']} steps"
    yield f"{answer['model']['id']}, {size}: work {answer['work']:g}"
    if seconds["warm"] is not None:
        cold = "" if seconds["cold"] is None else f", {seconds['cold']:.1f} s with loading"
        yield f"{seconds['warm']:.2f} s{cold} ({SOURCES[seconds['source']]})"
    if "cost_usd" in answer and answer["cost_usd"]["warm"] is not None:
        yield f"{answer['cost_usd']['warm']:.6f} US dollars"
    if answer["cached"]:
        yield "the cache has the result: nothing is made"
    for lora in answer["loras"]:
        yield f"LoRA {lora['path']}: {lora['state'].replace('_', ' ')}"
    for warning in answer["warnings"]:
        yield f"warning: {warning}"
