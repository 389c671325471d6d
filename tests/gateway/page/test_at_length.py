"""What takes the page's system a minute: its programs, each run as pasted, and pictures before and after a restart."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.gateway.page.conftest import WIDE, Served, made, opened, sign_in

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


def test_pictures_are_made_again_after_a_restart(browser: Browser, served: Served) -> None:
    with opened(browser, WIDE) as page:
        sign_in(page, served)
        made(page, "before the restart")
        served.stop()
        expect(page.get_by_text("The connection is lost")).to_be_visible()
        served.start()
        expect(page.get_by_text("The connection is lost")).to_have_count(0)
        made(page, "after the restart")
