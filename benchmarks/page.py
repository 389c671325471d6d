"""The gateway's page in real Chromium: first paint, bytes, layout shift, frames a second while previews come, pictures.

    python -m benchmarks.page --pictures build/page

Against `make serve` on this machine; each state of the page is photographed at 1280 and 390 px, light and dark.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Browser, expect, sync_playwright

from benchmarks.fleet import table
from tests.gateway.page.conftest import CHROMIUM, FLAGS, NARROW, WIDE, Served, ask_for, opened, sign_in
from tests.gateway.page.states import walk
from tests.servers import free_port

LOADS: Final = 5
LOOKS: Final = (
    (WIDE, "light", "a red sun on the left over purple mountains, a lake"),
    (NARROW, "dark", "a white moon over a forest at night"),
    (WIDE, "dark", "an orange sun over a desert at dusk"),
    (NARROW, "light", "a yellow sun over green hills, a meadow"),
)
FRAMES: Final = """(() => {
    window.frames_ms = [];
    let last = null;
    const seen = (now) => {
        if (last !== null && document.querySelector(".preview img")) window.frames_ms.push(now - last);
        last = now;
        requestAnimationFrame(seen);
    };
    requestAnimationFrame(seen);
})()"""
SHIFTS: Final = """window.shift = 0;
new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shift += entry.value;
}).observe({ type: "layout-shift", buffered: true });"""
LOADED: Final = """() => {
    const paint = performance.getEntriesByName("first-contentful-paint")[0].startTime;
    const files = performance.getEntriesByType("resource").concat(performance.getEntriesByType("navigation"));
    const scripts = files.filter((file) => file.name.endsWith(".js"));
    const sum = (list, name) => list.reduce((all, one) => all + one[name], 0);
    return { paint, scripts: scripts.length, bytes: sum(scripts, "decodedBodySize"), sent: sum(files, "transferSize") };
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, help="folder for a picture of each state")
    options = parser.parse_args()
    if CHROMIUM is None:
        raise SystemExit("no Chromium is installed (Debian: apt-get install chromium)")
    with tempfile.TemporaryDirectory(prefix="page-") as folder, sync_playwright() as playwright:
        served = Served(Path(folder), free_port())
        served.start()
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            if options.pictures is not None:
                photograph(browser, served, options.pictures)
            print(table(("page", "measured"), [*loaded(browser, served), *while_made(browser, served)]), flush=True)
        finally:
            browser.close()
            served.stop()


def loaded(browser: Browser, served: Served) -> list[tuple[str, object]]:
    """Of a first visit, with nothing in the browser's cache."""
    seen: list[dict[str, Any]] = []
    for _ in range(LOADS):
        with opened(browser, WIDE) as page:
            page.goto(served.url)
            expect(page.get_by_label("API key or token")).to_be_visible()
            seen.append(page.evaluate(LOADED))
    return [
        (f"first contentful paint, ms, median of {LOADS}", f"{statistics.median(one['paint'] for one in seen):.0f}"),
        ("scripts, and their bytes", f"{seen[0]['scripts']}, {seen[0]['bytes']:,}"),
        ("bytes over the wire, all files", f"{seen[0]['sent']:,}"),
    ]


def while_made(browser: Browser, served: Served) -> list[tuple[str, object]]:
    with opened(browser, WIDE) as page:
        page.add_init_script(SHIFTS)
        sign_in(page, served)
        page.evaluate(FRAMES)
        ask_for(page, "frames are counted", Steps="50", Pictures="2")
        expect(page.get_by_role("button", name="Open “frames are counted”").locator("img")).to_have_count(2)
        frames = [float(ms) for ms in page.evaluate("window.frames_ms")]
        shift = float(page.evaluate("window.shift"))
    return [
        ("layout shift, from signing in to two pictures", f"{shift:.4f}"),
        ("frames while previews came", len(frames)),
        ("frames a second, median", f"{1000 / statistics.median(frames):.0f}"),
        ("frames later than 34 ms", f"{sum(ms > 34 for ms in frames) / len(frames):.1%}"),
    ]


def photograph(browser: Browser, served: Served, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for size, theme, prompt in LOOKS:
        with opened(browser, size, theme=theme) as page:
            for state in walk(page, served, prompt=prompt):
                page.screenshot(path=folder / f"{state}-{size[0]}-{theme}.png", animations="disabled")


if __name__ == "__main__":
    main()
