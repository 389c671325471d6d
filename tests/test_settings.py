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
        ("BUCKET_NAME", "a bucket"),
        ("BUCKET_REGION", "eu west"),
        ("BUCKET_PREFIX", "../flux"),
        ("BUCKET_PUBLIC_URL", "cdn.example"),
        ("BUCKET_PUBLIC_URL", "https://cdn.example:port/"),
        ("REDIS_URL", "localhost:6379"),
        ("REDIS_URL", "http://localhost"),
        ("REDIS_URL", "redis://localhost:port"),
        ("LORA_HOSTS", "https://huggingface.co"),
        ("LORA_HOSTS", "*huggingface.co"),
        ("LORA_HOSTS", "huggingface.co:443"),
        ("LORA_HOSTS", ","),
    ],
)
def test_an_invalid_variable_is_named(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=variable):
        Settings.from_environment({variable: value})


@pytest.mark.parametrize("missing", sorted(BUCKET))
def test_half_a_bucket_is_refused(missing: str) -> None:
    with pytest.raises(SettingsError, match=missing):
        Settings.from_environment({name: value for name, value in BUCKET.items() if name != missing})


def test_a_refusal_has_nothing_but_the_reason() -> None:
    with pytest.raises(SettingsError) as refusal:
        Settings.from_environment({"BUCKET_ENDPOINT_URL": "https://storage.example", "BUCKET_NAME": "?"})
    assert str(refusal.value).startswith("BUCKET_NAME: must be 3 to 63")
    with pytest.raises(SettingsError, match=r"^BUCKET_ACCESS_KEY_ID, BUCKET_SECRET_ACCESS_KEY must be set as well"):
        Settings.from_environment({"BUCKET_ENDPOINT_URL": "https://storage.example"})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("BUCKET_PREFIX", "/flux/v1/"),
        ("BUCKET_PUBLIC_URL", "https://cdn.example/pictures/"),
        ("REDIS_URL", "redis://:secret@cache.example:6379/1"),
        ("REDIS_URL", "rediss://cache.example"),
        ("REDIS_URL", "unix:///run/redis.sock?db=1"),
        ("LORA_HOSTS", "*"),
        ("LORA_HOSTS", "HuggingFace.co,*.hf.co, localhost,10.0.0.1"),
    ],
)
def test_what_is_valid_is_taken(variable: str, value: str) -> None:
    assert Settings.from_environment({variable: value}) != Settings.from_environment({})


def test_slashes_around_a_prefix_or_behind_a_url_mean_nothing() -> None:
    written = {"BUCKET_PREFIX": "/flux/v1/", "BUCKET_PUBLIC_URL": "https://cdn.example/pictures/"}
    settings = Settings.from_environment(written)
    assert (settings.bucket_prefix, settings.bucket_public_url) == ("flux/v1", "https://cdn.example/pictures")


def test_secrets_do_not_show_where_they_are_refused() -> None:
    with pytest.raises(SettingsError) as refusal:
        Settings.from_environment({"REDIS_URL": "redis://user:very-secret/half@host:6379"})
    assert "very-secret" not in str(refusal.value)


def test_secrets_do_not_show() -> None:
    assert "very-secret" not in repr(Settings.from_environment(BUCKET))
