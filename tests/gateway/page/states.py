"""A walk through every state of the page, for whoever looks at each: axe in the tests, a camera in the benchmark.

for state in walk(page, served, prompt="a red sun"):
    page.screenshot(path=f"{state}.png")
"""

from __future__ import annotations

from collections.abc import Iterator

from playwright.sync_api import Page, expect

from tests.gateway.page.conftest import Served, ask_for, sign_in


def walk(page: Page, served: Served, *, prompt: str) -> Iterator[str]:
    """The name of each state, with the page in it. `prompt` is one that no other task has."""
    page.goto(served.url)
    expect(page.get_by_label("API key or token")).to_be_visible()
    yield "sign-in"
    page.get_by_label("API key or token").fill("flux_wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_be_visible()
    yield "wrong-key"
    sign_in(page, served)
    yield "form"
    yield from _made(page, prompt=prompt)
    page.get_by_role("button", name="Use as input").click()
    page.get_by_label("Paint a mask").check()
    paint(page)
    yield "mask"
    page.get_by_role("button", name="Video", exact=True).click()
    page.get_by_role("button", name="Add a keyframe").click()
    page.get_by_label("How frames follow").select_option("feedback")
    yield "video"
    page.get_by_role("button", name="Keys").click()
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    yield "keys"


def _made(page: Page, *, prompt: str) -> Iterator[str]:
    """From a mistake to a finished picture, opened."""
    page.get_by_text("More settings").click()
    page.get_by_role("button", name="Add a LoRA").click()
    yield "more-settings"
    ask_for(page, prompt, Steps="999")
    expect(page.locator("#make .error").first).to_be_visible()
    yield "mistake"
    page.get_by_role("button", name="Remove").click()
    page.get_by_text("More settings").click()
    ask_for(page, prompt, Steps="50")
    coming = page.locator(".under-way", has_text=prompt)
    expect(coming).to_be_visible()
    yield "under-way"
    expect(coming.locator(".preview img")).to_be_visible()
    yield "preview"
    card = page.get_by_role("button", name=f"Open “{prompt}”")
    expect(card.locator("img")).to_be_visible()
    yield "gallery"
    card.click()
    expect(page.locator("dialog img")).to_be_visible()
    yield "picture"


def paint(page: Page) -> None:
    """A stroke on the mask, by mouse."""
    box = page.locator(".paper canvas").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + box["height"] * 0.3)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.4, steps=6)
    page.mouse.up()
