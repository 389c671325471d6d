"""Runs on one's own machine: what `--test_input` may look like, and what a person reads at the end."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from flux_engine.job.base import JsonObject

TEST_INPUT: Final = "--test_input"


class TestInputError(Exception):
    """`--test_input` is not the JSON of a job; the text says what is wrong."""

    __test__ = False  # the name is the flag's, not a test's


def with_test_input(arguments: Sequence[str], default: Path) -> list[str]:
    """`arguments` with the job's JSON as the value of --test_input.

    The SDK takes a bare --test_input for an error and looks for test_input.json in the working directory; here both
    it and no flag at all mean the file `default`. Raises TestInputError.
    """
    rest = list(arguments)
    text = _given(rest)
    source = TEST_INPUT
    if text is None:
        source = default.name
        try:
            text = default.read_text(encoding="utf-8")
        except OSError as error:
            raise TestInputError(f"{source}: cannot be read ({error.strerror})") from None
    try:
        job = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TestInputError(f'{source}: not JSON ({error}); send \'{{"input": {{"prompt": "a red sun"}}}}\'') from None
    if not isinstance(job, dict) or job.get("input") is None:
        raise TestInputError(
            f'{source}: a job is an object with an `input`, such as {{"input": {{"prompt": "a red sun"}}}}'
        )
    return [*rest, TEST_INPUT, text]


def _given(arguments: list[str]) -> str | None:
    """Take --test_input and its value out of `arguments`; None where there is no value."""
    for i, argument in enumerate(arguments):
        if argument.startswith(TEST_INPUT + "="):
            return arguments.pop(i).partition("=")[2]
        if argument == TEST_INPUT:
            del arguments[i]
            has_value = i < len(arguments) and not arguments[i].startswith("--")
            return arguments.pop(i) if has_value else None
    return None


def summary(result: JsonObject) -> str:
    """Where the files are, their seeds and where the time went; or the error."""
    if "error" in result:
        error = json.loads(result["error"])
        field = f" ({error['field']})" if "field" in error else ""
        return f"failed: {error['code']}{field}: {error['message']}"
    lines = [f"{_place(made)}   seed {made['seed']}   {made['width']}x{made['height']}" for made in _files(result)]
    lines += [f"warning: {warning}" for warning in result["warnings"]]
    timings = result["timings"]
    spent = [
        f"{name.removesuffix('_ms')} {ms / 1000:.2f}" for name, ms in timings.items() if ms >= 5 and name != "total_ms"
    ]
    cached = ", from the cache" if result["cached"] else ""
    lines.append(f"{timings['total_ms'] / 1000:.2f} s{cached}" + (f": {', '.join(spent)}" if spent else ""))
    return "\n".join(lines)


def _files(result: JsonObject) -> list[JsonObject]:
    return result["images"] if "images" in result else [result["video"]]


def _place(made: JsonObject) -> str:
    if "url" not in made:
        return f"inline, {made['bytes']} bytes"
    parts = urlsplit(made["url"])
    return unquote(parts.path) if parts.scheme == "file" else made["url"]


def print_summary(result: JsonObject) -> None:
    sys.stdout.write(summary(result) + "\n")
    sys.stdout.flush()
