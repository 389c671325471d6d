"""Results in an S3-compatible bucket: AWS, Cloudflare R2, MinIO, Backblaze B2 and the like.

Objects are private. Requests are signed with SigV4 for an explicit region, and checksums are sent only where the API
requires them, which is what stores other than AWS accept. boto3 takes 0.3 s to import and blocks: it is imported at
the first use and runs on a few threads of its own, with a bound on the whole of every call. Not here: which bucket to
use (bucket_address.py, s3_config.py).
"""

from __future__ import annotations

import asyncio
import io
import logging
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote

from flux_engine.errors import FluxError, InvalidInput, StorageFailed
from flux_engine.results.bucket_address import Bucket, TimeBounds
from flux_engine.results.store import Link, identity_of, is_content, object_key
from flux_engine.units import MIB

if TYPE_CHECKING:
    from flux_engine.results.bucket_client import BucketClient

MULTIPART_FROM_BYTES: Final = 16 * MIB
PART_BYTES: Final = 8 * MIB
UPLOAD_THREADS: Final = 8
A_YEAR: Final = "max-age=31536000, immutable"  # a key is a hash of its content, which never changes
NOT_THERE: Final = ("404", "NoSuchKey", "NotFound")
NOT_SHOWN: Final = ("403", "AccessDenied", "Forbidden")  # AWS: also a missing key, without the ListBucket permission

T = TypeVar("T")
log = logging.getLogger(__name__)


