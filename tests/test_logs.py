"""Log lines: one event a line, with its facts and without secrets."""

from __future__ import annotations

import json
import logging

import pytest

from flux_engine.logs import JsonLine, TerminalLine, redact


def record(message: str, **facts: object) -> logging.LogRecord:
    made = logging.LogRecord("flux_engine.test", logging.INFO, "here", 1, message, None, None)
    made.__dict__.update(facts)
    assert redact(made)
    return made


def test_a_json_line_holds_event_and_facts() -> None:
    line = json.loads(JsonLine().format(record("job done", job_id="j1", stage="upload", ms=12)))
    assert (line["event"], line["job_id"], line["stage"], line["ms"], line["level"]) == (
        "job done", "j1", "upload", 12, "info",
    )  # fmt: skip


def test_a_terminal_line_reads() -> None:
    assert TerminalLine().format(record("job done", job_id="j1")).endswith("job done  job_id=j1")


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("GET https://s3.example/a.png?X-Amz-Signature=abcdef12 failed", "abcdef12"),
        ("Authorization: Bearer rpa_ABCDEF123456", "rpa_ABCDEF123456"),
        ("authorization='plainvalue99'", "plainvalue99"),
        ("token hf_AbCdEfGhIjKlMn refused", "hf_AbCdEfGhIjKlMn"),
        ('{"secret": "s3cr3tvalue"}', "s3cr3tvalue"),
        ("api_key=topsecretkey", "topsecretkey"),
    ],
)
def test_secrets_are_taken_out(text: str, secret: str) -> None:
    for formatter in (JsonLine(), TerminalLine()):
        assert secret not in formatter.format(record(text))
        assert secret not in formatter.format(record("x", detail=text))
