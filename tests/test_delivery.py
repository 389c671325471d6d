"""The platform's size limits, kept before the platform sees a result."""

from __future__ import annotations

import pytest

from flux_engine.delivery import within_limit
from flux_engine.errors import ResultTooLarge


@pytest.mark.parametrize(
    ("job_id", "megabytes", "fits"), [("a", 9.9, True), ("a", 10, False), ("sync-a", 19.9, True), ("sync-a", 20, False)]
)
def test_a_result_over_the_limit_is_refused_with_the_way_out(job_id: str, megabytes: float, fits: bool) -> None:
    result = {"images": [{"b64_json": "A" * int(megabytes * 1e6)}]}
    if fits:
        assert within_limit(result, job_id) is result
    else:
        with pytest.raises(ResultTooLarge, match="a smaller `output_format`, or set a bucket"):
            within_limit(result, job_id)
