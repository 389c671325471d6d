"""Environment variables: defaults, types, and refusals that name the variable."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from pydantic import SecretStr

from flux_engine.build import build_store
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
        ("REDIS_URL", "redis://:pa/ss@localhost:6379"),
        ("REDIS_URL", "redis://:12/34@localhost"),
        ("REDIS_URL", "redis://:pa#ss@localhost:6379"),
        ("REDIS_URL", "redis://:pa?ss@localhost:6379"),
        ("REDIS_URL", "redis://localhost/cache"),
        ("REDIS_URL", "redis:///0"),
        ("REDIS_URL", "redis://localhost?nonsense=1"),
        ("REDIS_URL", "redis://localhost?socket_timeout=soon"),
        ("REDIS_URL", "rediss://localhost?ssl_cert_reqs=maybe"),
        ("REDIS_URL", "redis://local host"),
        ("REDIS_URL", "unix://"),
        ("HF_TOKEN", "hf_abc def"),
        ("HF_TOKEN", "Bearer hf_abc"),
        ("HF_TOKEN", '"hf_abc"'),
        ("HF_TOKEN", "hf_ábc"),
        ("CIVITAI_TOKEN", "one\ntwo"),
        ("CIVITAI_TOKEN", "{{ RUNPOD_SECRET_civitai }}"),
        ("BUCKET_ACCESS_KEY_ID", "AK ID"),
        ("BUCKET_SECRET_ACCESS_KEY", "a\tb"),
        ("BUCKET_ENDPOINT_URL", "storage.example"),
        ("BUCKET_ENDPOINT_URL", "https://storage.example:0/x"),
        ("BUCKET_ENDPOINT_URL", "https://user:pass@storage.example/x"),
        ("BUCKET_NAME", "s3://pictures"),
        ("BUCKET_NAME", "pictures/flux"),
        ("BUCKET_REGION", "US East (N. Virginia)"),
        ("BUCKET_REGION", "-"),
        ("MODEL_VOLUME", "/dev/null/models"),
        ("MODEL_VOLUME", "x" * 300),
        ("OUTPUT_DIR", "a\nb"),
        ("FLUX_MODEL", "flux\ntiny"),
        ("CACHE_NAMESPACE", "x" * 2000),
        ("CACHE_TTL_SECONDS", "9" * 30),
        ("MAX_VIDEO_WORK", "nan"),
        ("MAX_VIDEO_WORK", "inf"),
        ("LORA_CACHE_BYTES", "20 GB"),
        ("WORKER_CONCURRENCY", "1.5"),
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


@pytest.mark.parametrize(
    ("variable", "value", "read"),
    [
        ("HF_TOKEN", "hf_abc\n", "hf_abc"),
        ("CIVITAI_TOKEN", " \tabc\r\n", "abc"),
        ("HF_TOKEN", "\ufeffhf_abc\u200b", "hf_abc"),
        ("REDIS_URL", "redis://localhost\n", "redis://localhost"),
        ("REDIS_URL", "redis://u:p%40ss%2Fw%23d@localhost:6379/1", "redis://u:p%40ss%2Fw%23d@localhost:6379/1"),
        ("REDIS_URL", "redis://:p@ss@[::1]:6379", "redis://:p@ss@[::1]:6379"),
        ("WORKER_CONCURRENCY", " 2 ", 2),
        ("WARMUP", "Eager\n", "eager"),
        ("LOG_LEVEL", "debug", "DEBUG"),
        ("BUCKET_REGION", " EU-West-1 ", "eu-west-1"),
        ("BUCKET_NAME", "pictures ", "pictures"),
        ("FLUX_MODEL", "flux-tiny\n", "flux-tiny"),
        ("CACHE_NAMESPACE", "\n", "local"),
        ("MODEL_VOLUME", "/runpod-volume/ ", Path("/runpod-volume")),
    ],
)
def test_what_surrounds_a_value_is_not_part_of_it(variable: str, value: str, read: object) -> None:
    found = getattr(Settings.from_environment({variable: value}), variable.lower())
    assert (found.get_secret_value() if isinstance(found, SecretStr) else found) == read


def test_slashes_around_a_prefix_or_behind_a_url_mean_nothing() -> None:
    written = {"BUCKET_PREFIX": "/flux/v1/", "BUCKET_PUBLIC_URL": "https://cdn.example/pictures/"}
    settings = Settings.from_environment(written)
    assert (settings.bucket_prefix, settings.bucket_public_url) == ("flux/v1", "https://cdn.example/pictures")


def test_secrets_do_not_show_where_they_are_refused() -> None:
    with pytest.raises(SettingsError) as refusal:
        Settings.from_environment({"REDIS_URL": "redis://user:very-secret/half@host:6379"})
    assert "very-secret" not in str(refusal.value)


PASTED = (
    *(
        "hf_abc",
        "AKIAEXAMPLE",
        "very-secret",
        "pictures",
        "us-east-1",
        "auto",
        "https://storage.example/results",
        "flux",
    ),
    *(
        "redis://localhost:6379/0",
        "redis://u:p@ss#w/rd@h",
        "rediss://h?x=1",
        "https://h/a/b/c",
        "http://[::1]:9000/art",
    ),
    *(
        "1",
        "0",
        "-1",
        "2GB",
        "1e400",
        "nan",
        "true",
        "None",
        "null",
        "path",
        "virtual",
        "eager",
        "DEBUG",
        "/tmp",
        "outputs",
    ),
    *("", " ", "\n", "\t", "\ufeff", "'", '"', "Bearer ", "é", "日本", "\u202e", "{{ x }}", "$X", "%", "#", "?", "/"),
    *(
        "..",
        "//",
        "@",
        ":",
        ",",
        "*",
        "s3://art",
        "x" * 300,
        "9" * 40,
        "a_b",
        "-a",
        "A.B",
        "xn--",
        "file:///etc/passwd",
    ),
)


def _refusal(environment: dict[str, str], folder: Path) -> str | None:
    try:
        build_store(Settings.from_environment(environment), cache_folder=folder, is_local=True).close()
    except SettingsError as error:
        return str(error)
    return None


def test_made_up_environments_start_or_name_a_variable(tmp_path: Path) -> None:
    """2,000 of them: the line names a variable that is set, and what starts can be signed, sent and looked at."""
    chance = random.Random(31)
    started = 0
    for _ in range(2000):
        names = chance.sample(sorted(Settings.model_fields), k=chance.randint(0, 3))
        if chance.random() < 0.5:
            names += [name.lower() for name in BUCKET]
        environment = {
            name.upper(): "".join(chance.choices(PASTED, k=chance.choice((1, 1, 1, 2, 3)))) for name in names
        }
        for name in chance.sample(sorted(BUCKET), k=2):
            if name in environment:
                environment[name] = chance.choice(("", "\n", " ")) + BUCKET[name] + chance.choice(("", "\r\n", " "))
        refusal = _refusal(environment, tmp_path)
        if refusal is not None:
            assert any(name in refusal for name in environment), environment
            assert "very-secret" not in refusal
            continue
        started += 1
        settings = Settings.from_environment(environment)
        values = (getattr(settings, name) for name in Settings.model_fields)
        secrets = [value.get_secret_value() for value in values if isinstance(value, SecretStr)]
        assert all(secret.isprintable() and secret.isascii() for secret in secrets), environment
        assert settings.model_volume.is_dir() in (True, False)
        if settings.has_bucket and started % 40 == 0:
            store = build_store(settings, cache_folder=tmp_path, is_local=True)
            asyncio.run(store.warm())  # boto3 takes endpoint, region and keys
            store.close()
    assert 200 < started < 1900


def test_secrets_do_not_show() -> None:
    assert "very-secret" not in repr(Settings.from_environment(BUCKET))
