"""The page of performance and its plots, of a record as the sections write it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.suite import record
from benchmarks.suite.__main__ import SECTIONS
from benchmarks.suite.samples import alternating, median, ratios
from builder import performance_page, performance_plots


def two(ours: float, plain: float, *others: str) -> dict[str, list[list[float]]]:
    return {name: [[ours], [ours]] for name in ("ours", *others)} | {"plain": [[plain], [plain]]}


PHASES = (
    "first look",
    "first picture",
    "imports",
    "weights",
    "apply",
    "warm_up",
    "text",
    "denoise",
    "decode",
    "encode",
)
COUNTED = {"modules": 1_000, "system calls": None, "ms by library": {"torch": 900.0}, "ms of all": 1_500.0}
OWN = {"job": 5_000.0, "own": 40.0, "plain file": 300.0}
SCALE = {"median s": 2.0, "p95 s": 9.0, "GPU s per 1000": 1.0, "paid s per 1000": 2.0, "money per 1000": 1.0}
DATA: dict[str, dict[str, Any]] = {
    "cold_start": {
        "figures": {"first look s": two(1.0, 5.0), "first picture s": two(4.0, 6.0), "CPU s": two(4.0, 6.0)},
        "phases_ms": {f"{phase}_ms": [100.0] for phase in PHASES},
        "imports": {"ours, first look": COUNTED, "plain, first look": COUNTED},
    },
    "throughput": {
        "jobs": {"300": 6},
        "uploads_ms": {"300": {"jobs a second": two(1.5, 1.0, "ours, 3 at a time"), "GPU busy": two(0.9, 0.0)}},
    },
    "own_cost": {side: {"bare": 4_900.0, "jpg": OWN, "png": OWN} for side in ("256x256", "1024x1024")},
    "hits": {
        "hit": {"ms": two(15.0, 600.0)},
        "twins": {"s": two(1.0, 4.0), "made": two(1.0, 8.0)},
        "num_twins": 8,
        "of a hit": {"Redis round trips": 1.0},
    },
    "loras_and_clips": {"loras": {"ms": two(90.0, 200.0)}, "clips": {"s": two(5.0, 5.0)}, "frames": 16},
    "loading": {
        "disk": {"bytes": 10**9, "cold_read_mb_s": 2_000},
        "loading s": {"mmap": [5.0], "read_ahead": [4.0]},
        "step cache": [  # as the record has it, by name
            {"cached": 0.0, "of the time": 1.0, "psnr": None, "s": 1.9, "threshold": "none"},
            {"cached": 10.0, "of the time": 0.7, "psnr": 55.3, "s": 1.3, "threshold": "0.08"},
        ],
        "steps": 28,
    },
    "gateway": {"figures": {"accepted ms": two(5.0, 3.0)}, "tasks": {"ours": 40, "plain": 200}, "clients": 6},
    "scale": {
        "rows": [
            {"mix": "no repeats", "rate": rate, "kind": kind, "GPU share": 0.5, "workers": 3, **SCALE}
            for rate in (1, 10_000)
            for kind in ("ours", "plain")
        ],
        "assumed": {"card": "RTX 4090", "picture s": 1.5},
        "concurrency": [{"fleet": "many", "upload s": 0.3, "way": "one", "median s": 1.0, "p95 s": 2.0}],
    },
}


@pytest.fixture(name="measured")
def _measured(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "results.json"
    for section, data in DATA.items():
        record.write(section, data, seconds=10.0, path=path)
    return record.read(path)


def test_every_section_is_on_the_page(measured: dict[str, Any]) -> None:
    assert measured.keys() == SECTIONS.keys() == performance_page.SECTIONS.keys()
    page = performance_page.page(measured)
    assert "Not measured yet" not in page
    assert "| first picture of a cold worker, of plain's time | 0.67 | 0.67 | 0.85 |" in page
    assert "| jobs a second by default, uploads of 300 ms, of plain's | 1.50 | 1.50 | 1.35 |" in page
    assert "| own cost of a 1024x1024 job, png | 0.8% | 0.8% | 2 % |" in page
    assert "| threshold | steps cached of 28 | seconds | of the time | least PSNR, dB |" in page
    assert "| 0.08 | 10.0 | 1.3 | 0.7 | 55.3 |" in page
    for title, _ in performance_page.SECTIONS.values():
        assert f"\n## {title}\n" in page


def test_how_far_the_two_runs_are_apart_is_said(measured: dict[str, Any]) -> None:
    measured["gateway"]["data"]["figures"]["done ms"] = {"ours": [[10.0], [12.0]], "plain": [[5.0], [5.0]]}
    page = performance_page.page(measured)
    assert "those of the two runs are apart by 20% at most (done ms, ours), by 0% in the median" in page


def test_what_is_not_measured_yet_is_said() -> None:
    page = performance_page.page({})
    assert page.count("Not measured yet: `python -m benchmarks.suite") == len(SECTIONS) + 1


def test_plots_are_drawn_the_same_again(measured: dict[str, Any], tmp_path: Path) -> None:
    drawn = []
    for name in ("one", "again"):
        performance_plots.draw_all(measured, tmp_path / name)
        drawn.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert drawn[0] == drawn[1]
    assert {f"{name}.svg" for name in performance_plots.PLOTS} == drawn[0].keys()


async def test_contenders_take_turns_and_are_compared_within_a_run() -> None:
    asked = []

    async def measure(name: str, turn: int) -> dict[str, float]:
        asked.append((name, turn))
        return {"s": {"ours": 1.0, "plain": 2.0}[name] * (1 if turn < 2 else 10)}  # the machine slows down

    found = await alternating(("ours", "plain"), measure, rounds=2)
    assert asked[:4] == [("ours", 0), ("plain", 0), ("plain", 1), ("ours", 1)]
    assert ratios(found["s"], "ours", "plain") == [0.5, 0.5]
    assert median(found["s"]["ours"]) == 5.5
