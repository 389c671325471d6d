"""Headers that every answer has, and who may call from elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.responses import Response
from httpx2 import ASGITransport, AsyncClient

from flux_engine.gateway.security.headers import CONTENT_SECURITY_POLICY, CrossOrigin, SecurityHeaders
from tests.gateway.world import world
from tests.servers import RedisProcess


def client_of(*, origins: tuple[str, ...] = (), is_https: bool = False) -> AsyncClient:
    app = FastAPI()

    @app.get("/plain")
    async def plain() -> dict[str, int]:
        return {"a": 1}

    @app.get("/kept")
    async def kept() -> Response:
        return Response(b"x", headers={"Cache-Control": "private, immutable", "Content-Security-Policy": "none at all"})

    inner = CrossOrigin(app, origins=origins) if origins else app
    wrapped = SecurityHeaders(inner, is_https=is_https)
    return AsyncClient(transport=ASGITransport(app=wrapped), base_url="http://gateway")


@pytest.mark.parametrize("path", ["/plain", "/kept", "/nowhere"])
async def test_every_answer_has_them(path: str) -> None:
    async with client_of() as client:
        headers = (await client.get(path)).headers
    assert headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == ("private, immutable" if path == "/kept" else "no-store")
    assert "strict-transport-security" not in headers


def test_the_policy_is_the_contracts() -> None:
    assert CONTENT_SECURITY_POLICY == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:;"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


async def test_https_is_insisted_on_where_it_is_there() -> None:
    async with client_of(is_https=True) as client:
        assert (await client.get("/plain")).headers["strict-transport-security"] == "max-age=31536000"


PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}


@pytest.mark.parametrize(
    ("origins", "origin", "may"),
    [
        ((), "https://app.example", False),
        (("https://app.example",), "https://app.example", True),
        (("https://app.example",), "https://app.example.evil", False),
        (("https://app.example",), "http://app.example", False),
        (("https://app.example",), "null", False),
        (("*",), "https://anywhere.example", True),
    ],
)
async def test_other_origins(origins: tuple[str, ...], origin: str, may: bool) -> None:
    async with client_of(origins=origins) as client:
        asked = await client.options("/plain", headers={"Origin": origin, **PREFLIGHT})
        called = await client.get("/plain", headers={"Origin": origin})
    for answer in (asked, called):
        assert ("access-control-allow-origin" in answer.headers) == may
        assert "access-control-allow-credentials" not in answer.headers
    if may:
        assert "retry-after" in called.headers["access-control-expose-headers"].lower()


async def test_openais_client_may_call_from_a_page(shared_redis: RedisProcess, tmp_path: Path) -> None:
    """As its TypeScript sources name its headers; a preflight is an answer as every other."""
    names = "authorization,content-type,idempotency-key,user-agent,openai-project,x-stainless-arch,x-stainless-lang"
    names += ",x-stainless-os,x-stainless-package-version,x-stainless-retry-count,x-stainless-runtime"
    names += ",x-stainless-runtime-version,x-stainless-timeout"
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": names}
    async with world(shared_redis.url, tmp_path, CORS_ORIGINS="https://app.example") as gw:
        path, origin = "/v1/images/generations", {"Origin": "https://app.example"}
        preflight = await gw.client.options(path, headers=origin | asked)
        refused = await gw.post(path, json={"prompt": "x", "n": 99}, headers=origin)
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, "https://app.example")
    for answer in (preflight, refused):
        assert answer.headers["x-request-id"]
        assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    exposed = refused.headers["access-control-expose-headers"].lower().split(", ")
    assert (refused.headers["x-should-retry"], "x-should-retry" in exposed) == ("false", True)
