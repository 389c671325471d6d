"""What comes late or early on a busy machine: an effect after the next key, a file or an answer after the next act.

The page's clock stands still where a test wants its effects to come late: Preact runs them after the next frame.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, Route, expect

from tests.gateway.page.by_hand import ByHand, by_hand
from tests.gateway.page.conftest import WIDE, ask_for, opened, sign_in
from tests.gateway.page.test_maps import a_map, colour_of
from tests.servers import RedisProcess

HOLD_FILES = """() => {
    window.held = [];
    const read = FileReader.prototype.readAsDataURL;
    FileReader.prototype.readAsDataURL = function (file) { held.push(() => read.call(this, file)); };
}"""
ALREADY = "() => new Promise((resolve) => setTimeout(resolve))"  # what the page had to do first is done
NEXT_FRAME = "() => new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)))"  # and drawn


@contextmanager
def signed_in(browser: Browser, redis: RedisProcess, folder: Path) -> Iterator[tuple[Page, ByHand]]:
    with by_hand(redis.url, folder) as gateway, opened(browser, WIDE) as page:
        page.clock.install()
        sign_in(page, gateway)
        yield page, gateway


def stop_the_clock(page: Page) -> None:
    page.clock.pause_at(page.evaluate("Date.now() / 1000 + 3600"))


def test_before_the_next_frame(browser: Browser, shared_redis: RedisProcess, tmp_path: Path) -> None:
    with signed_in(browser, shared_redis, tmp_path) as (page, _):
        page.get_by_role("button", name="Edit", exact=True).click()
        stop_the_clock(page)
        ask_for(page, "no picture")
        expect(page.get_by_role("alert")).to_have_text("Choose a picture to edit first.")
        expect(page.get_by_label("Picture", exact=True)).to_be_focused()
        steps = page.get_by_role("spinbutton", name="Steps", exact=True)
        steps.fill("7")
        page.get_by_role("button", name="Reset").click()
        expect(steps).to_have_value("")
        page.get_by_role("button", name="Keys").click()
        expect(page.locator("dialog:modal")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)


def test_two_milestones_at_once_are_both_said(browser: Browser, shared_redis: RedisProcess, tmp_path: Path) -> None:
    with signed_in(browser, shared_redis, tmp_path) as (page, _):
        for number in (1, 2):
            page.get_by_role("button", name="Edit", exact=True).click()
            page.get_by_label("Model").select_option("black-forest-labs/FLUX.2-klein-4B")
            page.get_by_label(f"Reference {number}: or its https address").fill(f"https://example.com/{number}.png")
        stop_the_clock(page)
        page.get_by_role("button", name="Move reference 1 down").click()
        page.get_by_role("button", name="Move reference 2 up").click()
        page.clock.run_for(100)
        expect(page.get_by_role("status")).to_have_text("Reference 1 is now 2 of 2.")
        page.clock.run_for(1000)
        expect(page.get_by_role("status")).to_have_text("Reference 2 is now 1 of 2.")


def test_a_file_that_is_read_late(browser: Browser, shared_redis: RedisProcess, tmp_path: Path) -> None:
    with signed_in(browser, shared_redis, tmp_path) as (page, _):
        page.evaluate(HOLD_FILES)
        page.get_by_role("button", name="Add a map").click()
        group = page.get_by_role("group", name="Map 1")
        for colour in ("red", "white"):
            file = {"name": "map.png", "mimeType": "image/png", "buffer": a_map(colour)}
            group.get_by_label("Picture of map 1", exact=True).set_input_files(file)  # type: ignore[arg-type]
        group.get_by_role("spinbutton", name="Strength").fill("0.5")
        page.evaluate("held[1]()")
        expect(group.locator("img")).to_be_visible()
        page.evaluate("held[0]()")
        page.evaluate("(uri) => new Promise((done) => { const i = new Image(); i.onload = done; i.src = uri; })", DOT)
        page.evaluate(ALREADY)
        with page.expect_request("**/generate-image") as asked:
            ask_for(page, "as it was set")
        (sent,) = json.loads(asked.value.post_data or "{}")["control"]
        assert sent["strength"] == 0.5
        assert colour_of(sent["image"]) == (255, 255, 255)  # the one that was chosen last


DOT = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="


@contextmanager
def held(page: Page, path: str) -> Iterator[list[Route]]:
    """Requests to `path`, answered when the test fulfils them."""
    kept: list[Route] = []
    page.route(path, lambda route: kept.append(route))  # noqa: PLW0108  Playwright takes no builtin
    yield kept
    page.unroute(path)


def test_a_refusal_of_a_draft_that_has_changed(browser: Browser, shared_redis: RedisProcess, tmp_path: Path) -> None:
    with signed_in(browser, shared_redis, tmp_path) as (page, _), held(page, "**/generate-image") as kept:
        with page.expect_request("**/generate-image"):
            ask_for(page, "one")
        prompt = page.get_by_label("Prompt", exact=True)
        prompt.press("2")
        kept[0].fulfill(status=422, json={"code": "validation_error", "field": "prompt", "detail": "not one"})
        fault = page.locator("#make").get_by_role("alert")
        expect(fault).to_have_text("not one")
        prompt.press("3")
        expect(prompt).to_have_value("one23")
        expect(prompt).not_to_have_attribute("aria-invalid", "true")
        expect(fault).to_have_text("not one")


def test_an_answer_after_another_has_signed_in(browser: Browser, shared_redis: RedisProcess, tmp_path: Path) -> None:
    with signed_in(browser, shared_redis, tmp_path) as (page, gateway), held(page, "**/generate-image") as kept:
        with page.expect_request("**/generate-image"):
            ask_for(page, "of somebody else")
        page.get_by_role("button", name="Sign out").click()
        found = asyncio.run_coroutine_threadsafe(gateway.world.key_of("grace"), gateway.loop).result()
        page.get_by_label("API key or token").fill(found["Authorization"].removeprefix("Bearer "))
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_text("Your pictures appear here.")).to_be_visible()
        with page.expect_event("requestfinished", lambda one: one.url.endswith("generate-image")):
            kept[0].fulfill(response=kept[0].fetch())
        page.evaluate(ALREADY)
        expect(page.locator("#make")).to_be_visible()
        assert page.locator(".under-way").count() == 0


def test_an_answer_older_than_what_is_known(browser: Browser, shared_redis: RedisProcess, tmp_path: Path) -> None:
    with signed_in(browser, shared_redis, tmp_path) as (page, gateway), held(page, "**/generate-image") as kept:
        with page.expect_request("**/generate-image"):
            ask_for(page, "under way")
        answer = kept[0].fetch()
        gateway.progress(gateway.take(), 0.5, seq=1, step=2, total_steps=4)
        coming = page.locator(".under-way")
        expect(coming).to_contain_text("step 2 of 4")
        kept[0].fulfill(response=answer)
        expect(page.get_by_role("status")).to_have_text("Queued: under way")
        assert "step 2 of 4" in coming.inner_text()  # and does not wait again


def test_a_page_of_the_list_older_than_what_is_known(
    browser: Browser, shared_redis: RedisProcess, tmp_path: Path
) -> None:
    with by_hand(shared_redis.url, tmp_path) as gateway, opened(browser, WIDE) as page:
        with held(page, "**/tasks?limit=24") as kept:
            with page.expect_request("**/tasks?limit=24"):
                sign_in(page, gateway)
            ask_for(page, "under way")
            expect(page.locator(".under-way")).to_be_visible()
            answer = kept[0].fetch().json()
            gateway.progress(gateway.take(), 0.5, seq=1, step=2, total_steps=4)
            coming = page.locator(".under-way")
            expect(coming).to_contain_text("step 2 of 4")
            kept[0].fulfill(json=answer | {"next": "more"})
            expect(page.get_by_role("button", name="Older ones")).to_be_visible()
            page.evaluate(NEXT_FRAME)
            assert "step 2 of 4" in coming.inner_text()  # and does not wait again


def test_the_end_of_an_older_task_that_no_event_told(
    browser: Browser, shared_redis: RedisProcess, tmp_path: Path
) -> None:
    """After a long gap the stream begins with a snapshot of the newest tasks alone."""
    with by_hand(shared_redis.url, tmp_path) as gateway, opened(browser, WIDE) as page:
        said = 'id: 1-0\nevent: snapshot\ndata: {"tasks": []}\n\n'
        page.route("**/events", lambda route: route.fulfill(content_type="text/event-stream", body=said))
        sign_in(page, gateway)
        ask_for(page, "an older one")
        expect(page.locator(".under-way")).to_be_visible()
        gateway.finish(gateway.take())
        expect(page.get_by_role("button", name="Open “an older one”")).to_be_visible()


def test_an_answer_after_another_task_was_opened(browser: Browser, shared_redis: RedisProcess, tmp_path: Path) -> None:
    with signed_in(browser, shared_redis, tmp_path) as (page, gateway), held(page, "**/again") as kept:
        for prompt in ("one", "two"):
            ask_for(page, prompt)
            gateway.finish(gateway.take())
            expect(page.get_by_role("button", name=f"Open “{prompt}”")).to_be_visible()
        page.get_by_role("button", name="Open “one”").click()
        with page.expect_request("**/again"):
            page.get_by_role("button", name="Again", exact=True).click()
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Open “two”").click()
        kept[0].fulfill(response=kept[0].fetch())
        expect(page.locator(".under-way")).to_have_count(1)
        page.evaluate(ALREADY)
        assert page.get_by_role("dialog").count() == 1


def test_older_tasks_that_do_not_come(browser: Browser, shared_redis: RedisProcess, tmp_path: Path) -> None:
    with by_hand(shared_redis.url, tmp_path) as gateway, opened(browser, WIDE) as page:
        page.route(re.compile(r"/tasks\?(?!limit=1$)"), lambda route: route.abort())
        sign_in(page, gateway)
        gallery = page.get_by_role("region", name="Gallery")
        expect(gallery.get_by_role("alert")).to_have_text(
            "The gateway cannot be reached. Your tasks go on; this page tries again."
        )
        page.unroute_all()
        gallery.get_by_role("button", name="Older ones").click()
        expect(gallery.get_by_role("button", name="Older ones")).to_have_count(0)
        expect(gallery.get_by_role("alert")).to_have_count(0)


def test_a_gateway_that_cannot_be_reached_at_the_door(
    browser: Browser, shared_redis: RedisProcess, tmp_path: Path
) -> None:
    """Nobody is signed in, so no task goes on and nothing tries again."""
    with by_hand(shared_redis.url, tmp_path) as gateway, opened(browser, WIDE) as page:
        page.goto(gateway.url)
        page.route("**/tasks?limit=1", lambda route: route.abort())
        page.get_by_label("API key or token").fill(gateway.key)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_have_text(
            "The gateway cannot be reached. Check your connection, then sign in again."
        )
        page.unroute_all()
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_label("Prompt", exact=True)).to_be_visible()
