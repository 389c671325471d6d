"""The generated tables are what the code says now."""

from __future__ import annotations

from pathlib import Path

import pytest

from builder.docs import PAGES, TABLES, rendered


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tables_are_current(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert rendered(text) == text, "run `make docs`"


@pytest.mark.parametrize("name", sorted(TABLES))
def test_every_table_stands_on_a_page(name: str) -> None:
    assert any(f"<!-- begin:{name} -->" in page.read_text(encoding="utf-8") for page in PAGES)
