"""axe on each state of the page in both themes, and all of it by keyboard."""

from __future__ import annotations

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.gateway.page.by_hand import by_hand
from tests.gateway.page.conftest import NARROW, WIDE, Served, opened
from tests.gateway.page.states import walk
from tests.servers import RedisProcess

pytestmark = pytest.mark.slow
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def faults(page: Page) -> list[tuple[str, list[str]]]:
    found = Axe().run(page, options={"runOnly": RULES}).response["violations"]
    return [(one["id"], [node["html"] for node in one["nodes"]]) for one in found]


@pytest.mark.parametrize(
    ("size", "theme"),
    [(WIDE, "light"), (WIDE, "dark"), (NARROW, "light"), (NARROW, "dark")],
    ids=["wide-light", "wide-dark", "narrow-light", "narrow-dark"],
)
def test_no_fault_in_any_state(
    browser: Browser, shared_redis: RedisProcess, tmp_path: Path, size: tuple[int, int], theme: str
) -> None:
    with (
        by_hand(shared_redis.url, tmp_path) as gateway,
        opened(browser, size, theme=theme, bypass_csp=True) as page,  # axe is injected
    ):
        for state in walk(page, gateway, prompt="a red sun"):
            assert faults(page) == [], state


def test_axe_finds_what_is_wrong(browser: Browser, served: Served) -> None:
    with opened(browser, WIDE, bypass_csp=True) as page:
        page.goto(served.url)
        page.evaluate("document.body.append(document.createElement('button'))")
        assert "button-name" in [name for name, _ in faults(page)]


def test_a_picture_by_keyboard_alone(browser: Browser, served: Served) -> None:
    with opened(browser, WIDE) as page:
        page.goto(served.url)
        expect(page.get_by_label("API key or token")).to_be_visible()
        tab_to(page, "API key or token")
        page.keyboard.type(served.key)
        page.keyboard.press("Enter")
        expect(page.get_by_label("Prompt", exact=True)).to_be_visible()
        tab_to(page, "Prompt")
        page.keyboard.type("by keyboard alone")
        tab_to(page, "Steps")
        page.keyboard.type("4")
        tab_to(page, "Generate")
        page.keyboard.press("Enter")
        card = page.get_by_role("button", name="Open “by keyboard alone”")
        expect(card.locator("img")).to_be_visible()
        tab_to(page, "Open “by keyboard alone”")
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_be_visible()
        tab_to(page, "Download")
        with page.expect_download() as download:
            page.keyboard.press("Enter")
        assert download.value.suggested_filename.endswith(".png")


NAME = """(() => {
    const one = document.activeElement;
    return (one.getAttribute("aria-label") ?? one.labels?.[0]?.textContent ?? one.textContent ?? "").trim();
})()"""


def tab_to(page: Page, name: str) -> None:
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate(NAME).startswith(name):
            return
    raise AssertionError(f"{name} cannot be reached by Tab")
