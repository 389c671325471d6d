"""Maps that a picture follows, on the page: offered where the API offers them, given by pointer and by keyboard."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Locator, Page, expect

from tests.gateway.page.by_hand import ByHand, by_hand
from tests.gateway.page.conftest import NARROW, WIDE, Served, ask_for, opened, sign_in
from tests.servers import RedisProcess

BOTH = pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
TITLE = "Maps to follow"


@BOTH
def test_two_maps_are_given_and_sent(
    browser: Browser, shared_redis: RedisProcess, tmp_path: Path, size: tuple[int, int]
) -> None:
    with by_hand(shared_redis.url, tmp_path / "gateway") as gateway, opened(browser, size) as page:
        sign_in(page, gateway)
        page.get_by_role("button", name="Add a map").click()
        first = page.get_by_role("group", name="Map 1")
        give(page, first, event="drop", colour="white")
        expect(first.locator("img")).to_be_visible()
        first.get_by_label("What the map shows").select_option(label="Depth")
        first.get_by_role("spinbutton", name="Strength").fill("0.5")
        page.get_by_role("button", name="Add a map").click()
        expect(page.get_by_role("button", name="Add a map")).to_have_count(0)  # as many as the API takes
        second = page.get_by_role("group", name="Map 2")
        give(page, second, event="paste", colour="red")
        expect(second.locator("img")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        with page.expect_request("**/generate-image") as asked:
            ask_for(page, "a castle of glass")
        sent = json.loads(asked.value.post_data or "{}")["control"]
        assert [{name: part for name, part in one.items() if name != "image"} for one in sent] == [
            {"type": "depth", "strength": 0.5},
            {"type": "canny"},
        ]
        assert [colour_of(one["image"]) for one in sent] == [(255, 255, 255), (255, 0, 0)]
        gateway.finish(gateway.take())
        page.get_by_role("button", name="Remove: Map 1").click()
        expect(page.get_by_role("group", name="Map 1").locator("img")).to_be_visible()
        expect(page.get_by_role("group", name="Map 2")).to_have_count(0)


def test_the_bounds_are_those_of_the_api(browser: Browser, shared_redis: RedisProcess, tmp_path: Path) -> None:
    with by_hand(shared_redis.url, tmp_path) as gateway, opened(browser, WIDE) as page:
        sign_in(page, gateway)
        said = page.request.get(f"{gateway.url}capabilities", headers=gateway.world.headers).json()
        parts = said["schemas"]["image"]["flux-tiny"]["properties"]["control"]["anyOf"][0]["properties"]
        page.get_by_role("button", name="Add a map").click()
        types = page.get_by_label("What the map shows").locator("option")
        assert types.evaluate_all("all => all.map((one) => one.value)") == parts["type"]["enum"]
        for label, name in {"Strength": "strength", "Share of the steps": "end"}.items():
            field = page.get_by_role("group", name="Map 1").get_by_role("spinbutton", name=label)
            facts = [field.get_attribute(one) for one in ("min", "max", "placeholder")]
            assert facts == [str(parts[name][one]) for one in ("minimum", "maximum", "default")]
        page.get_by_label("Model").select_option("black-forest-labs/FLUX.2-klein-4B")
        expect(page.get_by_role("group", name=TITLE)).to_have_count(0)


def test_a_map_by_keyboard_and_its_faults(browser: Browser, shared_redis: RedisProcess, tmp_path: Path) -> None:
    with by_hand(shared_redis.url, tmp_path) as gateway, opened(browser, WIDE) as page:
        sign_in(page, gateway)
        page.get_by_role("button", name="Add a map").press("Enter")
        group = page.get_by_role("group", name="Map 1")
        group.get_by_label("What the map shows").focus()
        page.keyboard.press("p")
        expect(group.get_by_label("What the map shows")).to_have_value("pose")
        ask_for(page, "a dancer")
        expect(group.get_by_role("alert")).to_have_text("Choose the picture of this map, or remove the map.")
        expect(page.locator("#make .error")).to_have_count(1)
        expect(group.get_by_label("Picture of map 1", exact=True)).to_be_focused()
        page.keyboard.press("Tab")
        page.keyboard.type("https://example.com/pose.png?key=1")
        expect(group.get_by_role("alert")).to_have_count(0)
        group.get_by_role("spinbutton", name="Strength").fill("3")
        expect(group.get_by_role("alert")).to_contain_text("control[0].strength")
        group.get_by_role("spinbutton", name="Strength").fill("1")
        with page.expect_request("**/generate-image") as asked:
            page.keyboard.press("Control+Enter")
        sent = json.loads(asked.value.post_data or "{}")["control"]
        assert sent == [{"type": "pose", "image": "https://example.com/pose.png?key=1", "strength": 1}]
        once_more(page, gateway)


def once_more(page: Page, gateway: ByHand) -> None:
    """What was sent stands in the form again, and a reload keeps all but the picture."""
    gateway.finish(gateway.take())
    page.get_by_role("button", name="Open “a dancer”").click()
    page.get_by_role("button", name="Reset").evaluate("one => one.click()")
    page.get_by_role("dialog").get_by_role("button", name="Again, but").click()
    group = page.get_by_role("group", name="Map 1")
    expect(group.get_by_label("What the map shows")).to_have_value("pose")
    expect(group.get_by_role("spinbutton", name="Strength")).to_have_value("1")
    group.get_by_label("https address").fill("https://example.com/other.png")
    page.reload()
    sign_in(page, gateway)
    expect(group.get_by_label("What the map shows")).to_have_value("pose")
    expect(group.get_by_label("https address")).to_have_value("")


def test_maps_in_portuguese(browser: Browser, shared_redis: RedisProcess, tmp_path: Path) -> None:
    with by_hand(shared_redis.url, tmp_path) as gateway, opened(browser, WIDE) as page:
        sign_in(page, gateway)
        page.get_by_label("Language").select_option("pt")
        page.get_by_role("button", name="Adicionar um mapa").click()
        group = page.get_by_role("group", name="Mapa 1")
        expect(group.get_by_label("O que o mapa mostra")).to_contain_text("Profundidade")
        expect(group.get_by_role("spinbutton", name="Parte dos passos")).to_be_visible()


@pytest.mark.slow
def test_a_picture_follows_its_map(browser: Browser, served: Served) -> None:
    from tests.generate.test_control import save_controlnet  # with torch, which the other tests do not need

    save_controlnet(served.folder / "controlnets" / "union")
    with opened(browser, WIDE) as page:
        sign_in(page, served)
        page.get_by_role("button", name="Add a map").click()
        give(page, page.get_by_role("group", name="Map 1"), event="drop", colour="white")
        ask_for(page, "a sun that follows", Steps="4")
        card = page.get_by_role("button", name="Open “a sun that follows”")
        expect(card.locator("img")).to_be_visible()
        card.click()
        expect(page.get_by_role("dialog").locator("dl")).to_contain_text('"type":"canny"')


def give(page: Page, place: Locator, *, event: str, colour: str) -> None:
    """A picture, dropped on `place` or pasted anywhere."""
    taken = page.evaluate_handle(
        """(bytes) => {
            const data = new DataTransfer();
            data.items.add(new File([new Uint8Array(bytes)], "map.png", { type: "image/png" }));
            return data;
        }""",
        list(a_map(colour)),
    )
    if event == "drop":
        place.locator(".drop").dispatch_event("drop", {"dataTransfer": taken})
    else:
        page.evaluate("data => dispatchEvent(new ClipboardEvent('paste', { clipboardData: data }))", taken)


def a_map(colour: str) -> bytes:
    picture = Image.new("RGB", (96, 64), "black")
    ImageDraw.Draw(picture).ellipse((20, 10, 70, 50), fill=colour)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def colour_of(uri: str) -> object:
    """Of the middle of a picture."""
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    return Image.open(io.BytesIO(data)).convert("RGB").getpixel((45, 30))
