"""The queue's side of Celery on a real broker, where no worker is."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from redis.asyncio import Redis

from flux_engine.queues.celery import CeleryQueue
from flux_engine.queues.celery_settings import CelerySettings
from flux_engine.queues.job_queue import QueueAway, QueuedJob
from tests.media.marks.certificates import key_pem, pem
from tests.servers import RedisProcess

JOB = {"prompt": "a red sun"}


@pytest.fixture
async def queue(redis: RedisProcess, tmp_path: Path) -> AsyncIterator[CeleryQueue]:
    made = CeleryQueue(CelerySettings.from_environment({"REDIS_URL": redis.url, "CACHE_NAMESPACE": "test"}))
    yield made
    await made.close()


async def put_long_ago(server: Redis, ticket: str) -> None:
    """As if the job had been submitted, and its message missed, in 1970."""
    key = f"flux:test:celery:job:{ticket}"
    await server.hset(key, mapping={"at": 1.0})
    if await server.hexists(key, "missing_at"):
        await server.hset(key, mapping={"missing_at": 1.0})


async def test_a_job_whose_message_is_gone_is_unknown_and_its_message_too_late(
    queue: CeleryQueue, redis: RedisProcess
) -> None:
    server = Redis.from_url(redis.url)
    ticket = await queue.submit(QueuedJob(id="gone", input=JOB))
    assert await server.delete("flux:test:broker:flux") == 1  # as a worker takes it that is killed before it begins
    states = []
    for _ in range(3):
        states.append((await queue.status(ticket)).state)
        await put_long_ago(server, ticket)
    assert states == ["queued", "queued", "unknown"]
    await server.aclose()


@pytest.mark.parametrize("priority", ["normal", "low"])
async def test_a_job_whose_message_waits_stays_queued_however_long(
    queue: CeleryQueue, redis: RedisProcess, priority: str
) -> None:
    server = Redis.from_url(redis.url)
    ticket = await queue.submit(QueuedJob(id="waits", input=JOB, priority=priority))  # type: ignore[arg-type]
    for _ in range(3):
        await put_long_ago(server, ticket)
        assert (await queue.status(ticket)).state == "queued"
    await server.aclose()


@pytest.mark.parametrize(
    ("options", "is_let_in"), [("", False), ("?ssl_ca_certs={certificate}", True), ("?ssl_cert_reqs=none", True)]
)
async def test_a_broker_behind_tls_shows_a_certificate_that_is_trusted(
    options: str, is_let_in: bool, redis: RedisProcess, tmp_path: Path
) -> None:
    certificate = _self_signed(tmp_path / "certificate.pem")
    async with _behind_tls(redis.port, certificate) as port:
        broker = f"rediss://127.0.0.1:{port}/0" + options.format(certificate=quote(str(certificate), safe=""))
        environment = {"REDIS_URL": redis.url, "CELERY_BROKER_URL": broker, "CACHE_NAMESPACE": "test"}
        queue = CeleryQueue(CelerySettings.from_environment(environment))
        with nullcontext() if is_let_in else pytest.raises(QueueAway):
            await queue.submit(QueuedJob(id="secret", input=JOB))
        await queue.close()


def _self_signed(path: Path) -> Path:
    """A certificate for 127.0.0.1 with its key, as a file."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path.write_text(key_pem(key) + pem(certificate))
    return path


@asynccontextmanager
async def _behind_tls(port: int, certificate: Path) -> AsyncIterator[int]:
    """A port where TLS is spoken for the server at `port`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)

    passing: list[asyncio.Task[None]] = []
    open_ends: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        open_ends.extend((writer, inner_writer))
        for ends in ((reader, inner_writer), (inner_reader, writer)):
            passing.append(asyncio.create_task(_pass(*ends)))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]
        for end in open_ends:
            end.transport.abort()  # what holds a connection open says no farewell
        await asyncio.gather(*passing, *(end.wait_closed() for end in open_ends), return_exceptions=True)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def test_a_broker_that_is_away_leaves_no_record(redis: RedisProcess) -> None:
    """The task is submitted again and again until the broker is back, each time under another ticket."""
    broker = {"CELERY_BROKER_URL": "redis://127.0.0.1:9/0"}
    settings = CelerySettings.from_environment({"REDIS_URL": redis.url, "CACHE_NAMESPACE": "test", **broker})
    queue, server = CeleryQueue(settings), Redis.from_url(redis.url)
    with pytest.raises(QueueAway, match="does not answer"):
        await queue.submit(QueuedJob(id="early", input=JOB))
    assert await server.keys("flux:test:celery:job:*") == []
    await queue.close()
    await server.aclose()
