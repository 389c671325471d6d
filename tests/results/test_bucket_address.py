from __future__ import annotations

import pytest

from flux_engine.results.bucket_address import bucket_address, bucket_from_settings
from flux_engine.settings import Settings, SettingsError

SUPABASE = "https://abcdefghijkl.supabase.co/storage/v1/s3"
KEYS = {"BUCKET_ACCESS_KEY_ID": "a-key", "BUCKET_SECRET_ACCESS_KEY": "a-secret"}


@pytest.mark.parametrize(
    ("endpoint", "bucket", "expected"),
    [
        ("https://s3.amazonaws.com", "art", ("https://s3.amazonaws.com", "art", "us-east-1")),
        ("https://s3.eu-west-1.amazonaws.com/art", None, ("https://s3.eu-west-1.amazonaws.com", "art", "eu-west-1")),
        ("https://art.s3.eu-west-1.amazonaws.com", None, ("https://s3.eu-west-1.amazonaws.com", "art", "eu-west-1")),
        (
            "https://a.b.s3.us-gov-west-1.amazonaws.com/",
            None,
            ("https://s3.us-gov-west-1.amazonaws.com", "a.b", "us-gov-west-1"),
        ),
        ("https://art.s3.amazonaws.com/art", "art", ("https://s3.amazonaws.com", "art", "us-east-1")),
        ("https://0a1b.r2.cloudflarestorage.com", "art", ("https://0a1b.r2.cloudflarestorage.com", "art", "auto")),
        (
            "https://s3.us-west-004.backblazeb2.com",
            "art",
            ("https://s3.us-west-004.backblazeb2.com", "art", "us-west-004"),
        ),
        (
            "https://s3.eu-central-2.wasabisys.com/art",
            None,
            ("https://s3.eu-central-2.wasabisys.com", "art", "eu-central-2"),
        ),
        ("https://art.nyc3.digitaloceanspaces.com", "art", ("https://nyc3.digitaloceanspaces.com", "art", "nyc3")),
        ("http://minio.local:9000/art/", None, ("http://minio.local:9000", "art", "us-east-1")),
        (SUPABASE, "art", (SUPABASE, "art", "us-east-1")),
        (f"{SUPABASE}/", "art", (SUPABASE, "art", "us-east-1")),
        (f"{SUPABASE}/art", "art", (SUPABASE, "art", "us-east-1")),
        ("https://files.example/minio", "art", ("https://files.example/minio", "art", "us-east-1")),
        ("http://[::1]:9000/art", None, ("http://[::1]:9000", "art", "us-east-1")),
        ("HTTPS://S3.eu-west-1.amazonaws.com/", "art", ("https://s3.eu-west-1.amazonaws.com", "art", "eu-west-1")),
    ],
)
def test_every_spelling_of_an_endpoint(endpoint: str, bucket: str | None, expected: tuple[str, str, str]) -> None:
    address = bucket_address(endpoint, bucket=bucket)
    assert (address.endpoint_url, address.bucket, address.region) == expected


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"BUCKET_ENDPOINT_URL": "https://s3.amazonaws.com"}, "no bucket is named"),
        ({"BUCKET_ENDPOINT_URL": "s3.amazonaws.com/art"}, "http or https"),
        ({"BUCKET_ENDPOINT_URL": "https://u:p@s3.amazonaws.com/art"}, "without a user"),
        ({"BUCKET_ENDPOINT_URL": "https://s3.amazonaws.com/art/2026"}, "no bucket is named; with the bucket"),
        ({"BUCKET_ENDPOINT_URL": "https://s3.amazonaws.com/art", "BUCKET_NAME": "other"}, "another bucket"),
        ({"BUCKET_ENDPOINT_URL": "https://s3.amazonaws.com", "BUCKET_NAME": "../x"}, "3 to 63"),
        ({"BUCKET_ENDPOINT_URL": "https://s3.amazonaws.com:99999/art"}, "BUCKET_ENDPOINT_URL"),
        ({"BUCKET_ENDPOINT_URL": SUPABASE}, "no bucket is named; with the bucket"),
        ({"BUCKET_ENDPOINT_URL": "https://my_minio:9000/art"}, "BUCKET_ENDPOINT_URL.*IP address"),
        ({"BUCKET_ENDPOINT_URL": "https://bücher.example/art"}, "BUCKET_ENDPOINT_URL.*ASCII"),
        ({"BUCKET_ENDPOINT_URL": "https://-s3.example/art"}, "BUCKET_ENDPOINT_URL"),
        ({"BUCKET_ENDPOINT_URL": "https://art.s3.amazonaws.com", "BUCKET_NAME": "other"}, "another bucket"),
        ({"BUCKET_ENDPOINT_URL": "https://s3.example", "BUCKET_NAME": "s3://art"}, "BUCKET_NAME.*without s3://"),
        ({"BUCKET_ENDPOINT_URL": "https://s3.example/a", "BUCKET_REGION": "us east"}, "BUCKET_REGION"),
        (
            {"BUCKET_ENDPOINT_URL": "https://s3.example", "BUCKET_NAME": "My_Art", "BUCKET_ADDRESSING": "virtual"},
            "BUCKET_ADDRESSING",
        ),
        ({"BUCKET_ENDPOINT_URL": "https://s3.amazonaws.com/art", "BUCKET_PREFIX": "a/../b"}, "BUCKET_PREFIX"),
        ({"BUCKET_ENDPOINT_URL": "https://s3.amazonaws.com/art", "BUCKET_PUBLIC_URL": "cdn"}, "BUCKET_PUBLIC_URL"),
    ],
)
def test_a_half_configured_bucket_stops_the_worker(environment: dict[str, str], says: str) -> None:
    with pytest.raises(SettingsError, match=says) as stopped:
        bucket_from_settings(Settings.from_environment(KEYS | environment))
    assert "a-secret" not in str(stopped.value)


def test_a_bucket_without_its_keys_stops_the_worker() -> None:
    with pytest.raises(SettingsError, match="BUCKET_SECRET_ACCESS_KEY"):
        Settings.from_environment({"BUCKET_ENDPOINT_URL": "https://s3.amazonaws.com/art", "BUCKET_ACCESS_KEY_ID": "x"})


def test_no_secret_stands_in_a_bucket_s_text() -> None:
    environment = KEYS | {"BUCKET_ENDPOINT_URL": "https://s3.amazonaws.com/art"}
    bucket = bucket_from_settings(Settings.from_environment(environment))
    assert "a-secret" not in repr(bucket)
    assert "a-key" not in repr(bucket)
