"""What a result tells of how it came about."""

from __future__ import annotations

import pytest

from flux_engine.job.base import ParseContext
from flux_engine.job.parse import Request, parse_job
from flux_engine.results.files import ResultFiles
from flux_engine.results.result import Finished, Reuse, account_of
from flux_engine.timings import Clock
from tests.cache.results_of import entry_of

FINISHED = Finished(files=ResultFiles(entry_of("1" * 64, b"x")), model={"id": "flux-tiny"}, notes=("a note",))


@pytest.mark.parametrize(
    ("gpu_s", "price", "usage"),
    [
        (0.0, None, {"work": 0, "gpu_seconds": 0.0}),
        (0.0, 3.6, {"work": 0, "gpu_seconds": 0.0, "cost_usd": 0.0}),
        (2.0, None, {"work": 0.25, "gpu_seconds": 2.0}),
        (2.0, 3.6, {"work": 0.25, "gpu_seconds": 2.0, "cost_usd": 0.002}),
    ],
)
def test_usage_is_what_was_generated_and_the_time_that_the_gpu_was_held(
    context: ParseContext, gpu_s: float, price: float | None, usage: dict[str, float]
) -> None:
    job = parse_job(Request(id="a", input={"prompt": "a sun", "size": "256x256", "steps": 4}), context)
    reuse = Reuse(cached=False, warning="no cache")
    account = account_of(job, FINISHED, Clock(gpu_s=gpu_s), reuse=reuse, gpu_price_per_hour=price)
    assert account.usage == usage
    assert account.warnings == ("a note", "no cache")
