"""The page in a real browser, against the whole system as `make serve` starts it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.servers import free_port

ROOT: Final = Path(__file__).parents[3]
CHROMIUM: Final = shutil.which("chromium")
FLAGS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WITHIN_MS: Final = 300_000  # a stall is no failure
WIDE: Final = (1280, 900)
NARROW: Final = (390, 844)


class Reachable(Protocol):
    """A gateway that a browser can open, and a key of its user."""

    @property
    def url(self) -> str: ...

    @property
    def key(self) -> str: ...


@dataclass
class Served:
    """The system under one address; `restart` ends it and starts it again over the same data."""

    folder: Path
    port: int
    queue: str = "runpod"
    workers: int = 1
    process: subprocess.Popen[str] | None = None
    key: str = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        """Until a picture can be made, where there are workers."""
        command = [sys.executable, "-m", "local_platform.serve", "--queue", self.queue]
        command += ["--port", str(self.port), "--folder", str(self.folder), "--workers", str(self.workers)]
        environment = os.environ | {
            "PYTHONWARNINGS": "ignore",
            "OMP_NUM_THREADS": "1",
            "MAX_WORK_PER_MINUTE": "3000",
            "MODEL_VOLUME": str(self.folder),
        }
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self.process.stdout is not None
        said = ""
        for line in self.process.stdout:
            said += line
            if found := re.search(r"API key\s+(\S+)", line):
                self.key = found[1]
            if line.startswith("Ctrl-C"):
                return
        raise AssertionError(said)

    def stop(self) -> int:
        """As by Ctrl-C; the exit status."""
        process, self.process = self.process, None
        if process is None:
            return 0
        process.send_signal(signal.SIGINT)
        process.communicate()
        return process.returncode


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    made = Served(tmp_path_factory.mktemp("serve"), free_port())
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("the page is tested in Chromium, and none is installed (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@contextmanager
def opened(browser: Browser, size: tuple[int, int], *, theme: str = "light", **options: object) -> Iterator[Page]:
    """A new profile; what the page throws, and what its policy refuses, fails the test."""
    context: BrowserContext = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme=theme,  # type: ignore[arg-type]
        locale="en-GB",
        **options,  # type: ignore[arg-type]
    )
    context.set_default_timeout(WITHIN_MS)
    expect.set_options(timeout=WITHIN_MS)
    faults: list[str] = []
    page = context.new_page()
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda line: faults.append(line.text) if "Content Security Policy" in line.text else None)
    yield page
    context.close()
    assert faults == []


def sign_in(page: Page, served: Reachable) -> None:
    page.goto(served.url)
    page.get_by_label("API key or token").fill(served.key)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_label("Prompt", exact=True)).to_be_visible()


def made(page: Page, prompt: str, **fields: str) -> None:
    """A picture of `prompt`, made and shown."""
    ask_for(page, prompt, **{"Steps": "4", **fields})
    expect(page.get_by_role("button", name=f"Open “{prompt}”").first.locator("img")).to_be_visible()


def ask_for(page: Page, prompt: str, **fields: str) -> None:
    page.get_by_label("Prompt", exact=True).fill(prompt)
    for label, value in fields.items():
        page.get_by_role("spinbutton", name=label, exact=True).fill(value)
    page.keyboard.press("Control+Enter")
