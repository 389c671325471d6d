"""What takes the page's system a minute: programs, each run as pasted, fields that few models have, and a restart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from tests.gateway.page.conftest import WIDE, Served, ask_for, made, opened, sign_in

pytestmark = pytest.mark.slow
COMMANDS = {
    "curl": ["bash", "-e", "-c"],
    "python": [sys.executable, "-c"],
    "openai": [sys.executable, "-c"],
    "javascript": ["node", "--input-type=module", "-e"],
}


def test_copied_programs_run_as_pasted(browser: Browser, served: Served, tmp_path: Path) -> None:
    programs: dict[str, str] = {}
    with opened(browser, WIDE, permissions=["clipboard-read", "clipboard-write"]) as page:
        sign_in(page, served)
        made(page, 'it\'s a "quoted" sun', Seed="5")
        page.get_by_role("button", name='Open “it\'s a "quoted" sun”').first.click()
        for language in COMMANDS:
            page.get_by_label("Copy as").select_option(language)
            while not (program := page.evaluate("navigator.clipboard.readText()")):
                page.wait_for_timeout(50)
            programs[language] = program
            page.evaluate("navigator.clipboard.writeText('')")
        expect(page.get_by_role("dialog").get_by_text("Copied.")).to_be_visible()
    environment = os.environ | {"FLUX_API_KEY": served.key}
    for language, program in programs.items():
        ran = [*COMMANDS[language], program]
        subprocess.run(ran, cwd=tmp_path, env=environment, check=True, capture_output=True)
        picture = tmp_path / "flux.png"
        assert picture.read_bytes().startswith(b"\x89PNG"), language
        picture.unlink()


def test_the_canvas_is_extended(browser: Browser, served: Served, tmp_path: Path) -> None:
    Image.new("RGB", (192, 192), "navy").save(tmp_path / "own.png")
    with opened(browser, WIDE) as page:
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
