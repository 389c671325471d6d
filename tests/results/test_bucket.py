from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from pydantic import SecretStr

from flux_engine.errors import StorageFailed
from flux_engine.results.bucket import MULTIPART_FROM_BYTES, BucketStore
from flux_engine.results.bucket_address import Bucket
from flux_engine.results.store import NewFile, object_key, put_all
from tests.cache.results_of import read_back
from tests.servers import PATIENT, QUICK, SECRET_KEY, S3Process, fetched
from tests.web_server import own_certificate, server

WITHIN_S = 300  # a stall is no failure


def key_of(data: bytes, prefix: str = "flux") -> str:
    return object_key(prefix, hashlib.sha256(data).hexdigest(), "png")


def threads_of_stores() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("bucket")}


async def test_a_presigned_url_is_the_file_byte_for_byte(s3: S3Process) -> None:
    store = s3.store()
    data = os.urandom(100_000)
    await store.put(data, key=key_of(data), content_type="image/png")
    link = await store.url(key_of(data))
    status, body, headers = fetched(link.url)
    assert (status, body) == (200, data)
    assert headers["content-type"] == "image/png"
    assert headers["cache-control"] == "private, max-age=31536000, immutable"
    assert "X-Amz-Signature" in link.url
    assert SECRET_KEY not in link.url
    assert link.expires_at is not None
    assert abs(link.expires_at - datetime.now(UTC) - timedelta(hours=1)) < timedelta(seconds=10)
    assert await read_back(store, data, key_of(data)) == data
    store.close()


async def test_a_public_url_stands_in_place_of_a_presigned_one(s3: S3Process) -> None:
    store = s3.store(public_url=f"{s3.url}/pictures")
    await store.put(b"open", key=key_of(b"open"), content_type="image/webp")
    link = await store.url(key_of(b"open"))
    assert link.url == f"{s3.url}/pictures/{key_of(b'open')}"
    assert link.expires_at is None
    store.close()


@pytest.mark.parametrize(("size", "is_multipart"), [(MULTIPART_FROM_BYTES - 1, False), (MULTIPART_FROM_BYTES, True)])
async def test_a_large_file_goes_in_parts_and_a_small_one_whole(s3: S3Process, size: int, is_multipart: bool) -> None:
    store = s3.store()
    data = bytes([size % 251]) * size
    await store.put(data, key=key_of(data), content_type="video/mp4")
    _, body, headers = fetched((await store.url(key_of(data))).url)
    assert body == data
    assert headers["content-type"] == "video/mp4"
    assert ("-" in headers["etag"]) is is_multipart  # the ETag of parts ends in their number
    store.close()


async def test_an_object_is_there_only_whole(s3: S3Process) -> None:
    store = s3.store()
    await store.put(b"whole", key=key_of(b"whole"), content_type="image/png")
    assert await store.exists(key_of(b"whole"), size=5)
    assert not await store.exists(key_of(b"whole"), size=6)
    assert not await store.exists(key_of(b"never stored"), size=12)
    with pytest.raises(StorageFailed, match="NoSuchKey"):
        await read_back(store, b"never stored", key_of(b"never stored"))
    store.close()


async def test_several_images_go_side_by_side_and_again_without_harm(s3: S3Process) -> None:
    store = s3.store()
    files = [NewFile(key_of(bytes([i])), bytes([i]), "image/png") for i in range(4)]
    await put_all(store, files)
    await put_all(store, files)
    assert [await read_back(store, file.data, file.key) for file in files] == [file.data for file in files]
    store.close()


async def test_the_event_loop_goes_on_during_an_upload() -> None:
    """The server runs on the same loop: it would never read an upload that held it."""
    num_bytes = 0

    async def handle(request: web.Request) -> web.Response:
        nonlocal num_bytes
        async for part in request.content.iter_any():
            num_bytes += len(part)
        return web.Response()

    data = os.urandom(8_000_000)
    async with server(handle) as port:
        store = BucketStore(bucket_of(f"http://127.0.0.1:{port}"), bounds=PATIENT)
        await store.put(data, key=key_of(data), content_type="image/png")
        store.close()
    assert num_bytes == len(data)


async def test_a_bucket_that_says_no(s3: S3Process) -> None:
    wrong = s3.store(bucket="no-such-bucket")
    with pytest.raises(StorageFailed, match="NoSuchBucket") as failed:
        await wrong.put(b"x", key=key_of(b"x"), content_type="image/png")
    assert failed.value.retryable
    assert "127.0.0.1" not in failed.value.message
    wrong.close()


async def test_a_server_that_is_killed_frozen_and_back(tmp_path: Path) -> None:
    server = S3Process(tmp_path)
    server.start()
    store, hasty = server.store(), server.store(bounds=QUICK)
    await store.put(b"one", key=key_of(b"one"), content_type="image/png")

    server.freeze()
    with pytest.raises(StorageFailed):
        await hasty.put(b"two", key=key_of(b"two"), content_type="image/png")
    server.thaw()
    hasty.close()

    server.kill()
    for attempt in (
        store.put(b"two", key=key_of(b"two"), content_type="image/png"),
        read_back(store, b"one", key_of(b"one")),
    ):
        with pytest.raises(StorageFailed, match="EndpointConnectionError"):
            await attempt
    with pytest.raises(StorageFailed):
        await store.exists(key_of(b"one"), size=3)

    server.start()
    assert not await store.exists(key_of(b"one"), size=3)
    await store.put(b"two", key=key_of(b"two"), content_type="image/png")
    assert fetched((await store.url(key_of(b"two"))).url)[1] == b"two"
    store.close()
    server.kill()


