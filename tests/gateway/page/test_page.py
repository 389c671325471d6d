"""What somebody does on the page, at both widths, in a real browser against `make serve`."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.gateway.page.by_hand import by_hand
from tests.gateway.page.conftest import NARROW, WIDE, Served, ask_for, made, opened, sign_in
from tests.gateway.world import picture
from tests.servers import RedisProcess, free_port

BOTH = pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
LONG = {"Steps": "50", "Pictures": "2"}
PREVIEW = "data:image/png;base64," + base64.b64encode(picture(3)).decode()


@BOTH
def test_a_wrong_key_is_refused_and_a_first_picture_made(
    browser: Browser, served: Served, size: tuple[int, int]
) -> None:
    with opened(browser, size) as page:
        page.goto(served.url)
        page.get_by_label("API key or token").fill("flux_wrong")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text("not accepted")
        sign_in(page, served)
        prompt = f"a red sun over a lake, {size[0]}"
        ask_for(page, prompt, Pictures="2")
        expect(page.get_by_role("button", name=f"Open “{prompt}”").locator("img")).to_have_count(2)
        expect(page.get_by_role("status")).to_contain_text("Finished")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        sizes = (
            page.get_by_role("button", name=f"Open “{prompt}”")
            .locator("img")
            .evaluate_all("all => all.map(one => [one.naturalWidth, one.naturalHeight])")
        )
        assert sizes == [[256, 256]] * 2


@BOTH
def test_a_preview_comes_before_the_result(
    browser: Browser, shared_redis: RedisProcess, tmp_path: Path, size: tuple[int, int]
) -> None:
    with by_hand(shared_redis.url, tmp_path) as gateway, opened(browser, size) as page:
        sign_in(page, gateway)
        ask_for(page, "a red sun")
        job = gateway.take()
        gateway.progress(job, 0.5, seq=1, step=2, total_steps=4, preview=PREVIEW)
        expect(page.locator(".preview img")).to_be_visible()
        expect(page.get_by_role("progressbar", name="Progress of “a red sun”")).to_be_visible()
        gateway.finish(job)
        expect(page.get_by_role("button", name="Open “a red sun”").locator("img")).to_be_visible()


def test_cancelling_by_button_and_by_key(browser: Browser, served: Served) -> None:
    with opened(browser, WIDE) as page:
        sign_in(page, served)
        for by_key in (False, True):
            ask_for(page, "a blue hill", **LONG)
            expect(page.locator(".under-way progress[value]")).to_be_visible()
            if by_key:
                page.keyboard.press("Escape")
            else:
                page.get_by_role("button", name="Cancel: a blue hill").click()
            expect(page.locator(".under-way")).to_have_count(0)
        expect(page.get_by_role("button", name="Open “a blue hill”").locator(".cancelled")).to_have_count(2)


def test_a_reload_and_a_second_device_pick_up_where_it_is(
    browser: Browser, shared_redis: RedisProcess, tmp_path: Path
) -> None:
    with (
        by_hand(shared_redis.url, tmp_path) as gateway,
        opened(browser, WIDE) as page,
        opened(browser, NARROW) as other,
    ):
        page.goto(gateway.url)
        page.get_by_label("API key or token").fill(gateway.key)
        page.get_by_label("Keep me signed in").check()
        page.get_by_role("button", name="Sign in").click()
        ask_for(page, "green hills at night")
        job = gateway.take()
        expect(page.locator(".under-way progress[value]")).to_be_visible()
        page.reload()
        expect(page.get_by_label("Prompt", exact=True)).to_have_value("green hills at night")
        expect(page.locator(".under-way")).to_contain_text("green hills at night")
        sign_in(other, gateway)
        expect(other.locator(".under-way")).to_contain_text("green hills at night")
        gateway.finish(job)
        for one in (page, other):
            expect(one.get_by_role("button", name="Open “green hills at night”")).to_have_count(1)


def test_an_edit_with_a_painted_mask(browser: Browser, served: Served, tmp_path: Path) -> None:
    with opened(browser, WIDE) as page:
        sign_in(page, served)
        made(page, "a meadow at day")
        page.get_by_role("button", name="Open “a meadow at day”").click()
        page.get_by_role("button", name="Use as input").click()
        page.get_by_label("Paint a mask").check()
        canvas = page.locator(".paper canvas")
        box = canvas.bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + 20, box["y"] + 20)
        page.mouse.down()
        page.mouse.move(box["x"] + 120, box["y"] + 90, steps=6)
        page.mouse.up()
        page.get_by_role("button", name="Undo").click()
        expect(page.get_by_text("Nothing is masked yet.")).to_be_visible()
        for name, value in {"Left": "0", "Top": "0", "Width": "128", "Height": "128"}.items():
            page.locator(".mask").get_by_label(name).fill(value)
        page.get_by_role("button", name="Fill").click()
        with page.expect_request("**/generate-image") as asked:
            ask_for(page, "a red sun in a corner", Steps="4")
        job = json.loads(asked.value.post_data or "{}")
        assert job["image"].startswith("data:image/png;base64,")
        assert quarters(page, job["mask"]) == [255, 0, 0, 0]
        expect(page.get_by_role("button", name="Open “a red sun in a corner”").locator("img")).to_be_visible()


def test_a_mask_painted_by_touch(browser: Browser, served: Served, tmp_path: Path) -> None:
    Image.new("RGB", (256, 256), "navy").save(tmp_path / "own.png")
    with opened(browser, NARROW, has_touch=True, is_mobile=True) as page:
        sign_in(page, served)
        page.get_by_role("button", name="Edit", exact=True).tap()
        page.get_by_label("Picture", exact=True).set_input_files(tmp_path / "own.png")
        page.get_by_label("Paint a mask").check()
        canvas = page.locator(".paper canvas")
        canvas.scroll_into_view_if_needed()
        before = page.evaluate("scrollY")
        box = canvas.bounding_box()
        assert box is not None
        left, top = box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.25
        touch(page, [(left, top), (left + 8, top + 8), (left + 12, top + 30)])
        expect(page.get_by_text("Nothing is masked yet.")).to_have_count(0)
        assert page.evaluate("scrollY") == before  # it paints, and does not scroll
        with page.expect_request("**/generate-image") as asked:
            ask_for(page, "a sun", Steps="4")
        assert quarters(page, json.loads(asked.value.post_data or "{}")["mask"]) == [255, 0, 0, 0]


def touch(page: Page, points: list[tuple[float, float]]) -> None:
    """One finger, down at the first of `points` and up at the last."""
    session = page.context.new_cdp_session(page)
    kinds = ["touchStart", *["touchMove"] * (len(points) - 1)]
    for kind, (x, y) in zip(kinds, points, strict=True):
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def quarters(page: Page, mask: str) -> list[int]:
    """Brightness in the middle of each quarter: upper left, upper right, lower left, lower right."""
    found: list[int] = page.evaluate(
        """async (source) => {
            const image = new Image();
            image.src = source;
            await image.decode();
            const canvas = document.createElement("canvas");
            [canvas.width, canvas.height] = [image.width, image.height];
            const context = canvas.getContext("2d");
            context.drawImage(image, 0, 0);
            const at = (x, y) => context.getImageData(x * image.width, y * image.height, 1, 1).data[0];
            return [at(0.25, 0.25), at(0.75, 0.25), at(0.25, 0.75), at(0.75, 0.75)];
        }""",
        mask,
    )
    return found


def test_a_video_is_made_and_played(browser: Browser, served: Served) -> None:
    with opened(browser, WIDE) as page:
        sign_in(page, served)
        page.get_by_role("button", name="Video", exact=True).click()
        page.get_by_label("Prompt", exact=True).fill("a yellow sun on the left")
        page.get_by_role("button", name="Add a keyframe").click()
        page.get_by_role("textbox", name="Keyframe 2").fill("a yellow sun on the right")
        for label, value in {"Frames": "6", "Frames a second": "6", "Steps": "4"}.items():
            page.get_by_label(label, exact=True).fill(value)
        with page.expect_request("**/generate-video") as asked:
            page.get_by_role("button", name="Generate").click()
        keyframes = json.loads(asked.value.post_data or "{}")["keyframes"]
        assert [one["frame"] for one in keyframes] == [0, 5]  # they keep within a video that has become shorter
        page.get_by_role("button", name="Open “a yellow sun on the left”").click()
        video = page.locator("dialog video")
        expect(video).to_be_visible()
        length = video.evaluate(
            "v => new Promise((r) => v.readyState ? r(v.duration) : (v.onloadedmetadata = () => r(v.duration)))"
        )
        assert length == pytest.approx(1.0, abs=0.05)
        video.evaluate("v => { v.muted = true; return v.play(); }")
        video.evaluate("v => new Promise((r) => { v.ontimeupdate = () => v.currentTime > 0.2 && r(); })")


def test_the_gallery_by_keyboard(browser: Browser, served: Served) -> None:
    with opened(browser, WIDE) as page:
        sign_in(page, served)
        made(page, "one", Seed="11")
        made(page, "two", Seed="22")
        page.get_by_role("button", name="Open “two”").focus()
        page.keyboard.press("ArrowRight")
        expect(page.get_by_role("button", name="Open “one”")).to_be_focused()
        page.keyboard.press("s")
        expect(page.get_by_role("spinbutton", name="Seed")).to_have_value("11")
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_contain_text("num_inference_steps")
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(page.get_by_role("button", name="Open “one”")).to_be_focused()
        page.keyboard.press("a")
        expect(page.get_by_label("Prompt", exact=True)).to_have_value("one")
        page.get_by_role("button", name="Open “two”").focus()
        page.keyboard.press("?")
        expect(page.get_by_role("dialog", name="Keys")).to_contain_text("Ctrl+Enter")
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Open “two”").focus()
        page.once("dialog", lambda asked: asked.accept())
        page.keyboard.press("Delete")
        expect(page.get_by_role("button", name="Open “two”")).to_have_count(0)


def test_faults_stand_beside_their_field_and_limits_say_when(browser: Browser, served: Served) -> None:
    with opened(browser, WIDE) as page:
        sign_in(page, served)
        ask_for(page, "a hill", Steps="999")
        field = page.get_by_label("Steps", exact=True)
        expect(field).to_have_attribute("aria-invalid", "true")
        fault = page.locator(f"#{(field.get_attribute('aria-describedby') or '').split()[-1]}")
        expect(fault).to_contain_text("num_inference_steps")
        page.get_by_role("button", name="Video", exact=True).click()
        for _ in range(8):  # more than the minute allows
            ask_for(page, "a hill", **{"Frames": "480", "Steps": "50"})
        expect(page.locator("#make .error")).to_contain_text("More is allowed in")
        page.evaluate("document.querySelectorAll('.under-way button:enabled').forEach((button) => button.click())")
        expect(page.locator(".under-way")).to_have_count(0)


def test_a_task_waits_through_a_restart_of_the_gateway(browser: Browser, tmp_path: Path) -> None:
    alone = Served(tmp_path, free_port(), workers=0)
    alone.start()
    try:
        with opened(browser, NARROW) as page:
            sign_in(page, alone)
            ask_for(page, "kept in the ledger")
            waiting = page.locator(".under-way", has_text="kept in the ledger")
            expect(waiting).to_contain_text("waiting")
            alone.stop()
            expect(page.get_by_text("The connection is lost")).to_be_visible()
            alone.start()
            expect(page.get_by_text("The connection is lost")).to_have_count(0)
            expect(waiting).to_be_visible()
            page.reload()
            sign_in(page, alone)
            expect(waiting).to_be_visible()
    finally:
        alone.stop()


def test_a_link_to_a_task_works_after_signing_in(browser: Browser, served: Served) -> None:
    with opened(browser, WIDE) as page, opened(browser, NARROW) as other:
        sign_in(page, served)
        made(page, "to be shared")
        task = page.get_by_role("button", name="Open “to be shared”").get_attribute("data-task")
        other.goto(f"{served.url}#task/{task}")
        other.get_by_label("API key or token").fill(served.key)
        other.get_by_role("button", name="Sign in").click()
        expect(other.get_by_role("dialog")).to_contain_text("to be shared")


def test_portuguese_and_a_prompt_from_right_to_left(browser: Browser, served: Served) -> None:
    with opened(browser, WIDE) as page:
        sign_in(page, served)
        page.get_by_label("Language").select_option("pt")
        expect(page.get_by_role("button", name="Gerar")).to_be_visible()
        assert page.evaluate("document.documentElement.lang") == "pt"
        prompt = page.get_by_label("Prompt", exact=True)
        prompt.fill("שמש אדומה")
        assert prompt.evaluate("one => getComputedStyle(one).direction") == "rtl"