class BucketStore:
    """A ResultStore in a bucket."""

    has_urls: Final = True

    def __init__(
        self,
        bucket: Bucket,
        *,
        bounds: TimeBounds | None = None,
        before_connect: Callable[[], None] | None = None,
        is_allowed: Callable[[str], bool] | None = None,
        is_clients: bool = False,
    ) -> None:
        """`before_connect` runs on a thread before the first request and may refuse the endpoint by raising.
        `is_allowed` decides for each connected numeric address whether anything may be sent there.

        A client's bucket has the same identity only for jobs that bring the same access key.
        """
        self._bucket = bucket
        self._is_clients = is_clients
        self._bounds = bounds or TimeBounds()
        self._before_connect = before_connect
        self._is_allowed = is_allowed
        self._threads = ThreadPoolExecutor(UPLOAD_THREADS, thread_name_prefix="bucket")
        self._client_lock = threading.Lock()
        self._client: BucketClient | None = None
        self._is_closed = False

    @property
    def prefix(self) -> str:
        return self._bucket.prefix

    async def identity(self) -> str:
        parts = ("bucket", self._bucket.endpoint_url, self._bucket.name, self._bucket.prefix)
        if not self._is_clients:
            return identity_of(*parts)
        # A client that names another client's bucket must not meet its entries: it cannot open the bucket, and it could
        # hold the lease.
        return identity_of("client", *parts, self._bucket.access_key_id.get_secret_value())

    async def warm(self) -> None:
        """Import boto3, load its description of S3 and check the endpoint now, so that no result waits for them."""
        await self._run("set up", self._connected, self._bounds.lookup_s)

    async def probe(self) -> None:
        """Whether the bucket answers. What it would refuse of a file is tried at a worker's start (trial.py)."""
        await self.exists(object_key(self.prefix, "0" * 64, "png"), size=1)

    async def put(self, data: bytes, *, key: str, content_type: str) -> None:
        await self._run("accept the result", lambda: self._upload(data, key, content_type), self._bounds.upload_s)

    async def url(self, key: str) -> Link:
        if self._bucket.public_url is not None:
            return Link(f"{self._bucket.public_url}/{quote(key)}")
        expires_at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=self._bucket.url_expiry_s)
        if self._client is not None:  # signing is arithmetic: a millisecond, less than the way to a thread and back
            return Link(_translated("sign a URL", lambda: self._presigned(key)), expires_at)
        return Link(await self._run("sign a URL", lambda: self._presigned(key), self._bounds.lookup_s), expires_at)

    async def exists(self, key: str, *, size: int) -> bool | None:
        return await self._run(
            "answer whether it holds the result", lambda: self._holds(key, size), self._bounds.lookup_s
        )

    async def get(self, key: str, *, size: int, sha256: str) -> bytes:
        data = await self._run("return the result", lambda: self._download(key, size), self._bounds.upload_s)
        if not is_content(data, size=size, sha256=sha256):
            log.warning("bucket returned other bytes than were stored")
            raise StorageFailed("the bucket returned other bytes than were stored; send the job again")
        return data

    async def delete(self, key: str) -> None:
        await self._run("delete a file", lambda: self._remove(key), self._bounds.lookup_s)

    def close(self) -> None:
        """Also ends running calls: no thread outlives the store."""
        self._is_closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            self._client.close()

    async def _run(self, what: str, call: Callable[[], T], total_s: float) -> T:
        """Run `call` on a thread. After a time-out here, the thread ends at its own time-outs."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(total_s):
                return await loop.run_in_executor(self._threads, copy_context().run, _translated, what, call)
        except TimeoutError:
            log.warning("bucket timed out", extra={"detail": f"did not {what} within {total_s:.0f} s"})
            raise StorageFailed(f"the bucket did not {what} within {total_s:.0f} s; send the job again") from None

    def _upload(self, data: bytes, key: str, content_type: str) -> None:
        visibility = "private" if self._bucket.public_url is None else "public"
        headers = {"ContentType": content_type, "CacheControl": f"{visibility}, {A_YEAR}"}
        if len(data) < MULTIPART_FROM_BYTES:
            self._connected().put_object(Bucket=self._bucket.name, Key=key, Body=data, **headers)
            return
        from boto3.s3.transfer import TransferConfig

        parts = TransferConfig(
            multipart_threshold=MULTIPART_FROM_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=4
        )
        self._connected().upload_fileobj(io.BytesIO(data), self._bucket.name, key, ExtraArgs=headers, Config=parts)

    def _presigned(self, key: str) -> str:
        url: str = self._connected().generate_presigned_url(
            "get_object", Params={"Bucket": self._bucket.name, "Key": key}, ExpiresIn=self._bucket.url_expiry_s
        )
        return url

    def _holds(self, key: str, size: int) -> bool | None:
        from botocore.exceptions import ClientError

        try:
            found: int = self._connected().head_object(Bucket=self._bucket.name, Key=key)["ContentLength"]
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in NOT_THERE:
                return False
            if code in NOT_SHOWN:
                return None
            raise
        return found == size

    def _download(self, key: str, size: int) -> bytes:
        """The object, or its first `size` + 1 bytes where it is longer."""
        with closing(self._connected().get_object(Bucket=self._bucket.name, Key=key)["Body"]) as body:
            data: bytes = body.read(size + 1)
        return data

    def _remove(self, key: str) -> None:
        self._connected().delete_object(Bucket=self._bucket.name, Key=key)

    def _unusable(self) -> FluxError:
        if self._is_clients:
            return InvalidInput(
                "`s3Config` cannot be used: the host of endpointUrl, or region, is not a valid one", field="s3Config"
            )
        return StorageFailed("the bucket cannot be used; check BUCKET_ENDPOINT_URL and BUCKET_REGION")

    def _connected(self) -> Any:
        with self._client_lock:
            if self._client is None:
                if self._before_connect is not None:
                    self._before_connect()
                from flux_engine.results.bucket_client import BucketClient

                try:
                    self._client = BucketClient(self._bucket, self._bounds, is_allowed=self._is_allowed)
                except ValueError:  # boto3 refuses the host or the region, and its text quotes it
                    raise self._unusable() from None
                if self._is_closed:  # meanwhile: let the first call end at once
                    self._client.close()
            return self._client.s3


def _translated(what: str, call: Callable[[], T]) -> T:
    """`call`, with boto3's errors raised as StorageFailed, whose message has a short code and no address."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

    try:
        return call()
    except (Boto3Error, BotoCoreError, ClientError, HTTPClientError, OSError) as error:
        reason = _reason(error)
        log.warning("bucket failed", extra={"detail": f"did not {what}: {reason}"})
        # Without the cause: its text holds the endpoint, and for a signed request the whole URL.
        raise StorageFailed(f"the bucket did not {what} ({reason}); check the bucket and send the job again") from None


def _reason(error: Exception) -> str:
    response = getattr(error, "response", None) or getattr(error.__context__, "response", None)
    code = response.get("Error", {}).get("Code", "") if isinstance(response, dict) else ""
    return code if re.fullmatch(r"[A-Za-z0-9]{1,60}", code) else type(error).__name__
