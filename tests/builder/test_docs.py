"""The README's generated tables are what the code says now."""

from __future__ import annotations

import pytest

from builder.docs import README, TABLES, rendered


def test_the_readmes_tables_are_current() -> None:
    text = README.read_text(encoding="utf-8")
    assert rendered(text) == text, "run `make docs`"


@pytest.mark.parametrize("name", sorted(TABLES))
def test_every_table_stands_in_the_readme(name: str) -> None:
    assert f"<!-- begin:{name} -->" in README.read_text(encoding="utf-8")
