"""Logs: one event a line, JSON on the platform and readable at a terminal.

A filter in front of every handler adds the job that a line is about, its stage, the milliseconds since the job was
taken and the request that it came from, from context variables that tasks and threads inherit, so no call can forget
them. Another filter removes what must not be there even by accident: query strings of URLs, Authorization values and
tokens.

    with about_job(request.id):
        log.warning("bucket unreachable")      # the line has the job's id
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

FACTS_OF_JSON: Final = ("plan",)  # too long for a terminal
FACTS: Final = (
    *("job_id", "stage", "job_ms", "ms", "route", "status", "code", "reference", "model", "detail"),
    *("request_id", "trace_id"),
)
SECRETS: Final = (
    (re.compile(r"(https?://[^\s?\"']+)\?[^\s\"']*"), r"\1?***"),
    (re.compile(r"(?i)\b(authorization\W+(?:bearer\s+)?)[^\s\"',}]+"), r"\1***"),
    (re.compile(r"\b(hf_|rpa_|sk-|whsec_|flux_[A-Za-z0-9]{12}_)[A-Za-z0-9_+/-]{8,}"), r"\1***"),
    (re.compile(r"\b(eyJ)[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"), r"\1***"),  # a JSON Web Token
    (re.compile(r"([?&]sig=)[A-Za-z0-9_-]+"), r"\1***"),
    (re.compile(r"(?i)\b((?:secret|token|password|api_?key)[\"']?\s*[=:]\s*[\"']?)[^\s\"',}&]{4,}"), r"\1***"),
)


@dataclass(slots=True)
class _Subject:
    """The job that lines are about. One object for all its tasks and threads: whichever enters a stage tells all."""

    job_id: str
    stage: str | None = None
    taken_at: float = field(default_factory=time.monotonic)


_subject: ContextVar[_Subject | None] = ContextVar("subject", default=None)
_request: ContextVar[tuple[str | None, str | None]] = ContextVar("request", default=(None, None))


@contextmanager
def about_job(job_id: str) -> Iterator[None]:
    """Within, lines are about this job: also those of tasks begun here and of threads that run in this context."""
    token = _subject.set(_Subject(job_id))
    try:
        yield
    finally:
        _subject.reset(token)


@contextmanager
def about_request(request_id: str, trace_id: str) -> Iterator[None]:
    """Within, lines have the ids that a client's request and its trace are known by; an empty one is left out."""
    token = _request.set((request_id or None, trace_id or None))
    try:
        yield
    finally:
        _request.reset(token)


def enter_stage(stage: str) -> None:
    """Lines about the current job name `stage` from now on."""
    subject = _subject.get()
    if subject is not None:
        subject.stage = stage


def set_up_logs(level: str, *, as_json: bool) -> None:
    """Send the worker's events to standard error; other libraries speak from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLine() if as_json else TerminalLine())
    handler.addFilter(tell_subject)
    handler.addFilter(redact)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("flux_engine").setLevel(level)


def tell_subject(record: logging.LogRecord) -> bool:
    """Add to `record` which job and request it is about, where there is one. Always True."""
    record.request_id, record.trace_id = _request.get()
    subject = _subject.get()
    if subject is not None:
        record.job_id, record.stage = subject.job_id, subject.stage
        record.job_ms = round((time.monotonic() - subject.taken_at) * 1000)
    return True


def redact(record: logging.LogRecord) -> bool:
    """Rewrite `record` without secrets. Always True: nothing is dropped."""
    record.msg, record.args = without_secrets(record.getMessage()), None
    for fact in FACTS:
        value = getattr(record, fact, None)
        if isinstance(value, str):
            setattr(record, fact, without_secrets(value))
    return True


def without_secrets(text: str) -> str:
    for pattern, replacement in SECRETS:
        text = pattern.sub(replacement, text)
    return text


class JsonLine(logging.Formatter):
    """`{"time": ..., "level": ..., "event": ..., "job_id": ...}`"""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line |= {fact: value for fact in (*FACTS, *FACTS_OF_JSON) if (value := getattr(record, fact, None)) is not None}
        if record.exc_info:
            line["traceback"] = without_secrets(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False, default=str)


class TerminalLine(logging.Formatter):
    """`12:30:05 model loaded  job_id=x ms=812`"""

    def format(self, record: logging.LogRecord) -> str:
        facts = "".join(f"  {f}={value}" for f in FACTS if (value := getattr(record, f, None)) is not None)
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        line = f"{clock} {level}{record.getMessage()}{facts}"
        return line + ("\n" + without_secrets(self.formatException(record.exc_info)) if record.exc_info else "")
