"""What was measured on a card, written into the table that plans are made with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu_sections.bench import Bench, Row
from benchmarks.gpu_sections.report import constants
from benchmarks.gpu_sections.scale import ON_A_GPU
from builder.calibrate import main
from flux_engine.models.planning.calibration import FILE
from flux_engine.models.planning.gpus import GpuProperties, cpu_machine, find_card

STEPS_MS = {
    "diffusers: step": 186.3,
    "ours, quality (bfloat16): step": 138.5,
    "ours, speed (fp8_dynamic): step": 108.6,
    "ours, speed (fp8_dynamic), with a LoRA: step": 125.5,
    "ours, int8 (int8_dynamic): step": 161.6,
}


def report_of(gpu: GpuProperties, steps: dict[str, float] = STEPS_MS) -> dict[str, Any]:
    """As `benchmarks.gpu` would write it where steps take so long."""
    bench = Bench(scale=ON_A_GPU, gpu=gpu, folder=Path())
    bench.rows = [Row(section="ours", way=way, measured=ms, unit="ms a step") for way, ms in steps.items()]
    bench.figures = {"version of torch": "2.13.0", "version of diffusers": "0.42.1", "driver": "580.65.06"}
    return bench.to_dict() | {"constants": constants(bench)}


def card(name: str) -> GpuProperties:
    found = find_card(name)
    assert found is not None
    return found


def written(tmp_path: Path, report: object) -> tuple[Path, Path]:
    file, table = tmp_path / "gpu.json", tmp_path / "calibration.json"
    file.write_text(json.dumps(report))
    table.write_text(FILE.read_text())
    return file, table


def test_shares_that_were_measured_replace_those_of_before(tmp_path: Path) -> None:
    """Steps as long as an H100's were give the shares that its entry has."""
    gpu = card("H100 80GB HBM3")
    file, table = written(tmp_path, report_of(gpu))
    assert main([str(file), "--table", str(table)]) == 0
    before, after = json.loads(FILE.read_text()), json.loads(table.read_text())
    assert gpu.speed is not None
    entry = after.pop(gpu.name)
    assert entry["eager"] == pytest.approx(gpu.speed.shares.eager, rel=0.03)
    assert entry["compiled"] == pytest.approx(gpu.speed.shares.compiled, rel=0.03)
    assert entry["low"] == pytest.approx(gpu.speed.shares.low, rel=0.03)
    assert entry["int8_gain"] == pytest.approx(gpu.speed.shares.int8_gain, rel=0.03)
    assert entry["origin"] == "measured by benchmarks.gpu with torch 2.13.0, diffusers 0.42.1, driver 580.65.06"
    del before[gpu.name]
    assert after == before


def test_what_was_not_measured_stays_as_it_was(tmp_path: Path) -> None:
    file, table = written(tmp_path, report_of(card("L40S"), {"diffusers: step": 500.0}))
    assert main([str(file), "--table", str(table)]) == 0
    before, after = (json.loads(path.read_text())["NVIDIA L40S"] for path in (FILE, table))
    assert (after["compiled"], after["low"]) == (before["compiled"], before["low"])
    assert after["eager"] != before["eager"]


@pytest.mark.parametrize(
    ("report", "says"),
    [
        ({}, "not a report"),
        ([], "not a report"),
        (report_of(cpu_machine(total_bytes=2**34)), "CPU is not in the table of cards"),
        (report_of(card("L4"), {}), "no share was measured"),
        (report_of(card("L4"), {"diffusers: step": 1.0}), "cannot be outside of 0.05 to 1"),
    ],
    ids=["empty", "a list", "of a CPU", "of the environment alone", "faster than the peak"],
)
def test_a_report_that_has_nothing_for_the_table_leaves_it(
    report: object, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, table = written(tmp_path, report)
    with pytest.raises(SystemExit) as ended:
        main([str(file), "--table", str(table)])
    assert ended.value.code == 2
    assert says in capsys.readouterr().err
    assert table.read_text() == FILE.read_text()


def test_a_file_that_is_no_json_or_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gpu.json").write_text("{")
    for name in ("gpu.json", "other.json"):
        with pytest.raises(SystemExit):
            main([str(tmp_path / name)])
        assert name in capsys.readouterr().err
