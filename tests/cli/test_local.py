"""What `--test_input` may look like, and what a person reads at the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flux_engine.cli.local import TestInputError, summary, with_test_input
from flux_engine.errors import InvalidInput, StorageFailed
from flux_engine.openai.error import error_body

JOB = '{"input": {"prompt": "a red sun"}}'


@pytest.fixture
def default(tmp_path: Path) -> Path:
    path = tmp_path / "test_input.json"
    path.write_text('{"input": {"prompt": "the default"}}')
    return path


@pytest.mark.parametrize(
    ("arguments", "prompt", "rest"),
    [
        ([], "the default", []),
        (["--test_input"], "the default", []),
        (["--test_input", "--rp_log_level", "ERROR"], "the default", ["--rp_log_level", "ERROR"]),
        (["--test_input", JOB], "a red sun", []),
        ([f"--test_input={JOB}", "--rp_debugger"], "a red sun", ["--rp_debugger"]),
    ],
)
def test_a_test_input_is_found(default: Path, arguments: list[str], prompt: str, rest: list[str]) -> None:
    *before, flag, text = with_test_input(arguments, default)
    assert (before, flag) == (rest, "--test_input")
    assert json.loads(text)["input"]["prompt"] == prompt


@pytest.mark.parametrize("text", ["{", "[]", "5", "null", "{}", '{"input": null}', '{"prompt": "sun"}', "[" * 100_000])
def test_what_is_no_job_is_said(default: Path, text: str) -> None:
    with pytest.raises(TestInputError):
        with_test_input(["--test_input", text], default)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(TestInputError, match=r"test_input\.json: cannot be read"):
        with_test_input([], tmp_path / "test_input.json")


def test_the_summary_says_where_what_and_how_long(tmp_path: Path) -> None:
    picture = tmp_path / "a sun.png"
    result = {
        "images": [{"url": picture.as_uri(), "seed": 7, "width": 256, "height": 128}],
        "timings": {"total_ms": 2500, "load_ms": 2000, "denoise_ms": 490, "upload_ms": 1},
        "warnings": ["size rounded"],
        "cached": False,
    }
    said = summary(result)
    assert said.splitlines()[0] == f"{picture}   seed 7   256x128"
    assert "warning: size rounded" in said
    assert said.endswith("2.50 s: load 2.00, denoise 0.49")


def test_the_summary_of_an_error_is_its_message() -> None:
    error = InvalidInput("`width` must be smaller", field="width").to_json("j")
    assert summary({"error": error}).splitlines() == [
        "failed: invalid_input (width)",
        "  `width` must be smaller",
        "  The same job fails again until this is changed.",
    ]


def test_the_summary_of_a_passing_error_says_to_send_it_again() -> None:
    error = StorageFailed("the bucket did not answer; " + "send the job again, " * 10).to_json("j")
    lines = summary({"error": error}).splitlines()
    assert lines[-1] == "  The same job may succeed later: send it again."
    assert all(len(line) <= 100 for line in lines)


@pytest.mark.parametrize(
    "answer",
    [
        {"op": "capabilities", "models": [{"id": "flux-tiny"}]},
        {"object": "list", "data": [{"id": "flux-tiny", "object": "model"}]},
        {"created": 1, "data": [{"url": "file:///out/sun.png"}]},
    ],
)
def test_an_answer_that_is_no_picture_is_shown_as_it_is(answer: dict[str, Any]) -> None:
    assert json.loads(summary(answer)) == answer


def test_the_summary_of_an_error_in_openais_shape_is_its_message() -> None:
    body = error_body({"code": "invalid_input", "message": "`n` must be smaller", "field": "num_images"})
    text = json.dumps(body | {"status": 400, "retryable": False})
    assert summary({"error": text}).splitlines()[:2] == ["failed: invalid_input (n)", "  `n` must be smaller"]


def test_a_job_without_input_is_told_where_its_fields_belong(default: Path) -> None:
    with pytest.raises(TestInputError, match="must be in `input`"):
        with_test_input(["--test_input", '{"prompt": "a red sun"}'], default)
