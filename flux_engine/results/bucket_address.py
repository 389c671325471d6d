"""Which bucket an endpoint URL means, and the region that its requests are signed for.

Four spellings are in use: the bare endpoint with a bucket beside it; RunPod's, with the bucket as the path's only
segment; AWS's, with the bucket in front of the host; and an API below a path, as Supabase has it, with the bucket
beside it. Pure functions; nothing is contacted.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

from pydantic import SecretStr

from flux_engine.job.written.bucket_fields import valid_bucket, valid_endpoint, valid_region
from flux_engine.settings import Settings, SettingsError

_AWS_VIRTUAL = re.compile(r"(?P<bucket>.+)\.(?P<service>s3[.-].*amazonaws\.com|s3\.amazonaws\.com)")
_AT_THE_ROOT: Final = re.compile(  # stores whose API is never below a path
    r"(?:.+\.)?(?:amazonaws\.com|r2\.cloudflarestorage\.com|backblazeb2\.com|wasabisys\.com|digitaloceanspaces\.com)"
)
_REGION_IN_HOST: Final = (
    re.compile(r"s3[.-](?:dualstack\.)?([a-z]{2}(?:-[a-z]+)+-\d)\.amazonaws\.com"),
    re.compile(r"s3\.([a-z0-9-]+)\.(?:backblazeb2|wasabisys|scw)\.(?:com|cloud)"),
    re.compile(r"([a-z0-9]+)\.digitaloceanspaces\.com"),
)
_IN_A_HOST_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{1,61}[a-z0-9])(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
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
    """An endpoint without the bucket in it, and the bucket."""

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


def bucket_address(endpoint: str, *, bucket: str | None = None, region: str | None = None) -> BucketAddress:
    """Take `endpoint` apart. Raises ValueError, whose text says what is wrong and holds none of the values."""
    parts = urlsplit(_named("the endpoint", valid_endpoint, endpoint))
    host, in_host = _bucket_of_host(parts.hostname or "", bucket)
    segments = [segment for segment in parts.path.split("/") if segment]
    name = bucket or in_host or (segments[0] if len(segments) == 1 else None)
    if name is None:
        path = "; with the bucket named beside it, a path belongs to the endpoint" if segments else ""
        raise ValueError(f"no bucket is named{path}")
    if segments and segments[-1] == name:
        segments.pop()
    if (in_host is not None and in_host != name) or (segments and _AT_THE_ROOT.fullmatch(host)):
        raise ValueError("the endpoint names another bucket than the bucket name")
    literal = f"[{host}]" if ":" in host else host
    port = f":{parts.port}" if parts.port else ""
    return BucketAddress(
        endpoint_url="/".join((f"{parts.scheme}://{literal}{port}", *segments)),
        bucket=_named("the bucket name", valid_bucket, name),
        region=_named("the region", valid_region, region) if region else _region(host),
    )


def _named(what: str, check: Callable[[str], str], value: str) -> str:
    try:
        return check(value)
    except ValueError as error:
        raise ValueError(f"{what} {error}") from None


def bucket_from_settings(settings: Settings) -> Bucket:
    """The worker's own bucket. Raises SettingsError with the variables' names."""
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
        raise SettingsError(f"BUCKET_ENDPOINT_URL, BUCKET_NAME: {error}; set BUCKET_NAME to the bucket alone") from None
    if settings.bucket_addressing == "virtual" and not _IN_A_HOST_NAME.fullmatch(address.bucket):
        raise SettingsError(
            "BUCKET_ADDRESSING, BUCKET_NAME: a bucket whose name is no host name (small letters, digits, hyphens) "
            "cannot stand in front of the host; set BUCKET_ADDRESSING to path"
        )
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
