"""A bucket tried at start: what a good one costs, and the line for each thing that can be wrong with it."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from aiohttp import web
from pydantic import SecretStr

from flux_engine.results.bucket_address import Bucket
from flux_engine.results.trial import CONTENT, BucketRefuses, BucketSilent, try_bucket
from tests.servers import ACCESS_KEY, PATIENT, SECRET_KEY, S3Process, free_port
from tests.web_server import server_thread


def bucket_at(url: str, name: str = "pictures") -> Bucket:
    return Bucket(
        endpoint_url=url,
        name=name,
        region="us-east-1",
        access_key_id=SecretStr(ACCESS_KEY),
        secret_access_key=SecretStr(SECRET_KEY),
    )


def tried(bucket: Bucket, *, tries: int = 1) -> None:
    try_bucket(bucket, bounds=PATIENT, pauses_s=(0.01,) * (tries - 1))


def test_a_good_bucket_is_left_as_it_was(s3: S3Process) -> None:
    s3.create_bucket("untouched")
    tried(bucket_at(s3.url, "untouched"))
    with pytest.raises(BucketRefuses, match="does not exist"):
        tried(bucket_at(s3.url, "missing"))


def refusing(status: int, code: str, *, at: str = "PUT", more: str = "") -> Callable[[web.Request], web.Response]:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>at {SECRET_KEY}</Message>{more}</Error>"

    def answer(request: web.Request) -> web.Response:
        if request.method == at:
            return web.Response(status=status, text=body if request.method != "HEAD" else "", content_type="text/xml")
        return web.Response(body=CONTENT if request.method == "GET" else b"")

    return answer


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (refusing(403, "InvalidAccessKeyId"), "BUCKET_ACCESS_KEY_ID is not known"),
        (refusing(401, "Unauthorized"), "BUCKET_ACCESS_KEY_ID is not known"),
        (refusing(400, "ExpiredToken"), "BUCKET_ACCESS_KEY_ID is not known"),
        (refusing(403, "SignatureDoesNotMatch"), "BUCKET_SECRET_ACCESS_KEY does not belong"),
        (refusing(400, "AuthorizationHeaderMalformed", more="<Region>eu-west-1</Region>"), "BUCKET_REGION.*eu-west-1"),
        (refusing(400, "IllegalLocationConstraintException"), "BUCKET_REGION is not"),
        (refusing(404, "NoSuchBucket"), "the bucket does not exist"),
        (refusing(403, "RequestTimeTooSkewed"), "clock"),
        (refusing(403, "AccessDenied"), "s3:PutObject"),
        (refusing(403, "AccessDenied", at="GET"), "s3:GetObject"),
        (refusing(403, "QuotaExceeded"), "full"),
        (refusing(400, "<b>?"), r"s3:PutObject; grant it \(status 400\)"),
    ],
)
def test_each_refusal_names_the_setting_and_the_mend(answer: Callable[[web.Request], web.Response], said: str) -> None:
    with server_thread(answer) as port, pytest.raises(BucketRefuses, match=said) as refused:
        tried(bucket_at(f"http://127.0.0.1:{port}"))
    assert not re.search(rf"127\.0|{SECRET_KEY}|{ACCESS_KEY}", str(refused.value))


def test_a_key_that_may_not_delete_is_fit(caplog: pytest.LogCaptureFixture) -> None:
    with server_thread(refusing(403, "AccessDenied", at="DELETE")) as port:
        tried(bucket_at(f"http://127.0.0.1:{port}"))
    assert "may not delete" in caplog.text


def test_a_key_that_may_not_read_is_fit_where_links_are_public(caplog: pytest.LogCaptureFixture) -> None:
    asked = []

    def answer(request: web.Request) -> web.Response:
        asked.append(request.method)
        return refusing(403, "AccessDenied", at="GET")(request)

    with server_thread(answer) as port:
        tried(replace(bucket_at(f"http://127.0.0.1:{port}"), public_url="https://cdn.example"))
    assert asked == ["PUT", "GET", "DELETE"]  # nothing stays behind, and nothing is tried again
    assert "bucket" not in caplog.text  # and an operator is told of no fault


@pytest.mark.parametrize(
    "answer", [refusing(503, "SlowDown"), refusing(500, "InternalError"), refusing(429, "TooManyRequests")]
)
def test_a_store_that_is_busy_refuses_nothing(answer: Callable[[web.Request], web.Response]) -> None:
    with server_thread(answer) as port, pytest.raises(BucketSilent, match="status page"):
        tried(bucket_at(f"http://127.0.0.1:{port}"))


def test_a_store_that_is_away_refuses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with pytest.raises(BucketSilent, match="EndpointConnectionError") as silent:
        tried(bucket_at(f"http://127.0.0.1:{free_port()}"))
    assert "127.0.0.1" not in str(silent.value)


@pytest.mark.parametrize("first", [refusing(503, "SlowDown"), refusing(403, "InvalidAccessKeyId")])
def test_one_failure_alone_is_none(first: Callable[[web.Request], web.Response]) -> None:
    """Not even a refusal: a store's servers learn of new keys one after the other."""
    puts = []

    def answer(request: web.Request) -> web.Response:
        if request.method == "PUT":
            puts.append(request.path)
        return first(request) if request.method == "PUT" and len(puts) == 1 else refusing(0, "", at="-")(request)

    with server_thread(answer) as port:
        tried(bucket_at(f"http://127.0.0.1:{port}"), tries=2)
    assert len(puts) == 2