# ------------------------------------------------------------------------- an endpoint that a client named


class Hostile:
    """A server on the loopback that answers every request as it was told, and counts what was read of it."""

    def __init__(self, head: str, *, body_bytes: int = 0, waits: bool = False) -> None:
        self._head = head.encode().replace(b"\n", b"\r\n") + (b"\r\n" if waits else b"\r\n\r\n")
        self._body_bytes = body_bytes
        self._waits = waits
        self.sent = 0
        self.connections = 0
        self.is_reached = asyncio.Event()
        self._serving: set[asyncio.Task[None]] = set()

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving.add(asyncio.create_task(self.serve(reader, writer)))
        self.is_reached.set()

    async def close(self) -> None:
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError), contextlib.closing(writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(self._head)
            for _ in range(self._body_bytes // 65536):
                writer.write(bytes(65536))
                await writer.drain()
                self.sent += 65536
            while self._waits:
                writer.write(b"X")  # a header that never ends, each letter within the time-out
                await writer.drain()
                await asyncio.sleep(0.05)


def bucket_of(endpoint_url: str) -> Bucket:
    return Bucket(
        endpoint_url=endpoint_url,
        name="pictures",
        region="us-east-1",
        access_key_id=SecretStr("a"),
        secret_access_key=SecretStr("b"),
    )


@contextlib.asynccontextmanager
async def bucket_at(hostile: Hostile) -> AsyncIterator[BucketStore]:
    listening = await asyncio.start_server(hostile.connected, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    store = BucketStore(bucket_of(f"http://127.0.0.1:{port}"), bounds=replace(QUICK, upload_s=20, lookup_s=20))
    yield store
    store.close()
    listening.close()
    await hostile.close()


@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request"])
@pytest.mark.parametrize("call", ["put", "get"])
async def test_an_answer_without_end_is_not_read_to_its_end(status: str, call: str) -> None:
    hostile = Hostile(f"HTTP/1.1 {status}\nContent-Length: 400000000", body_bytes=400_000_000)
    async with bucket_at(hostile) as store:
        calls = {
            "put": store.put(b"x", key=key_of(b"x"), content_type="image/png"),
            "get": read_back(store, b"x", key_of(b"x")),
        }
        with pytest.raises(StorageFailed):
            await calls.pop(call)
        for other in calls.values():
            other.close()
    assert hostile.sent < 50_000_000  # a megabyte, what the sockets hold, and once more
    assert hostile.connections == 1


@pytest.mark.parametrize("ends", ["by an answer", "by closing"])
async def test_over_tls_it_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: str) -> None:
    reached = asyncio.Event()

    async def handle(request: web.Request) -> web.Response:
        await request.read()
        reached.set()
        if ends == "by closing":
            await asyncio.sleep(60)
        return web.Response(body=b"whole" if request.method == "GET" else b"")

    serving, _ = own_certificate(tmp_path, "bucket.example")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "cert.pem"))
    others = threads_of_stores()
    async with server(handle, tls=serving) as port:
        store = BucketStore(bucket_of(f"https://127.0.0.1:{port}"))
        storing = asyncio.create_task(store.put(b"whole", key=key_of(b"whole"), content_type="image/png"))
        await reached.wait()
        threads = threads_of_stores() - others
        assert threads
        if ends == "by closing":
            store.close()
            with pytest.raises(StorageFailed):
                await storing
        else:
            await storing
            assert await read_back(store, b"whole", key_of(b"whole")) == b"whole"
            store.close()
        for thread in threads:
            await asyncio.to_thread(thread.join, WITHIN_S)
        assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize(("status", "found"), [("403 Forbidden", None), ("404 Not Found", False)])
async def test_what_is_not_shown_is_not_said_to_be_gone(status: str, found: bool | None) -> None:
    async with bucket_at(Hostile(f"HTTP/1.1 {status}\nContent-Length: 0")) as store:
        assert await store.exists(key_of(b"x"), size=1) is found


async def test_other_bytes_than_were_stored_are_no_result(s3: S3Process) -> None:
    store = s3.store()
    await store.put(b"OTHER", key=key_of(b"whole"), content_type="image/png")
    assert await store.exists(key_of(b"whole"), size=5)
    with pytest.raises(StorageFailed, match="other bytes"):
        await read_back(store, b"whole", key_of(b"whole"))
    store.close()


async def test_no_thread_waits_for_a_slow_endpoint_longer_than_its_store_lives() -> None:
    others = threads_of_stores()
    async with bucket_at(hostile := Hostile("HTTP/1.1 200 OK", waits=True)) as store:
        storing = asyncio.create_task(store.put(b"x", key=key_of(b"x"), content_type="image/png"))
        await hostile.is_reached.wait()
        threads = threads_of_stores() - others
        assert threads
        store.close()
        with pytest.raises(StorageFailed):
            await storing
        for thread in threads:
            await asyncio.to_thread(thread.join, WITHIN_S)
        assert not any(thread.is_alive() for thread in threads)


def test_torch_and_boto3_are_not_imported_before_they_are_needed() -> None:
    program = (
        "import sys, flux_engine.cache.manager, flux_engine.results.folder, flux_engine.results.pending\n"
        "import flux_engine.job.fingerprint, flux_engine.results.s3_config\n"
        "print([m for m in ('torch', 'diffusers', 'transformers', 'boto3', 'botocore') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
