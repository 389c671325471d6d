"""The look at every log line finds what it looks for."""

from __future__ import annotations

import logging

import pytest

from tests import leaks
from tests.servers import SECRET_KEY


@pytest.mark.parametrize(
    "private",
    [
        SECRET_KEY,
        "https://s3.example/flux/a.png?X-Amz-Signature=0f0f",
        "a small red sun over hills",
        "'b64_json': 'iVBORw0KGgoAAAANSUhEUg'",
        "Bearer hf_AbCdEfGhIj",
    ],
)
def test_a_private_line_is_found(private: str) -> None:
    logging.getLogger("flux_engine.somewhere").debug("so far: %s", private)
    assert len(leaks.found) == 1
    leaks.found.clear()


def test_an_event_is_not() -> None:
    logging.getLogger("flux_engine.somewhere").info("job done", extra={"job_id": "red-sun", "ms": 12})
    assert leaks.found == []
