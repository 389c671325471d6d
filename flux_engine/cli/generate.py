"""`python -m flux_engine`: the worker at a terminal.

python -m flux_engine "a red sun on the left over purple mountains at dusk" --seed 7 -o sun.png
python -m flux_engine "a white moon" --json            the contract's result alone on standard output
python -m flux_engine video "a red sun" --duration 2 -o sun.mp4
python -m flux_engine video --job examples/sun_left_to_right.json -o sun.mp4
python -m flux_engine plan --gpu A10G                  how a model would run on a GPU: see cli/plan.py
python -m flux_engine capabilities                     what a worker here serves: see cli/capabilities.py
python -m flux_engine estimate "a red sun"             what a job would take here: see cli/estimate.py
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from flux_engine.build import build_worker, try_own_bucket
from flux_engine.cli import plan as plan_command
from flux_engine.cli.local import summary
from flux_engine.health import Unfit
from flux_engine.job.base import JsonObject
from flux_engine.job.formats import IMAGE_FORMATS, ONLY_OF_VIDEOS, SPELLINGS
from flux_engine.logs import set_up_logs
from flux_engine.progress import Send, Update
from flux_engine.settings import Settings, SettingsError


def main(arguments: Sequence[str]) -> int:
    if arguments[:1] == ["plan"]:
        return plan_command.main(arguments[1:])
    if arguments[:1] == ["video"]:
        return _run(video_parser().parse_args(arguments[1:]))
    return _run(picture_parser().parse_args(arguments))


def _run(options: argparse.Namespace) -> int:
    try:
        job = job_input(options)
    except (OSError, ValueError) as error:
        sys.exit(f"--job: {error}")
    try:
        settings = Settings.from_environment(os.environ)
        set_up_logs("WARNING", as_json=False)
        worker = build_worker(settings, is_local=True)
        try_own_bucket(settings)
    except (SettingsError, Unfit) as error:
        sys.exit(str(error))
    bar = _Bar(is_shown=sys.stderr.isatty() and not options.json)
    result = asyncio.run(worker.run({"id": "local", "input": job}, bar.send, min_interval_s=0.1))
    bar.close()
    if options.plan_file is not None and "plan" in result.get("model", {}):
        options.plan_file.write_text(json.dumps(result["model"]["plan"], indent=2) + "\n", encoding="utf-8")
    if options.output is not None and "error" not in result:
        try:
            _copy_out(result, options.output)
        except OSError as error:
            sys.exit(f"{options.output}: {error.strerror}; the result is in {settings.output_dir.resolve()}")
    sys.stdout.write((json.dumps(result, ensure_ascii=False) if options.json else summary(result)) + "\n")
    return 1 if "error" in result else 0


def picture_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m flux_engine", description="Make a picture with FLUX.")
    parser.add_argument("prompt")
    parser.add_argument("--num-images", type=int)
    _add_common(parser)
    return parser


def video_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m flux_engine video", description="Make a video with FLUX.")
    parser.add_argument("prompt", nargs="?")
    parser.add_argument("--job", type=Path, help="a file with the job, whose fields the options override")
    parser.add_argument("--num-frames", type=int)
    parser.add_argument("--duration", type=float, help="seconds, in place of --num-frames")
    parser.add_argument("--fps", type=float)
    parser.add_argument(
        "--generated-fps", type=float, help="frames a second that FLUX makes; the rest are interpolated"
    )
    parser.add_argument("--mode", choices=("interpolate", "feedback"))
    parser.add_argument("--loop", action="store_const", const=True, help="the last frame leads back to the first")
    _add_common(parser)
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--negative-prompt", help="what not to show; needs --true-cfg-scale above 1")
    parser.add_argument("--true-cfg-scale", type=float)
    parser.add_argument("--model", help="a model of the catalogue that is on the volume")
    parser.add_argument("--lora", action="append", dest="loras", metavar="PATH", help="a LoRA; may be given again")
    parser.add_argument("--lora-scale", type=float)
    parser.add_argument("--size", help="WIDTHxHEIGHT in pixels")
    parser.add_argument("--steps", type=int, dest="num_inference_steps")
    parser.add_argument("--guidance", type=float, dest="guidance_scale")
    parser.add_argument("--seed", type=int)
    parser.add_argument("-o", "--output", type=Path, help="the file's path; its ending says the format")
    parser.add_argument("--plan-file", type=Path, help="write how the model was run, and why, to this JSON file")
    parser.add_argument("--json", action="store_true", help="print the result object alone, for scripts")


def job_input(options: argparse.Namespace) -> JsonObject:
    """The job's `input`. Raises OSError or ValueError for a --job file that cannot be read."""
    given = {name: value for name, value in vars(options).items() if name not in ("output", "plan_file", "json", "job")}
    fields: JsonObject = {name: value for name, value in given.items() if value is not None}
    if options.output is not None:
        suffix = options.output.suffix.lower().lstrip(".")
        fields |= {"output_format": SPELLINGS.get(suffix, suffix)} if suffix else {}
    if "job" not in options:
        if fields.get("output_format") in ONLY_OF_VIDEOS:
            formats = ", ".join(IMAGE_FORMATS)
            sys.exit(f"{options.output}: pictures are {formats}; for a video run `python -m flux_engine video`")
        return fields
    return {"type": "video", **_described(options.job), **fields}


def _described(file: Path | None) -> JsonObject:
    """The `input` of the job in `file`. Raises OSError and ValueError."""
    if file is None:
        return {}
    job = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(job, dict) or not isinstance(job.get("input"), dict):
        raise ValueError(f'{file}: a job is an object with an `input`, such as {{"input": {{"prompt": "a red sun"}}}}')
    described: JsonObject = job["input"]
    return described


def _copy_out(result: JsonObject, output: Path) -> None:
    """Copy the files to `output`, numbered from the second picture on. Raises OSError.

    They stay under OUTPUT_DIR too, where the same job finds them again.
    """
    for i, made in enumerate(result["images"] if "images" in result else [result["video"]]):
        target = output if i == 0 else output.with_stem(f"{output.stem}-{i + 1}")
        unfinished = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            shutil.copyfile(unquote(urlsplit(made["url"]).path), unfinished)
            os.replace(unfinished, target)
        finally:
            unfinished.unlink(missing_ok=True)
        made["url"] = target.resolve().as_uri()


class _Bar:
    """A progress bar on standard error, from the updates that the platform gets too."""

    def __init__(self, *, is_shown: bool) -> None:
        self.send: Send | None = self._show if is_shown else None
        self._width = 0

    async def _show(self, update: Update) -> None:
        done = round(30 * update["progress"])
        left = f", {update['eta_seconds']:.0f} s left" if "eta_seconds" in update else ""
        step = f" {update['step']}/{update['total_steps']}" if "step" in update else ""
        self._write(f"[{'=' * done}{' ' * (30 - done)}] {update['progress']:4.0%} {update['stage']}{step}{left}")

    def close(self) -> None:
        if self._width:
            self._write("")
            sys.stderr.write("\r")

    def _write(self, text: str) -> None:
        sys.stderr.write("\r" + text.ljust(self._width))
        sys.stderr.flush()
        self._width = len(text)
