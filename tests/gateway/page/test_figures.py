"""What the page weighs, that nothing on it jumps, and that its library is the one that was reviewed."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.gateway.page.conftest import ROOT, WIDE, Served, ask_for, opened, sign_in

PAGE = ROOT / "flux_engine" / "gateway" / "page"
MOST_BYTES = 200_000


def test_all_of_it_compressed_is_small() -> None:
    files = [file for file in PAGE.rglob("*") if file.is_file()]
    assert sum(len(gzip.compress(file.read_bytes())) for file in files) <= MOST_BYTES


def test_the_library_is_what_vendor_json_says() -> None:
    facts = json.loads((PAGE / "vendor" / "vendor.json").read_text(encoding="utf-8"))
    assert hashlib.sha256((PAGE / "vendor" / facts["file"]).read_bytes()).hexdigest() == facts["sha256"]


def test_nothing_comes_from_elsewhere() -> None:
    for file in [*PAGE.rglob("*.js"), PAGE / "index.html", PAGE / "style.css"]:
        assert "import(" not in file.read_text(encoding="utf-8")
        assert 'from "http' not in file.read_text(encoding="utf-8"), Path(file).name


@pytest.mark.slow
def test_no_layout_shift_while_a_picture_comes(browser: Browser, served: Served) -> None:
    with opened(browser, WIDE) as page:
        page.add_init_script(
            """window.shift = 0;
            new PerformanceObserver((list) => {
                for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shift += entry.value;
            }).observe({ type: "layout-shift", buffered: true });"""
        )
        sign_in(page, served)
        ask_for(page, "nothing jumps", Steps="50")
        expect(page.get_by_role("button", name="Open “nothing jumps”").locator("img")).to_be_visible()
        assert page.evaluate("window.shift") < 0.001  # what Lighthouse shows as 0
