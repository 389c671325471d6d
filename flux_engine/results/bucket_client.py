"""boto3's client for one bucket, on connections whose answers are bounded.

botocore reads an answer whole into memory, whatever its length, and its time-outs restart with every byte. A client may
have named the endpoint, so here an answer that is not a file ends at MAX_ANSWER_BYTES, every connection leads to an
allowed address, and `close` ends running connections and with them the threads that wait for them. Importing this takes
0.3 s: bucket.py does it at the first use.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final

import boto3
import urllib3.exceptions
from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
    AWSResponse,
)
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ConnectionClosedError, HTTPClientError
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies

from flux_engine.results.bucket_address import Bucket, TimeBounds
from flux_engine.units import MIB

MAX_ANSWER_BYTES: Final = MIB  # an S3 answer that is not a file has a few kilobytes
CONNECTIONS: Final = 16


class AnswerTooLarge(BotoCoreError):  # type: ignore[misc] # botocore has no types
    """The answer is longer than any of an S3 server. Not tried again."""

    fmt = "the answer is longer than {max_bytes} bytes"


class AddressRefused(BotoCoreError):  # type: ignore[misc]
    """The endpoint's name resolved to an address that is not allowed. Nothing was sent there. Not tried again."""

    fmt = "the endpoint has an address that is not allowed"


class EndpointClosed(BotoCoreError):  # type: ignore[misc]
    """The store was closed during a call."""

    fmt = "the store is closed"


class BucketClient:
    """`s3` is boto3's client."""

    def __init__(self, bucket: Bucket, bounds: TimeBounds, *, is_allowed: Callable[[str], bool] | None = None) -> None:
        """`is_allowed` decides whether the endpoint may have a numeric address; without it every address is allowed.

        Raises ValueError for an endpoint that boto3 does not accept as a URL.
        """
        for library in (
            "boto3",
            "botocore",
            "s3transfer",
            "urllib3",
        ):  # their DEBUG lines hold signatures and signed URLs
            logging.getLogger(library).setLevel(logging.INFO)
        config = Config(
            signature_version="s3v4",
            s3={"addressing_style": bucket.addressing},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"mode": "standard", "total_max_attempts": bounds.attempts},
        )
        self.s3: Final[Any] = boto3.session.Session().client(
            "s3",
            endpoint_url=bucket.endpoint_url,
            region_name=bucket.region,
            aws_access_key_id=bucket.access_key_id.get_secret_value(),
            aws_secret_access_key=bucket.secret_access_key.get_secret_value(),
            config=config,
        )
        self._http = BoundedSession(
            is_allowed,
            timeout=(bounds.connect_s, bounds.read_s),
            max_pool_connections=CONNECTIONS,
            verify=os.environ.get("AWS_CA_BUNDLE") or os.environ.get("REQUESTS_CA_BUNDLE") or True,
            proxies=get_environ_proxies(bucket.endpoint_url),
        )
        self.s3.meta.events.register("before-send.s3", lambda request, **_: self._http.send(request))

    def close(self) -> None:
        self._http.close()
        self.s3.close()


class BoundedSession(URLLib3Session):  # type: ignore[misc]
    """botocore's HTTP session with bounds on what is read; closing it ends running requests."""

    def __init__(self, is_allowed: Callable[[str], bool] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._sockets = _Sockets()
        for scheme, pool in (("http", AWSHTTPConnectionPool), ("https", AWSHTTPSConnectionPool)):
            self._pool_classes_by_scheme[scheme] = _pool_class(pool, self._sockets, is_allowed)

    def send(self, request: Any) -> Any:
        self._sockets.check()
        is_file, request.stream_output = request.stream_output, True  # so that botocore does not read it to its end
        try:
            response = super().send(request)
        except HTTPClientError as error:
            if isinstance(error.kwargs.get("error"), AddressRefused):
                raise AddressRefused from None  # as itself, since botocore would try the other once more
            raise
        if is_file and response.status_code < 300:
            return response
        body = self._read(response.raw, request)
        return _Whole(response.url, response.status_code, response.headers, body)

    def close(self) -> None:
        super().close()
        self._sockets.close()

    def _read(self, raw: Any, request: Any) -> bytes:
        body = bytearray()
        try:
            for part in raw.stream(64 * 1024):
                body += part
                if len(body) > MAX_ANSWER_BYTES:
                    raise AnswerTooLarge(max_bytes=MAX_ANSWER_BYTES)
        except urllib3.exceptions.HTTPError as error:
            raise ConnectionClosedError(error=error, request=request, endpoint_url=request.url) from error
        finally:
            if not raw.isclosed():
                raw.close()
        return bytes(body)


class _Whole(AWSResponse):  # type: ignore[misc]
    """An answer that was read to its end."""

    def __init__(self, url: str, status_code: int, headers: Any, body: bytes) -> None:
        super().__init__(url, status_code, headers, None)
        self._content = body


class _Sockets:
    """The open sockets of one session, shut while other threads wait for them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._is_closed = False

    def add(self, opened: socket.socket) -> None:
        with self._lock:
            self._open.add(opened)
        if self._is_closed:
            _shut(opened)

    def check(self) -> None:
        if self._is_closed:
            raise EndpointClosed

    def close(self) -> None:
        self._is_closed = True
        with self._lock:
            left = list(self._open)
        for each in left:
            _shut(each)


def _shut(opened: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it has ended already
        socket.socket.shutdown(opened, socket.SHUT_RDWR)  # not TLS's own shutdown, which waits for an answer


def _pool_class(base: type[Any], sockets: _Sockets, is_allowed: Callable[[str], bool] | None) -> type[Any]:
    """botocore's pool of connections, which checks the address of each socket and keeps track of it."""
    connection: type[Any] = AWSHTTPSConnection if base is AWSHTTPSConnectionPool else AWSHTTPConnection

    class Connection(connection):  # type: ignore[misc]
        def _new_conn(self) -> socket.socket:
            opened: socket.socket = super()._new_conn()
            # The name may resolve to another address now than when it was checked. A proxy resolves names itself.
            if is_allowed is not None and self.proxy is None and not is_allowed(opened.getpeername()[0]):
                opened.close()
                raise AddressRefused
            return opened

        def connect(self) -> None:
            super().connect()  # with TLS, all of it within the time-out for connecting
            sockets.add(self.sock)

    class Pool(base):  # type: ignore[misc]
        ConnectionCls = Connection

    return Pool
