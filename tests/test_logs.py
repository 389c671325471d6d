"""Log lines: one event a line, with its facts and without secrets."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from contextvars import copy_context

import pytest

from flux_engine.logs import JsonLine, TerminalLine, about_job, about_request, enter_stage, redact, set_up_logs


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
        ("key flux_7Qm2xPf0aLzT_AbCdEfGhIjKlMnOpQrStUvWxYz refused", "AbCdEfGhIjKlMnOpQrStUvWxYz"),
        ("verified with whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        ("token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJl refused", "eyJzdWIiOiJhZGEifQ"),
        ("GET /task/a/result?expires=1&sig=AbCd-Ef_9 refused", "AbCd-Ef_9"),
    ],
)
def test_secrets_are_taken_out(text: str, secret: str) -> None:
    for formatter in (JsonLine(), TerminalLine()):
        assert secret not in formatter.format(record(text))
        assert secret not in formatter.format(record("x", detail=text))


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


async def test_a_line_names_its_job_and_stage_whoever_writes_it(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs("INFO", as_json=True)
    log = logging.getLogger("flux_engine.test")

    async def job(name: str, begun: asyncio.Event, other: asyncio.Event) -> None:
        with about_job(name):
            begun.set()
            await other.wait()
            enter_stage("loading")
            log.info("in the task")
            await asyncio.to_thread(log.info, "in a thread")
            thread = threading.Thread(target=copy_context().run, args=(enter_stage, "text"))
            thread.start()
            thread.join()
            await asyncio.create_task(asyncio.to_thread(log.info, "in a task of the task"))

    first, second = asyncio.Event(), asyncio.Event()
    await asyncio.gather(job("a", first, second), job("b", second, first))
    log.info("outside")
    told = lines(capsys)
    assert sorted((line["job_id"], line["event"], line["stage"]) for line in told[:-1]) == [
        (name, event, stage)
        for name in ("a", "b")
        for event, stage in (("in a task of the task", "text"), ("in a thread", "loading"), ("in the task", "loading"))
    ]
    assert all(isinstance(line["job_ms"], int) for line in told[:-1])
    assert "job_id" not in told[-1]


def test_lines_tell_the_request_that_they_came_from(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logs("INFO", as_json=True)
    log = logging.getLogger("flux_engine.test")
    with about_request("r-1", "0af7651916cd43dd8448eb211c80319c"), about_job("j1"):
        log.info("inside")
    with about_request("r-2", ""):
        log.info("without a trace")
    log.info("outside")
    told = [(line.get("request_id"), line.get("trace_id"), line.get("job_id")) for line in lines(capsys)]
    assert told == [("r-1", "0af7651916cd43dd8448eb211c80319c", "j1"), ("r-2", None, None), (None, None, None)]
