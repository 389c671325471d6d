"""What takes the page's system a minute: programs, each run as pasted, fields that few models have, and a restart."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.gateway.page.conftest import WIDE, Served, ask_for, made, opened, sign_in

pytestmark = pytest.mark.slow
CLIPBOARD = ["clipboard-read", "clipboard-write"]
COMMANDS = {
    "curl": ["bash", "-e", "-c"],
    "python": [sys.executable, "-c"],
    "openai": [sys.executable, "-c"],
    "javascript": ["node", "--input-type=module", "-e"],
}


def test_copied_programs_run_as_pasted(browser: Browser, served: Served, tmp_path: Path) -> None:
    with opened(browser, WIDE, permissions=CLIPBOARD) as page:
        sign_in(page, served)
        made(page, 'it\'s a "quoted" sun', Seed="5")
        page.get_by_role("button", name='Open “it\'s a "quoted" sun”').first.click()
        programs = {language: copied(page, language) for language in COMMANDS}
        expect(page.get_by_role("dialog").get_by_text("Copied.")).to_be_visible()
    for language, program in programs.items():
        assert run(language, program, served, tmp_path).startswith(b"\x89PNG"), language


def copied(page: Page, language: str) -> str:
    """The program of the picture that is open."""
    page.evaluate("navigator.clipboard.writeText('')")
    page.get_by_label("Copy as").select_option(language)
    while not (program := page.evaluate("navigator.clipboard.readText()")):
        page.wait_for_timeout(50)
    return str(program)


def run(language: str, program: str, served: Served, folder: Path) -> bytes:
    """The picture that it leaves."""
    environment = os.environ | {"FLUX_API_KEY": served.key}
    subprocess.run([*COMMANDS[language], program], cwd=folder, env=environment, check=True, capture_output=True)
    picture = folder / "flux.png"
    data = picture.read_bytes()
    picture.unlink()
    return data


def test_the_canvas_is_extended(browser: Browser, served: Served, tmp_path: Path) -> None:
    Image.new("RGB", (192, 192), "navy").save(tmp_path / "own.png")
    with opened(browser, WIDE, permissions=CLIPBOARD) as page:
        sign_in(page, served)
        page.get_by_role("button", name="Edit", exact=True).click()
        page.get_by_label("Picture", exact=True).set_input_files(tmp_path / "own.png")
        page.get_by_role("group", name="Extend the canvas").get_by_label("Right").fill("64")
        with page.expect_request("**/generate-image") as asked:
            ask_for(page, "a lake goes on", Steps="4")
        assert json.loads(asked.value.post_data or "{}")["expand"] == {"right": 64}
        image = page.get_by_role("button", name="Open “a lake goes on”").locator("img")
        expect(image).to_be_visible()
        assert image.evaluate("one => [one.naturalWidth, one.naturalHeight]") == [256, 192]
        page.get_by_role("button", name="Open “a lake goes on”").click()
        offered = page.get_by_label("Copy as").locator("option").evaluate_all("all => all.map((one) => one.value)")
        assert offered == ["", "curl", "python", "javascript"]  # OpenAI's client asks for no task again
        programs = {language: copied(page, language) for language in offered[1:]}
    for language, program in programs.items():
        made_again = Image.open(io.BytesIO(run(language, program, served, tmp_path)))
        assert made_again.size == (256, 192), language


def test_references_where_the_model_takes_them(browser: Browser, served: Served, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "navy").save(tmp_path / "own.png")
    with opened(browser, WIDE) as page:
        sign_in(page, served)
        page.get_by_role("button", name="Edit", exact=True).click()
        expect(page.get_by_text("Reference pictures")).to_have_count(0)
        page.get_by_label("Model").select_option("black-forest-labs/FLUX.2-klein-4B")
        for number in (1, 2):
            page.get_by_label(f"Reference {number}", exact=True).set_input_files(tmp_path / "own.png")
        with page.expect_request("**/generate-image") as asked:
            ask_for(page, "image 1 beside image 2")
        job = json.loads(asked.value.post_data or "{}")
        assert len(job["images"]) == 2
        assert "image" not in job


def test_pictures_are_made_again_after_a_restart(browser: Browser, served: Served) -> None:
    with opened(browser, WIDE) as page:
        sign_in(page, served)
        made(page, "before the restart")
        served.stop()
        expect(page.get_by_text("The connection is lost")).to_be_visible()
        served.start()
        expect(page.get_by_text("The connection is lost")).to_have_count(0)
        made(page, "after the restart")
