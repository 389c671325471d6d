"""Results for the SDK; tests/runpod/ has their delivery."""

from __future__ import annotations

import json

from flux_engine.runpod_sdk.results import Unprinted


def test_a_result_is_not_written_out_for_a_log_that_nobody_reads() -> None:
    result = Unprinted({"images": [{"b64_json": "A" * 100}], "cached": True})
    assert f"{result}" == "<result with images, cached>"
    assert json.loads(json.dumps(result)) == {"images": [{"b64_json": "A" * 100}], "cached": True}
