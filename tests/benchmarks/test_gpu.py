"""`python -m benchmarks.gpu`, run on the CPU in the bundled model's shape, so that no rented machine is its first."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WHEELS = ROOT / "benchmarks" / "gpu_sections" / "wheels.txt"
# What a bare machine does not have, and what is not carried to it either.
NOT_THERE = ("boto3", "redis", "runpod", "celery", "fastapi", "aiohttp", "pytest", "imageio", "moto", "hypothesis")
BARE = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[1].split(",")))  # None: neither found nor imported
from benchmarks.gpu import main
sys.exit(main(sys.argv[2:]))
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BARE, ",".join(NOT_THERE), "--device", "cpu", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)


def test_sections_are_measured_on_a_bare_machine(tmp_path: Path) -> None:
    """Those that compile nothing; the whole run is the slow test's."""
    sections = ("env", "numbers", "memory", "offload", "bundled")
    done = run("--out", str(tmp_path), "--minutes", "20", "--only", ",".join(sections))
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert {name: found["outcome"] for name, found in report["sections"].items()} == dict.fromkeys(sections, "done")
    assert {row["section"] for row in report["rows"]} == set(sections)
    assert all(row["measured"] > 0 for row in report["rows"] if row["unit"] != "MiB")  # a small step may need none
    assert report["constants"]["shares"] == {}  # a CPU is no card
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len([line for line in lines if "way" in line]) == len(report["rows"])
    assert "| section | way | reckoned | measured | ratio | x plain | peak GiB |" in done.stdout
    assert "| VAE_VALUES_OF_PIXEL | 965 |" in done.stdout


@pytest.mark.slow
def test_the_whole_run_ends_in_time(tmp_path: Path) -> None:
    done = run("--out", str(tmp_path), "--minutes", "20")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert {found["outcome"] for found in report["sections"].values()} == {"done"}
    assert report["figures"]["graphs of a worker with what the first one left: misses"] == 0


def test_a_section_for_which_no_time_is_left_is_left_out(tmp_path: Path) -> None:
    done = run("--out", str(tmp_path), "--minutes", "0.001", "--only", "plain")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "gpu.json").read_text())["sections"]["plain"]["outcome"] == "no time left"


def test_a_section_that_does_not_exist_is_named(tmp_path: Path) -> None:
    done = run("--out", str(tmp_path), "--only", "env,speed")
    assert done.returncode == 2
    assert "no section speed; there are env, plain" in done.stderr


def test_the_wheels_to_carry_are_of_the_versions_that_are_used() -> None:
    lines = [line for line in WHEELS.read_text().splitlines() if not line.startswith("#")]
    carried = dict(line.split("==") for line in lines)
    assert carried == {name: importlib.metadata.version(name) for name in carried}
    pinned = (ROOT / "builder" / "requirements.txt").read_text().splitlines()
    assert {f"{name}=={version}" for name, version in carried.items()} >= {
        line for line in pinned if line.partition("==")[0] in ("diffusers", "torchao", "cache-dit", "pydantic")
    }
