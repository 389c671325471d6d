"""`python -m flux_engine capabilities` and `estimate`, as a person runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flux_engine.cli import capabilities, estimate


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, folder in {"MODEL_VOLUME": "volume", "XDG_CACHE_HOME": "cache", "OUTPUT_DIR": "outputs"}.items():
        monkeypatch.setenv(name, str(tmp_path / folder))
    monkeypatch.delenv("FLUX_MODEL", raising=False)


def test_capabilities_are_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert capabilities.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    (tiny,) = (line for line in lines if "flux-tiny (default)" in line)
    assert tiny.split()[2:] == ["here", "16", "(1", "to", "50)", "3.5", "256x256", "yes"]


def test_capabilities_for_a_script(capsys: pytest.CaptureFixture[str]) -> None:
    assert capabilities.main(["--json"]) == 0
    assert "flux-tiny" in json.loads(capsys.readouterr().out)["schemas"]["video"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a red sun", "--steps", "8"], "flux-tiny, 256x256, 8 steps: work 0.5"),
        (["video", "a red sun", "--num-frames", "8", "--size", "128x128"], "flux-tiny, 128x128, 16 steps: work 2"),
        (["a red sun", "--lora", "none"], "LoRA none: missing"),
    ],
)
def test_an_estimate_for_a_reader(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert estimate.main(arguments) == 0
    assert said in capsys.readouterr().out


def test_a_bad_job_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert estimate.main(["a red sun", "--steps", "99"]) == 1
    assert "`num_inference_steps` must be" in capsys.readouterr().out
    assert estimate.main(["a red sun", "--steps", "99", "--json"]) == 1
    assert "error" in json.loads(capsys.readouterr().out)
