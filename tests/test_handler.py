"""The worker as a user starts it: processes of its own, their exit codes, what they print and write."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
PATIENCE_S = 300  # no claim about speed: how long a test hangs before it says so
QUICK = {"input": {"prompt": "a red sun", "steps": 2, "size": "128x128", "seed": 5}}
COMMAND = ("-m", "flux_engine", "a red sun", "--seed", "5", "--steps", "2", "--size", "128x128", "--json", "-o")


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RUNPOD_", "BUCKET_"))}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**inherited, "OUTPUT_DIR": str(cwd / "outputs"), "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The folder and the end of a run by the command line; the next run there finds its picture in the cache."""
    folder = tmp_path_factory.mktemp("made")
    done = run(*COMMAND, "sun.png", "--plan-file", "plan.json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_the_same_job_in_two_processes_gives_the_same_bytes(
    made: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """One by the handler, one by the command line."""
    done = run(str(ROOT / "handler.py"), "--test_input", json.dumps(QUICK), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (picture,) = (tmp_path / "outputs").rglob("*.png")
    assert done.stdout.splitlines()[-2].startswith(str(picture))
    assert picture.read_bytes() == (made[0] / "sun.png").read_bytes()


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


def test_sigterm_ends_a_worker_that_is_still_starting(tmp_path: Path) -> None:
    """With status 0 and not by the signal: as process 1 of a container it would not be ended by that at all."""
    began = tmp_path / "began"
    tool = tmp_path / "nvidia-smi"  # the SDK asks it before it begins to take jobs
    tool.write_text(f"#!/bin/sh\ntouch {began}\nexec sleep 600\n")
    tool.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "RUNPOD_WEBHOOK_GET_JOB": "http://127.0.0.1:9/job-take/$ID?gpu=none",
        "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
    }
    with subprocess.Popen([sys.executable, str(ROOT / "handler.py")], env=environment) as worker:
        while not began.exists() and worker.poll() is None:
            time.sleep(0.05)
        worker.terminate()
        assert worker.wait(timeout=PATIENCE_S) == 0


def test_nothing_heavy_is_imported_before_a_job(tmp_path: Path) -> None:
    code = (
        "import handler, sys; print(*[m for m in ('torch', 'diffusers', 'transformers', 'boto3') if m in sys.modules])"
    )
    done = run("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def test_before_its_first_look_for_a_job_a_worker_imports_no_more_than_it_needs(tmp_path: Path) -> None:
    """A count, since times depend on the machine: 1,021 when it was set, 172 more with all of the SDK. redis takes
    OpenTelemetry's where it finds them, which a worker's image has not."""
    code = "import handler, sys; print(sum(not name.startswith('opentelemetry') for name in sys.modules))"
    done = run("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= 1_040


def test_the_command_line_finds_its_picture_again(made: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, first = made
    again = run(*COMMAND, "again.png", cwd=folder)
    assert again.returncode == 0, again.stderr
    for done, name, is_cached in ((first, "sun.png", False), (again, "again.png", True)):
        result = json.loads(done.stdout)
        assert result["images"][0]["url"] == (folder / name).as_uri()
        assert result["cached"] is is_cached
        with Image.open(folder / name) as opened:
            assert opened.format == "PNG"
    assert (folder / "sun.png").read_bytes() == (folder / "again.png").read_bytes()


def test_the_plan_comes_in_a_file_on_request(made: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = made
    plan = json.loads((folder / "plan.json").read_text())
    assert (plan["dtype"], plan["refused"]) == ("float32", [])
    assert {"dtype", "offload", "attention", "compile"} <= set(plan["reasons"])
    model = json.loads(done.stdout)["model"]
    assert model["plan"] == plan
    assert set(model["cold_start"]) == {"imports_ms", "weights_ms", "apply_ms", "warm_up_ms"}


def test_a_place_that_does_not_exist_is_said(made: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    done = run(*COMMAND, str(made[0] / "missing" / "sun.png"), cwd=made[0])
    assert done.returncode == 1
    assert "No such file or directory; the result is in" in done.stderr
