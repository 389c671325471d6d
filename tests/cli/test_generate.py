"""`python -m flux_engine`: what is said of a command that cannot be carried out. What it makes is in test_handler."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flux_engine.cli.generate import main


@pytest.mark.parametrize("job", [[], ["a red sun"], "a red sun", 5, None, {}, {"input": []}])
def test_a_job_file_of_another_form_is_said(tmp_path: Path, job: object) -> None:
    file = tmp_path / "job.json"
    file.write_text(json.dumps(job))
    with pytest.raises(SystemExit) as ended:
        main(["video", "--job", str(file)])
    assert str(ended.value).startswith(f"--job: {file}: a job is an object with an `input`")


def test_a_job_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"--job: .*No such file"):
        main(["video", "--job", str(tmp_path / "missing.json")])


@pytest.mark.parametrize("name", ["sun.mp4", "sun.WEBM", "sun.gif"])
def test_a_video_asked_of_the_picture_command_is_told_the_other(name: str) -> None:
    with pytest.raises(SystemExit, match="python -m flux_engine video"):
        main(["a red sun", "-o", name])


@pytest.mark.parametrize(
    ("variable", "value"), [("BUCKET_ENDPOINT_URL", "nonsense"), ("FLUX_MODEL", "no-such-model"), ("WARMUP", "never")]
)
def test_an_invalid_setting_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv("BUCKET_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("BUCKET_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("BUCKET_ENDPOINT_URL", "https://storage.example/results")
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit, match=variable):
        main(["a red sun"])
