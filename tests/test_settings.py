"""Environment variables: defaults, types, and refusals that name the variable."""

from __future__ import annotations

from pathlib import Path

import pytest

from flux_engine.settings import Settings, SettingsError

BUCKET = {
    "BUCKET_ENDPOINT_URL": "https://storage.example/results",
    "BUCKET_ACCESS_KEY_ID": "AKIAEXAMPLE",
    "BUCKET_SECRET_ACCESS_KEY": "very-secret",
}


def test_defaults() -> None:
    settings = Settings.from_environment({})
    assert settings.model_volume == Path("/runpod-volume")
    assert settings.warmup == "lazy"
    assert settings.cache_namespace == "local"
    assert not settings.has_bucket
    assert "huggingface.co" in settings.lora_hosts


def test_values_are_read() -> None:
    settings = Settings.from_environment(
        BUCKET | {"WARMUP": "eager", "WORKER_CONCURRENCY": "2", "LORA_HOSTS": "a.example, b.example",
                  "RUNPOD_ENDPOINT_ID": "abc", "HF_TOKEN": ""}
    )  # fmt: skip
    assert (settings.warmup, settings.worker_concurrency) == ("eager", 2)
    assert settings.lora_hosts == ("a.example", "b.example")
    assert settings.cache_namespace == "abc"
    assert settings.has_bucket
    assert settings.hf_token is None


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("WARMUP", "sometimes"),
        ("WORKER_CONCURRENCY", "0"),
        ("WORKER_CONCURRENCY", "many"),
        ("URL_EXPIRY_SECONDS", "604801"),
        ("CACHE_TTL_SECONDS", "-1"),
        ("LORA_MAX_BYTES", "2GB"),
        ("MAX_VIDEO_WORK", "0"),
        ("LOG_LEVEL", "LOUD"),
        ("BUCKET_ADDRESSING", "dns"),
    ],
)
def test_an_invalid_variable_is_named(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=variable):
        Settings.from_environment({variable: value})


@pytest.mark.parametrize("missing", sorted(BUCKET))
def test_half_a_bucket_is_refused(missing: str) -> None:
    with pytest.raises(SettingsError, match=missing):
        Settings.from_environment({name: value for name, value in BUCKET.items() if name != missing})


def test_secrets_do_not_show() -> None:
    assert "very-secret" not in repr(Settings.from_environment(BUCKET))
