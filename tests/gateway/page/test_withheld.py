"""What the page says of pictures that the content filter withheld."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from local_platform.job import Job
from tests.gateway.page.by_hand import by_hand
from tests.gateway.page.conftest import NARROW, WIDE, ask_for, opened, sign_in
from tests.gateway.world import failure, picture, result_of
from tests.servers import RedisProcess

BOTH = pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
ALL = "all 3 pictures were withheld by this endpoint's content filter (nsfw 0.97); change the prompt or the seed"


@BOTH
def test_some_are_withheld(browser: Browser, shared_redis: RedisProcess, tmp_path: Path, size: tuple[int, int]) -> None:
    with by_hand(shared_redis.url, tmp_path) as gateway, opened(browser, size) as page:
        sign_in(page, gateway)
        ask_for(page, "a beach", Pictures="3", Seed="5")
        job = gateway.take()
        gateway.finish(job, without_the_second(job))
        cards = page.get_by_role("button", name="Open “a beach”")
        expect(cards).to_have_count(3)
        expect(cards.locator("img")).to_have_count(2)
        withheld = page.get_by_role("button", name="Open “a beach”: Withheld by the content filter")
        expect(withheld).to_have_count(1)
        expect(withheld).to_have_text("Withheld by the content filter")
        expect(page.locator(".gallery .caption")).to_contain_text(["Seed 5", "Seed 6", "Seed 7"])
        withheld.click()
        dialog = page.get_by_role("dialog")
        expect(dialog.locator("figcaption")).to_contain_text("The content filter withheld this picture")
        expect(dialog.locator("figcaption")).to_contain_text("nsfw 0.93")
        expect(dialog.get_by_role("button", name="Download")).to_have_count(0)
        page.keyboard.press("Escape")
        cards.nth(2).click()
        with page.expect_download() as download:
            dialog.get_by_role("button", name="Download").click()
        assert download.value.suggested_filename == "flux-7.png"
        assert download.value.path().read_bytes() == picture(7)


def test_all_are_withheld(browser: Browser, shared_redis: RedisProcess, tmp_path: Path) -> None:
    with by_hand(shared_redis.url, tmp_path) as gateway, opened(browser, WIDE) as page:
        sign_in(page, gateway)
        ask_for(page, "a beach", Pictures="3")
        gateway.finish(gateway.take(), error=failure("content_filtered", ALL))
        card = page.get_by_role("button", name="Open “a beach”: Withheld by the content filter")
        expect(card).to_have_count(1)
        expect(page.get_by_role("status")).to_have_text("Withheld by the content filter: a beach")
        page.get_by_label("Language").select_option("pt")
        expect(page.get_by_text("Retida pelo filtro de conteúdo", exact=True)).to_be_visible()
        page.locator(".card").click()
        shown = page.get_by_role("dialog").locator("figcaption")
        expect(shown).to_contain_text("O filtro de conteúdo reteve esta imagem")
        expect(shown).to_contain_text("nsfw 0.97")


def without_the_second(job: Job) -> dict[str, Any]:
    """As a worker answers `job`, of three pictures, whose filter let the second through to nobody."""
    output = result_of(job)
    made = []
    for seed in (5, 7):
        data = picture(seed)
        facts = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "width": 64, "height": 64}
        made.append(output["images"][0] | facts | {"seed": seed, "b64_json": base64.b64encode(data).decode()})
    withheld = {"index": 1, "seed": 6, "label": "nsfw", "score": 0.9312, "reason": "content_filtered"}
    return output | {"images": made, "withheld": [withheld]}
