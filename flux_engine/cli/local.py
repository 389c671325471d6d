"""Runs on one's own machine: the forms of `--test_input`, and what a person reads at the end."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from flux_engine.job.base import JsonObject
from flux_engine.job.written.misplaced import envelope_fault

TEST_INPUT: Final = "--test_input"
WIDTH: Final = 100


class TestInputError(Exception):
    """`--test_input` is not the JSON of a job. The text says what is wrong."""

    __test__ = False  # the name is the flag's, not a test's


def with_test_input(arguments: Sequence[str], default: Path) -> list[str]:
    """`arguments` with the job's JSON as the value of --test_input.

    The SDK refuses a bare --test_input and looks for test_input.json in the working directory. Here a bare flag and no
    flag at all both mean the file `default`. Raises TestInputError.
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
        raise TestInputError(f"{source}: {envelope_fault(job)}")
    return [*rest, TEST_INPUT, text]


def _given(arguments: list[str]) -> str | None:
    """Remove --test_input and its value from `arguments`; None without a value."""
    for i, argument in enumerate(arguments):
        if argument.startswith(TEST_INPUT + "="):
            return arguments.pop(i).partition("=")[2]
        if argument == TEST_INPUT:
            del arguments[i]
            has_value = i < len(arguments) and not arguments[i].startswith("--")
            return arguments.pop(i) if has_value else None
    return None


def summary(result: JsonObject) -> str:
    """The files, their seeds, warnings and times; or the error and whether the same job may succeed later.

    The answer to a question, or to a request in OpenAI's shape, is shown as it is.
    """
    if "error" in result:
        return failure(json.loads(result["error"]))
    if not _is_of_a_job(result):
        return json.dumps(result, ensure_ascii=False)
    lines = [f"{_place(made)}   seed {made['seed']}   {made['width']}x{made['height']}" for made in _files(result)]
    lines += [_wrapped(f"warning: {warning}") for warning in result["warnings"]]
    timings = result["timings"]
    spent = [
        f"{name.removesuffix('_ms')} {ms / 1000:.2f}" for name, ms in timings.items() if ms >= 5 and name != "total_ms"
    ]
    cached = ", from the cache" if result["cached"] else ""
    lines.append(f"{timings['total_ms'] / 1000:.2f} s{cached}" + (f": {', '.join(spent)}" if spent else ""))
    return "\n".join(lines)


def failure(error: JsonObject) -> str:
    """A job's error for a reader: code and field, the message with the mend, and whether to send the job again.

    It has the contract's shape or OpenAI's.
    """
    said = error.get("error", error)
    named = said.get("field") or said.get("param")
    field = f" ({named})" if named else ""
    later = (
        "The same job may succeed later: send it again."
        if error["retryable"]
        else "The same job fails again until this is changed."
    )
    return "\n".join((f"failed: {said['code']}{field}", _wrapped(f"  {said['message']}"), f"  {later}"))


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _is_of_a_job(result: JsonObject) -> bool:
    return "images" in result or "video" in result


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
