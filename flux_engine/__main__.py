"""`python -m flux_engine`: the worker for people, at a terminal.

python -m flux_engine "a red sun on the left over purple mountains at dusk" --seed 7 -o sun.png
python -m flux_engine "a white moon" --json            the contract's result alone on standard output
python -m flux_engine plan --gpu A10G                  how a model would run on a GPU: see plan_command.py
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from flux_engine import plan_command
from flux_engine.build import build_worker
from flux_engine.job import JsonObject
from flux_engine.local import summary
from flux_engine.logs import set_up_logs
from flux_engine.progress import Send, Update
from flux_engine.settings import Settings, SettingsError

FORMATS = {".png": "png", ".jpg": "jpg", ".jpeg": "jpg", ".webp": "webp"}


def main(arguments: Sequence[str]) -> int:
    if arguments[:1] == ["plan"]:
        return plan_command.main(arguments[1:])
    options = _parser().parse_args(arguments)
    try:
        settings = Settings.from_environment(os.environ)
    except SettingsError as error:
        sys.exit(str(error))
    set_up_logs("WARNING", as_json=False)
    if options.output is not None:
        settings = settings.model_copy(update={"output_dir": options.output.parent})
    bar = _Bar(is_shown=sys.stderr.isatty() and not options.json)
    worker = build_worker(settings, is_local=True)
    result = asyncio.run(worker.run({"id": "local", "input": _job_input(options)}, bar.send, min_interval_s=0.1))
    bar.close()
    if options.output is not None and "error" not in result:
        _rename(result, options.output)
    sys.stdout.write((json.dumps(result, ensure_ascii=False) if options.json else summary(result)) + "\n")
    return 1 if "error" in result else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m flux_engine", description="Make a picture with FLUX.")
    parser.add_argument("prompt")
    parser.add_argument("--negative-prompt", help="what not to show; needs --true-cfg-scale above 1")
    parser.add_argument("--true-cfg-scale", type=float)
    parser.add_argument("--model", help="a model of the catalogue that is on the volume")
    parser.add_argument("--size", help="WIDTHxHEIGHT in pixels")
    parser.add_argument("--steps", type=int, dest="num_inference_steps")
    parser.add_argument("--guidance", type=float, dest="guidance_scale")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--num-images", type=int)
    parser.add_argument("-o", "--output", type=Path, help="the picture's path; its ending says the format")
    parser.add_argument("--json", action="store_true", help="print the result object alone, for scripts")
    return parser


def _job_input(options: argparse.Namespace) -> JsonObject:
    fields = {name: value for name, value in vars(options).items() if name not in ("output", "json")}
    if options.output is not None:
        fields["output_format"] = FORMATS.get(options.output.suffix.lower(), options.output.suffix.lstrip(".") or None)
    return {name: value for name, value in fields.items() if value is not None}


def _rename(result: JsonObject, output: Path) -> None:
    """Give the pictures the name that was asked for; from the second on with a number."""
    for i, image in enumerate(result["images"]):
        target = output if i == 0 else output.with_stem(f"{output.stem}-{i + 1}")
        os.replace(unquote(urlsplit(image["url"]).path), target)
        image["url"] = target.resolve().as_uri()


class _Bar:
    """A progress bar on standard error, fed by the same updates that the platform gets."""

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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
