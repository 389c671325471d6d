"""Which bucket an endpoint URL means, and the region that its requests are signed for.

Three spellings are in use: the bare endpoint with a bucket beside it; RunPod's, with the bucket as the path's only
segment; and AWS's, with the bucket in front of the host. Pure functions; nothing is contacted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

from pydantic import SecretStr

from flux_engine.settings import BUCKET_NAME, Settings, SettingsError

_AWS_VIRTUAL = re.compile(r"(?P<bucket>.+)\.(?P<service>s3[.-].*amazonaws\.com|s3\.amazonaws\.com)")
_REGION_IN_HOST: Final = (
    re.compile(r"s3[.-](?:dualstack\.)?([a-z]{2}(?:-[a-z]+)+-\d)\.amazonaws\.com"),
    re.compile(r"s3\.([a-z0-9-]+)\.(?:backblazeb2|wasabisys|scw)\.(?:com|cloud)"),
    re.compile(r"([a-z0-9]+)\.digitaloceanspaces\.com"),
)
DEFAULT_REGION: Final = "us-east-1"  # what MinIO and most compatible stores answer to


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """A bucket and how it is reached. `public_url` stands in place of presigned URLs."""

    endpoint_url: str
    name: str
    region: str
    access_key_id: SecretStr
    secret_access_key: SecretStr
    prefix: str = "flux"
    public_url: str | None = None
    addressing: Literal["path", "virtual"] = "path"
    url_expiry_s: int = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeBounds:
    """Seconds for one connection, one answer, an upload with its retries, and a question with its retries."""

    connect_s: float = 5.0
    read_s: float = 30.0
    upload_s: float = 120.0
    lookup_s: float = 20.0
    attempts: int = 4


@dataclass(frozen=True, slots=True)
class BucketAddress:
    """An endpoint without a bucket in it, and the bucket."""

    endpoint_url: str
    bucket: str
    region: str

    @property
    def host(self) -> str:
        return urlsplit(self.endpoint_url).hostname or ""

    @property
    def port(self) -> int:
        parts = urlsplit(self.endpoint_url)
        return parts.port or (443 if parts.scheme == "https" else 80)


def bucket_address(endpoint_url: str, *, bucket: str | None = None, region: str | None = None) -> BucketAddress:
    """Take `endpoint_url` apart. Raises ValueError, whose text says what is wrong and holds none of the values."""
    parts = urlsplit(endpoint_url)
    port = parts.port  # raises ValueError for one out of range
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("the endpoint must be an http or https URL")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("the endpoint must be a URL without a user, a query or a fragment")
    host, in_host = _bucket_of_host(parts.hostname, bucket)
    segments = [segment for segment in parts.path.split("/") if segment]
    if len(segments) > 1:
        raise ValueError("the endpoint may have one path segment at most, the bucket")
    named = {name for name in (bucket, in_host, *segments) if name}
    if len(named) != 1:
        raise ValueError(
            "no bucket is named" if not named else "the endpoint names another bucket than the bucket name"
        )
    name = named.pop()
    if not BUCKET_NAME.fullmatch(name):
        raise ValueError("the bucket name must be 3 to 63 letters, digits, dots, hyphens or underscores")
    literal = f"[{host}]" if ":" in host else host
    bare = f"{parts.scheme}://{literal}" + (f":{port}" if port else "")
    return BucketAddress(bare, name, region or _region(host))


def bucket_from_settings(settings: Settings) -> Bucket:
    """The worker's own bucket. Raises SettingsError with the variable's name."""
    if (
        settings.bucket_endpoint_url is None
        or settings.bucket_access_key_id is None
        or settings.bucket_secret_access_key is None
    ):
        raise SettingsError("BUCKET_ENDPOINT_URL and its two keys are not set")
    try:
        address = bucket_address(
            settings.bucket_endpoint_url, bucket=settings.bucket_name, region=settings.bucket_region
        )
    except ValueError as error:
        raise SettingsError(f"BUCKET_ENDPOINT_URL, BUCKET_NAME: {error}") from None
    return Bucket(
        endpoint_url=address.endpoint_url,
        name=address.bucket,
        region=address.region,
        access_key_id=settings.bucket_access_key_id,
        secret_access_key=settings.bucket_secret_access_key,
        prefix=settings.bucket_prefix,
        public_url=settings.bucket_public_url,
        addressing=settings.bucket_addressing,
        url_expiry_s=settings.url_expiry_seconds,
    )


def _bucket_of_host(host: str, bucket: str | None) -> tuple[str, str | None]:
    """The host without a bucket in front of it, and that bucket."""
    if bucket and host.startswith(f"{bucket.lower()}."):
        return host[len(bucket) + 1 :], bucket
    match = _AWS_VIRTUAL.fullmatch(host)
    return (match["service"], match["bucket"]) if match else (host, None)


def _region(host: str) -> str:
    if host.endswith(".r2.cloudflarestorage.com"):
        return "auto"
    return next((match[1] for pattern in _REGION_IN_HOST if (match := pattern.fullmatch(host))), DEFAULT_REGION)
