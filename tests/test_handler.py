"""The worker as a user starts it: processes of its own, their exit codes, what they print and write."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
QUICK = {"input": {"prompt": "a red sun on the left", "steps": 2, "size": "128x128", "seed": 5}}


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RUNPOD_", "BUCKET_"))}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**inherited, "OUTPUT_DIR": str(cwd / "outputs"), "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_same_job_in_two_processes_gives_the_same_bytes(tmp_path: Path) -> None:
    files = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        done = run(str(ROOT / "handler.py"), "--test_input", json.dumps(QUICK), cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr
        (picture,) = (folder / "outputs").rglob("*.png")
        assert done.stdout.splitlines()[-2].startswith(str(picture))
        files.append(picture.read_bytes())
    assert files[0] == files[1]


def test_without_a_value_test_input_json_beside_the_handler_runs(tmp_path: Path) -> None:
    done = run(str(ROOT / "handler.py"), "--test_input", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (picture,) = (tmp_path / "outputs").rglob("*.png")
    with Image.open(picture) as opened:
        assert opened.size == (256, 256)


def test_a_bad_job_exits_with_its_message(tmp_path: Path) -> None:
    done = run(str(ROOT / "handler.py"), "--test_input", '{"input": {"prompt": "a", "width": 1}}', cwd=tmp_path)
    assert done.returncode == 1
    assert "failed: invalid_input (width)" in done.stdout
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    "environment",
    [
        {"WARMUP": "sometimes"},
        {"FLUX_MODEL": "/no/such/folder"},
        {"BUCKET_ENDPOINT_URL": "nonsense", "BUCKET_ACCESS_KEY_ID": "key", "BUCKET_SECRET_ACCESS_KEY": "secret"},
    ],
    ids=lambda environment: str(next(iter(environment))),
)
def test_an_invalid_setting_stops_the_worker(tmp_path: Path, environment: dict[str, str]) -> None:
    done = run(str(ROOT / "handler.py"), cwd=tmp_path, **environment)
    assert done.returncode == 1
    assert done.stderr.strip().startswith(f"The worker cannot start: {next(iter(environment))}")
    assert "Traceback" not in done.stderr


def test_nothing_heavy_is_imported_before_a_job(tmp_path: Path) -> None:
    code = (
        "import handler, sys; print(*[m for m in ('torch', 'diffusers', 'transformers', 'boto3') if m in sys.modules])"
    )
    done = run("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


COMMAND = ("-m", "flux_engine", "a red sun", "--seed", "3", "--steps", "2", "--size", "128x128", "--json", "-o")


def test_the_command_line_writes_where_it_is_told_and_finds_it_again(tmp_path: Path) -> None:
    first, second = tmp_path / "sun.webp", tmp_path / "again.webp"
    for picture, is_cached in ((first, False), (second, True)):
        done = run(*COMMAND, str(picture), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert result["images"][0]["url"] == picture.as_uri()
        assert result["cached"] is is_cached
        with Image.open(picture) as opened:
            assert opened.format == "WEBP"
    assert first.read_bytes() == second.read_bytes()


def test_the_plan_comes_in_a_file_on_request(tmp_path: Path) -> None:
    done = run(*COMMAND, str(tmp_path / "sun.png"), "--plan-file", str(tmp_path / "plan.json"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert (plan["dtype"], plan["refused"]) == ("float32", [])
    assert {"dtype", "offload", "attention", "compile"} <= set(plan["reasons"])
    model = json.loads(done.stdout)["model"]
    assert model["plan"] == plan
    assert set(model["cold_start"]) == {"imports_ms", "weights_ms", "apply_ms", "warm_up_ms"}


def test_a_place_that_does_not_exist_is_said(tmp_path: Path) -> None:
    done = run(*COMMAND, str(tmp_path / "missing" / "sun.png"), cwd=tmp_path)
    assert done.returncode == 1
    assert "No such file or directory; the result is in" in done.stderr
