"""A walk through every state of the page, for whoever looks at each: axe in the tests, a camera in the benchmark.

for state in walk(page, served, prompt="a red sun"):
    page.screenshot(path=f"{state}.png")
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Final

from playwright.sync_api import Page, expect

from tests.gateway.page.by_hand import ByHand
from tests.gateway.page.conftest import ROOT, Served, ask_for, sign_in
from tests.gateway.world import picture

BUNDLED: Final = ROOT / "docs" / "images" / "flux-tiny.png"  # a picture to send
PREVIEW: Final = "data:image/png;base64," + base64.b64encode(picture(3)).decode()


def walk(page: Page, served: Served | ByHand, *, prompt: str) -> Iterator[str]:
    """The name of each state, with the page in it. `prompt` is one that no other task has. By hand each state stays as
    long as it is looked at; a worker has to be slow enough for a preview."""
    page.goto(served.url)
    expect(page.get_by_label("API key or token")).to_be_visible()
    yield "sign-in"
    page.get_by_label("API key or token").fill("flux_wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_be_visible()
    yield "wrong-key"
    sign_in(page, served)
    yield "form"
    yield from _made(page, served, prompt=prompt)
    yield from _edited(page)
    page.get_by_role("button", name="Video", exact=True).click()
    page.get_by_role("button", name="Add a keyframe").click()
    page.get_by_label("How frames follow").select_option("feedback")
    yield "video"
    page.get_by_role("button", name="Keys").click()
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    yield "keys"


def _made(page: Page, served: Served | ByHand, *, prompt: str) -> Iterator[str]:
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
    if isinstance(served, ByHand):
        job = served.take()
        served.progress(job, 0.5, seq=1, step=25, total_steps=50, preview=PREVIEW)
    expect(coming.locator(".preview img")).to_be_visible()
    yield "preview"
    if isinstance(served, ByHand):
        served.finish(job)
    card = page.get_by_role("button", name=f"Open “{prompt}”")
    expect(card.locator("img")).to_be_visible()
    yield "gallery"
    card.click()
    expect(page.locator("dialog img")).to_be_visible()
    yield "picture"


def _edited(page: Page) -> Iterator[str]:
    """From the finished picture that is open to maps that another follows."""
    page.get_by_role("button", name="Use as input").click()
    page.get_by_label("Paint a mask").check()
    paint(page)
    yield "mask"
    page.get_by_label("Paint a mask").uncheck()
    page.get_by_role("group", name="Extend the canvas").get_by_label("Right").fill("64")
    yield "canvas"
    model = page.get_by_label("Model")
    own = model.input_value()
    model.select_option("black-forest-labs/FLUX.2-klein-4B")
    for number in (1, 2):
        page.get_by_label(f"Reference {number}", exact=True).set_input_files(BUNDLED)
    expect(page.get_by_label("Reference 3", exact=True)).to_be_visible()
    yield "references"
    model.select_option(own)
    page.get_by_role("button", name="Make", exact=True).click()
    page.get_by_role("button", name="Add a map").click()
    page.get_by_label("Picture of map 1", exact=True).set_input_files(BUNDLED)
    expect(page.get_by_role("group", name="Map 1").locator("img")).to_be_visible()
    yield "map"


def paint(page: Page) -> None:
    """A stroke on the mask, by mouse."""
    canvas = page.locator(".paper canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + box["height"] * 0.3)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.4, steps=6)
    page.mouse.up()
    expect(page.get_by_text("Nothing is masked yet.")).to_have_count(0)
