"""The order of reference pictures, changed by keyboard and by pointer and kept in the request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.gateway.page.by_hand import by_hand
from tests.gateway.page.conftest import NARROW, WIDE, ask_for, opened, sign_in
from tests.gateway.page.test_maps import a_map, colour_of
from tests.servers import RedisProcess

BOTH = pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
RED: Final = (255, 0, 0)
LIME: Final = (0, 255, 0)
BLUE: Final = (0, 0, 255)


@contextmanager
def with_three(browser: Browser, redis: RedisProcess, folder: Path, size: tuple[int, int] = WIDE) -> Iterator[Page]:
    """Edit mode with a red, a lime and a blue reference."""
    with by_hand(redis.url, folder) as gateway, opened(browser, size) as page:
        sign_in(page, gateway)
        page.get_by_role("button", name="Edit", exact=True).click()
        page.get_by_label("Model").select_option("black-forest-labs/FLUX.2-klein-4B")
        for number, colour in enumerate(("red", "lime", "blue"), start=1):
            file = {"name": f"{colour}.png", "mimeType": "image/png", "buffer": a_map(colour)}
            page.get_by_label(f"Reference {number}", exact=True).set_input_files(file)  # type: ignore[arg-type]
            expect(pictures(page)).to_have_count(number)
        yield page


@BOTH
def test_by_keyboard(browser: Browser, shared_redis: RedisProcess, tmp_path: Path, size: tuple[int, int]) -> None:
    with with_three(browser, shared_redis, tmp_path, size) as page:
        expect(move(page, 1, "up")).to_be_disabled()
        expect(move(page, 3, "down")).to_be_disabled()
        move(page, 3, "up").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("status")).to_have_text("Reference 3 is now 2 of 3.")
        expect(move(page, 2, "up")).to_be_focused()
        page.keyboard.press("Space")
        expect(page.get_by_role("status")).to_have_text("Reference 2 is now 1 of 3.")
        expect(move(page, 1, "down")).to_be_focused()  # it is the first, and cannot go further up
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert colours_sent(page) == [BLUE, RED, LIME]


@BOTH
def test_by_pointer(browser: Browser, shared_redis: RedisProcess, tmp_path: Path, size: tuple[int, int]) -> None:
    with with_three(browser, shared_redis, tmp_path, size) as page:
        move(page, 1, "down").click()
        expect(move(page, 2, "down")).to_be_focused()
        assert colours_sent(page) == [LIME, RED, BLUE]


def test_a_row_keeps_what_is_typed_in_it(browser: Browser, shared_redis: RedisProcess, tmp_path: Path) -> None:
    with with_three(browser, shared_redis, tmp_path) as page:
        page.get_by_label("Reference 4: or its https address").fill("https:/")
        page.get_by_role("button", name="Remove: Reference 1").click()
        begun = page.get_by_label("Reference 3: or its https address")
        expect(begun).to_have_value("https:/")
        begun.fill("https://example.com/one.png")
        move(page, 3, "up").click()
        expect(page.get_by_label("Reference 2: or its https address")).to_have_value("https://example.com/one.png")
        expect(page.get_by_label("Reference 4: or its https address")).to_have_value("")


def test_in_portuguese(browser: Browser, shared_redis: RedisProcess, tmp_path: Path) -> None:
    with with_three(browser, shared_redis, tmp_path) as page:
        page.get_by_label("Language").select_option("pt")
        page.get_by_role("button", name="Mover a referência 1 para baixo").press("Enter")
        expect(page.get_by_role("status")).to_have_text("A referência 1 agora é a 2 de 3.")
        expect(page.get_by_role("button", name="Mover a referência 2 para baixo")).to_be_focused()


def pictures(page: Page) -> Locator:
    return page.get_by_role("group", name="Reference pictures").locator("img")


def move(page: Page, number: int, way: str) -> Locator:
    return page.get_by_role("button", name=f"Move reference {number} {way}")


def colours_sent(page: Page) -> list[object]:
    """Of the references in the request that Ctrl+Enter makes."""
    with page.expect_request("**/generate-image") as asked:
        ask_for(page, "a house of these colours")
    return [colour_of(one) for one in json.loads(asked.value.post_data or "{}")["images"]]
