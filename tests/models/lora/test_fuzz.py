"""A part of the generated files that `python -m tests.models.lora.fuzz 5000` tries."""

from __future__ import annotations

from tests.models.lora import fuzz


def test_a_generated_file_is_applied_or_refused_by_name() -> None:
    results = fuzz.run(250, seed=1)
    assert set(results) == {"applied", "lora_invalid", "lora_incompatible"}
    assert min(results.values()) > 20
