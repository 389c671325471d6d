from __future__ import annotations

import asyncio
import hashlib
import socket
from typing import Any
from urllib.parse import parse_qs

import pytest

from flux_engine.errors import InvalidInput, StorageFailed
from flux_engine.results.bucket import BucketStore
from flux_engine.results.s3_config import require_public_host, store_from_s3_config
from flux_engine.results.store import object_key
from tests.servers import ACCESS_KEY, PATIENT, SECRET_KEY, S3Process, fetched

GOOD = {
    "endpointUrl": "https://s3.eu-west-1.amazonaws.com",
    "accessId": ACCESS_KEY,
    "accessSecret": SECRET_KEY,
    "bucketName": "pictures",
}


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("s3://x", "must be an object"),
        ([], "must be an object"),
        ({}, "endpointUrl, accessId, accessSecret"),
        (GOOD | {"accessSecret": None}, "needs accessSecret"),
        (GOOD | {"accessSecret": ["x"]}, "accessSecret must be a string"),
        (GOOD | {"accessId": "two\nlines"}, "accessId holds a blank, a line break"),
        (GOOD | {"accessId": "ключ"}, "accessId holds .* beyond ASCII"),
        (GOOD | {"accessSecret": f"Bearer {SECRET_KEY}"}, "accessSecret begins with `Bearer`"),
        (GOOD | {"accessSecret": f"'{SECRET_KEY}'"}, "accessSecret stands in quotation marks"),
        (GOOD | {"accessSecret": "{{ RUNPOD_SECRET_key }}"}, "accessSecret is a template"),
        (GOOD | {"accessId": None, "access_id": "x"}, "needs accessId as well; it has no `access_id`"),
        (GOOD | {"endpointUrl": "https://bücher.example"}, "the endpoint must be a URL in ASCII"),
        (GOOD | {"endpointUrl": "https://my_minio.example.com"}, "for an underscore use the IP address"),
        (GOOD | {"endpointUrl": "s3.example.com"}, "put https:// in front"),
        (GOOD | {"region": "us east"}, "the region must be"),
        (GOOD | {"bucketName": None}, "no bucket is named"),
        (GOOD | {"bucketName": "../etc"}, "3 to 63"),
        (GOOD | {"endpointUrl": "http://s3.eu-west-1.amazonaws.com"}, "https"),
        (GOOD | {"endpointUrl": "file:///etc/passwd"}, "http or https"),
    ],
)
def test_an_s3_config_of_no_use_is_refused(config: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match=says) as refused:
        store_from_s3_config(config, url_expiry_s=3600)
    assert refused.value.field == "s3Config"
    assert SECRET_KEY not in refused.value.message


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "0.0.0.0", "10.1.2.3", "100.64.0.1", "169.254.169.254", "224.0.0.1"),
        *("::1", "::ffff:10.0.0.1", "2002:a00:1::", "64:ff9b::a00:1", "fe80::5efe:a00:1", "2a00::200:5efe:a00:1"),
    ],
)
async def test_an_endpoint_that_is_not_public_is_never_contacted(host: str) -> None:
    with pytest.raises(InvalidInput, match="not public"):
        require_public_host(host, 443)
    literal = f"[{host}]" if ":" in host else host
    store = store_from_s3_config(GOOD | {"endpointUrl": f"https://{literal}"}, url_expiry_s=3600, bounds=PATIENT)
    with pytest.raises(InvalidInput, match="not public"):
        await store.put(b"x", key="flux/x.png", content_type="image/png")
    store.close()


AWS = "https://s3.eu-west-1.amazonaws.com"
SUPABASE = "https://abcdefghijkl.supabase.co/storage/v1/s3"


@pytest.mark.parametrize(
    ("written", "endpoint", "region"),
    [
        ({name: f" {value}\r\n" for name, value in GOOD.items()}, AWS, "eu-west-1"),
        (GOOD | {"region": " EU-WEST-2\n"}, AWS, "eu-west-2"),
        (GOOD | {"endpointUrl": f"\ufeff{SUPABASE}"}, SUPABASE, "us-east-1"),
        (GOOD | {"endpointUrl": f"{AWS}/pictures", "bucketName": None}, AWS, "eu-west-1"),
        (GOOD | {"unknown": 1}, AWS, "eu-west-1"),
    ],
)
async def test_what_surrounds_a_value_is_not_part_of_it(written: dict[str, Any], endpoint: str, region: str) -> None:
    store = store_from_s3_config(written, url_expiry_s=3600, check_host=lambda host, port: None)
    await store.warm()  # boto3 takes it
    address, _, query = (await store.url("flux/a.png")).url.partition("?")
    (credential,) = parse_qs(query)["X-Amz-Credential"]
    store.close()
    assert address == f"{endpoint}/pictures/flux/a.png"
    assert credential.startswith(f"{ACCESS_KEY}/")
    assert credential.endswith(f"/{region}/s3/aws4_request")


@pytest.mark.parametrize(("host", "is_public"), [("8.8.8.8", True), ("2606:4700::1111", True), ("10.1.2.3", False)])
def test_a_public_address_is_allowed(host: str, is_public: bool) -> None:
    try:
        require_public_host(host, 443)
    except InvalidInput:
        assert not is_public
    else:
        assert is_public


async def test_a_name_that_turns_private_after_the_look_at_it_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    received = asyncio.Queue[bytes]()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await received.put(await reader.read())
        writer.close()

    listening = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    answers = iter(["8.8.8.8"])

    def resolve(host: str, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers, "127.0.0.1"), port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    config = GOOD | {"endpointUrl": f"https://rebinding.example:{port}"}
    store = store_from_s3_config(config, url_expiry_s=3600, bounds=PATIENT)
    with pytest.raises(StorageFailed, match="AddressRefused"):
        await store.put(b"x", key=object_key("flux", hashlib.sha256(b"x").hexdigest(), "png"), content_type="image/png")
    assert await received.get() == b""  # connected to, and left before a word was said
    assert received.empty()
    store.close()
    listening.close()
    await listening.wait_closed()


async def test_the_results_of_a_job_go_to_its_own_bucket(s3: S3Process) -> None:
    checked: list[tuple[str, int]] = []
    store = store_from_s3_config(
        GOOD | {"endpointUrl": s3.url},
        url_expiry_s=3600,
        check_host=lambda host, port: checked.append((host, port)),
    )
    key = object_key(store.prefix, hashlib.sha256(b"mine").hexdigest(), "png")
    await store.put(b"mine", key=key, content_type="image/png")
    assert fetched((await store.url(key)).url)[1] == b"mine"
    assert checked == [("127.0.0.1", s3.port)]
    assert await store.identity() != await s3.store(prefix="other").identity()
    store.close()


async def test_a_client_who_names_the_operators_bucket_shares_nothing_with_it(s3: S3Process) -> None:
    def store(**changed: str) -> BucketStore:
        config = GOOD | {"endpointUrl": s3.url} | changed
        return store_from_s3_config(config, url_expiry_s=60, check_host=lambda host, port: None)

    stores = [s3.store(), store(), store(accessId="somebody-else"), store()]
    own, client, other, again = [await each.identity() for each in stores]
    assert len({own, client, other}) == 3
    assert client == again
    for each in stores:
        each.close()
