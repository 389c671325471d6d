"""A job's own bucket (`s3Config`): checked, used for that job, and forgotten.

It names a host, so it is as untrusted as any URL of a client: https only, and all addresses of the host must be public.
That is checked before anything is made for the job, and again at each connection, before anything is sent: a name
server may answer differently the second time.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, Protocol

from pydantic import SecretStr

from flux_engine.errors import InvalidInput
from flux_engine.job.validation import shown_name
from flux_engine.job.written.bucket_fields import S3_CONFIG, sendable, trimmed
from flux_engine.net.addresses import is_public
from flux_engine.results.bucket import BucketStore
from flux_engine.results.bucket_address import Bucket, TimeBounds, bucket_address
from flux_engine.results.store import ResultStore

FIELD: Final = "s3Config"
REQUIRED: Final = ("endpointUrl", "accessId", "accessSecret")
KEYS: Final = ("accessId", "accessSecret")


class OpenBucket(Protocol):
    """How a worker opens the bucket that a job brings along: `store_from_s3_config`, or a test's own."""

    def __call__(self, config: object, *, url_expiry_s: int) -> ResultStore:
        """Raises InvalidInput where it cannot be used."""
        ...


def store_from_s3_config(
    config: object,
    *,
    url_expiry_s: int,
    prefix: str = "flux",
    bounds: TimeBounds | None = None,
    check_host: Callable[[str, int], None] | None = None,
) -> BucketStore:
    """The store that `job["s3Config"]` asks for; nothing is contacted yet.

    `check_host(host, port)` refuses an endpoint by raising; without one, https and public addresses are required.
    Raises InvalidInput (`field` s3Config), whose message holds none of the values.
    """
    if not isinstance(config, Mapping):
        raise InvalidInput(
            "`s3Config` must be an object with endpointUrl, accessId, accessSecret and bucketName", field=FIELD
        )
    values = {name: _text(config, name) for name in S3_CONFIG}
    missing = [name for name in REQUIRED if not values[name]]
    if missing:
        unknown = [shown_name(name) for name in config if name not in S3_CONFIG]
        hint = f"; it has no `{unknown[0]}`" if unknown else ""
        raise InvalidInput(f"`s3Config` needs {', '.join(missing)} as well{hint}", field=FIELD)
    for name in KEYS:
        try:
            sendable(values[name])
        except ValueError as error:
            raise InvalidInput(f"`s3Config` cannot be used: {name} {error}", field=FIELD) from None
    try:
        address = bucket_address(
            values["endpointUrl"], bucket=values["bucketName"] or None, region=values["region"] or None
        )
    except ValueError as error:
        raise InvalidInput(f"`s3Config` cannot be used: {error}; set endpointUrl and bucketName", field=FIELD) from None
    if check_host is None and not address.endpoint_url.startswith("https://"):
        raise InvalidInput("`s3Config` cannot be used: endpointUrl must be an https URL", field=FIELD)
    bucket = Bucket(
        endpoint_url=address.endpoint_url,
        name=address.bucket,
        region=address.region,
        access_key_id=SecretStr(values["accessId"]),
        secret_access_key=SecretStr(values["accessSecret"]),
        prefix=prefix,
        url_expiry_s=url_expiry_s,
    )
    check = partial(check_host or require_public_host, address.host, address.port)
    is_allowed = is_public if check_host is None else None
    return BucketStore(bucket, bounds=bounds, before_connect=check, is_allowed=is_allowed, is_clients=True)


def require_public_host(host: str, port: int) -> None:
    """Raise InvalidInput unless every address of `host` is public. Blocks while the name is resolved."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise InvalidInput(
            "`s3Config` cannot be used: the host of endpointUrl is not known; check its spelling", field=FIELD
        ) from None
    if not all(is_public(str(address[0])) for *_, address in found):
        raise InvalidInput(
            "`s3Config` cannot be used: the host of endpointUrl is not public; use one that is", field=FIELD
        )


def _text(config: Mapping[object, object], name: str) -> str:
    value = config.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InvalidInput(f"`s3Config` cannot be used: {name} must be a string", field=FIELD)
    return trimmed(value)
