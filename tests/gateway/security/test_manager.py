"""SecurityManager: what opens, what ends, what an attacker may try, and when the gateway does not start."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr

from flux_engine.cache.redis_link import RedisLink, RemoteServer
from flux_engine.errors import InputFetchFailed
from flux_engine.gateway.problems import Forbidden, TooMany, Unauthorized, Unavailable
from flux_engine.gateway.seams import Principal, Scope
from flux_engine.gateway.security import jwks, key_store
from flux_engine.gateway.security.key_store import KeyStore
from flux_engine.gateway.security.keys import key_id_of, mint
from flux_engine.gateway.security.logins import WINDOW_S, FailedLogins
from flux_engine.gateway.security.manager import SecurityManager
from flux_engine.gateway.security.terms import NotConfigured, SecurityTerms
from tests.gateway.security.test_refused import AUDIENCE, ISSUER, OTHER_RSA_KEY, RSA_KEY, Issuer, bearer, jwk, signed
from tests.servers import RedisProcess
from tests.waiting import until

ALL: frozenset[Scope] = frozenset(("generate", "read", "admin"))
OUT_THERE = "192.0.2.1"
Credential = Callable[[], str]


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def new_key(
    link: RedisLink, root: str, user: str = "ada", scopes: frozenset[Scope] = ALL, expires_at: float | None = None
) -> str:
    key, record = mint(user, scopes, expires_at=expires_at)
    assert await KeyStore(link, root=root).add(record)
    return key.get_secret_value()


async def opened(
    link: RedisLink, root: str, terms: SecurityTerms | None = None, *, clock: Clock | None = None
) -> SecurityManager:
    return await SecurityManager.open(
        terms or SecurityTerms(), link, root=root, fetcher=Issuer(), clock=clock or time.monotonic
    )


def query_of(link: str) -> tuple[str, dict[str, str]]:
    parts = urlsplit(link)
    return parts.path, dict(parse_qsl(parts.query, keep_blank_values=True))


async def test_a_key_says_who_and_what(link: RedisLink, root: str) -> None:
    key = await new_key(link, root, scopes=frozenset(("read",)))
    security = await opened(link, root)
    principal = await security.authenticate(bearer(key), address=OUT_THERE)
    assert principal == Principal("ada", frozenset(("read",)), key_id_of(key))
    security.require(principal, "read")
    with pytest.raises(Forbidden, match="`generate`") as refusal:
        security.require(principal, "generate")
    assert 'scope="generate"' in refusal.value.all_headers()["WWW-Authenticate"]


async def test_admin_may_everything(link: RedisLink, root: str) -> None:
    key = await new_key(link, root, scopes=frozenset(("admin",)))
    security = await opened(link, root)
    principal = await security.authenticate(bearer(key), address=OUT_THERE)
    assert principal.scopes == {"admin"}
    for scope in ALL:
        security.require(principal, scope)


async def test_only_a_hash_is_stored_and_the_key_is_printed_nowhere(
    link: RedisLink, root: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    key, record = mint("ada", ALL)
    secret = key.get_secret_value().split("_")[2]
    await KeyStore(link, root=root).add(record)
    await (await opened(link, root)).authenticate(bearer(key.get_secret_value()), address=OUT_THERE)
    kept = str(await link.eval("return redis.call('HVALS', KEYS[1])", [f"{root}:keys"], []))
    assert record.id in kept
    assert not any(secret in text for text in (kept, repr(key), repr(record), caplog.text))


async def test_an_expired_key_opens_nothing(link: RedisLink, root: str) -> None:
    await new_key(link, root)
    expired = await new_key(link, root, expires_at=time.time() - 1)
    with pytest.raises(Unauthorized):
        await (await opened(link, root)).authenticate(bearer(expired), address=OUT_THERE)


async def test_a_revoked_key_ends_within_a_second_with_its_tokens_and_links(link: RedisLink, root: str) -> None:
    await new_key(link, root, "bob")
    key, clock = await new_key(link, root), Clock()
    security = await opened(link, root, clock=clock)
    token = (await security.exchange(bearer(key), address=OUT_THERE)).token
    principal = await security.authenticate(bearer(token), address=OUT_THERE)
    path, query = query_of(security.sign_path("/task/a/result", principal, seconds=900))
    assert (await security.verify_path(path, query)).user == "ada"
    assert await KeyStore(link, root=root).revoke(principal.key_id or "")
    clock.now += key_store.KEPT_S
    for credential in (key, token):
        with pytest.raises(Unauthorized):
            await security.authenticate(bearer(credential), address=OUT_THERE)
    with pytest.raises(Unauthorized):
        await security.verify_path(path, query)


async def test_a_token_has_no_more_scopes_than_its_key_and_is_for_15_minutes(link: RedisLink, root: str) -> None:
    key = await new_key(link, root, scopes=frozenset(("read",)))
    security = await opened(link, root)
    issued = await security.exchange(bearer(key), address=OUT_THERE)
    said = jwt.decode(issued.token, options={"verify_signature": False})
    assert (said["exp"] - said["iat"], issued.expires_in_s) == (900, 900)
    assert issued.scopes == {"read"}
    assert (await security.authenticate(bearer(issued.token), address=OUT_THERE)).scopes == {"read"}


async def test_a_token_is_not_traded_for_another(link: RedisLink, root: str) -> None:
    key = await new_key(link, root)
    security = await opened(link, root)
    token = (await security.exchange(bearer(key), address=OUT_THERE)).token
    with pytest.raises(Forbidden, match="not for another token"):
        await security.exchange(bearer(token), address=OUT_THERE)


async def test_two_replicas_take_one_anothers_tokens_and_links(link: RedisLink, root: str) -> None:
    key = await new_key(link, root)
    one, other = await opened(link, root), await opened(link, root)
    token = (await one.exchange(bearer(key), address=OUT_THERE)).token
    principal = await other.authenticate(bearer(token), address=OUT_THERE)
    path, query = query_of(one.sign_path("/task/a/result", principal, seconds=900))
    assert (await other.verify_path(path, query)).user == "ada"


async def test_the_tokens_of_another_gateway_open_nothing(link: RedisLink, root: str) -> None:
    key, elsewhere = await new_key(link, root), f"{root}-b"
    await new_key(link, elsewhere)
    token = (await (await opened(link, root)).exchange(bearer(key), address=OUT_THERE)).token
    with pytest.raises(Unauthorized):
        await (await opened(link, elsewhere)).authenticate(bearer(token), address=OUT_THERE)


async def test_a_users_foreign_tokens_are_ended_by_an_epoch(link: RedisLink, root: str) -> None:
    clock = Clock()
    terms = SecurityTerms(issuer=ISSUER, audience=AUDIENCE, jwt_secret=SecretStr("0123456789abcdef" * 3))
    security = await opened(link, root, terms, clock=clock)
    token = signed(key="0123456789abcdef" * 3)
    assert (await security.authenticate(bearer(token), address=OUT_THERE)).key_id is None
    await KeyStore(link, root=root).end_tokens("ada")
    clock.now += key_store.KEPT_S
    with pytest.raises(Unauthorized):
        await security.authenticate(bearer(token), address=OUT_THERE)


async def test_es256_with_a_private_key_file_signs_and_checks(link: RedisLink, root: str, tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    private = ec.generate_private_key(ec.SECP256R1())
    text = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(private.private_bytes(*text))
    key = await new_key(link, root)
    security = await opened(link, root, SecurityTerms(algorithm="ES256", jwt_key_file=file))
    token = (await security.exchange(bearer(key), address=OUT_THERE)).token
    assert jwt.get_unverified_header(token) == {"alg": "ES256", "typ": "at+jwt"}
    assert (await security.authenticate(bearer(token), address=OUT_THERE)).user == "ada"


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        (SecurityTerms(), "no credentials are configured"),
        (SecurityTerms(secret=SecretStr("g" * 40)), "no credentials are configured"),
        (SecurityTerms(jwt_secret=SecretStr("short")), "32 bytes"),
        (SecurityTerms(jwt_secret=SecretStr("g" * 32), secret=SecretStr("short")), "GATEWAY_SECRET"),
        (SecurityTerms(algorithm="RS256", jwt_secret=SecretStr("g" * 32)), "JWT_KEY_FILE"),
        (SecurityTerms(algorithm="RS256", jwt_key_file=Path("/nowhere/key.pem")), "No such file"),
        (SecurityTerms(algorithm="RS256", jwt_key_file=Path(__file__)), "holds no PEM key"),
        (SecurityTerms(algorithm="HS256", jwks_url="https://issuer.example/jwks"), "JWKS"),
        (SecurityTerms(jwt_key_file=Path(__file__)), "JWT_ALGORITHM"),
        (SecurityTerms(jwt_secret=SecretStr("g" * 32), jwt_key_file=Path(__file__)), "JWT_ALGORITHM"),
        (
            SecurityTerms(algorithm="RS256", jwt_secret=SecretStr("g" * 32), jwks_url="https://issuer.example/jwks"),
            "JWT_SECRET is for HS256",
        ),
        (
            SecurityTerms(algorithm="RS256", jwt_key_file=Path(__file__), jwks_url="https://issuer.example/jwks"),
            "cannot both be set",
        ),
    ],
)
async def test_it_refuses_to_start(terms: SecurityTerms, said: str, link: RedisLink, root: str) -> None:
    with pytest.raises(NotConfigured, match=said):
        await opened(link, root, terms)


async def test_it_refuses_to_start_with_nothing_but_revoked_keys(link: RedisLink, root: str) -> None:
    key = await new_key(link, root)
    await KeyStore(link, root=root).revoke(key_id_of(key) or "")
    with pytest.raises(NotConfigured, match="keys create"):
        await opened(link, root)


async def test_it_refuses_to_start_while_redis_is_away(tmp_path: Path, root: str) -> None:
    away = RedisLink(RemoteServer(f"unix://{tmp_path}/nobody.sock"), retry_after_s=0)
    with pytest.raises(NotConfigured, match="REDIS_URL"):
        await SecurityManager.open(SecurityTerms(), away, root=root, fetcher=Issuer(), wait_s=0)
    await away.close()


async def test_known_keys_go_on_while_redis_is_away_and_unknown_ones_wait(redis: RedisProcess, root: str) -> None:
    clock = Clock()
    link = RedisLink(RemoteServer(redis.url), call_timeout_s=60, retry_after_s=0)
    key, unseen = await new_key(link, root), await new_key(link, root)
    security = await opened(link, root, clock=clock)
    await security.authenticate(bearer(key), address=OUT_THERE)
    redis.kill()
    clock.now += key_store.KEPT_S
    assert (await security.authenticate(bearer(key), address=OUT_THERE)).user == "ada"
    with pytest.raises(Unavailable) as refusal:
        await security.authenticate(bearer(unseen), address=OUT_THERE)
    assert refusal.value.all_headers()["Retry-After"] == "5"
    clock.now += key_store.AWAY_S
    with pytest.raises(Unavailable):
        await security.authenticate(bearer(key), address=OUT_THERE)
    redis.start()
    assert (await security.authenticate(bearer(unseen), address=OUT_THERE)).user == "ada"
    await link.close()


async def test_failed_logins_are_limited_by_address(link: RedisLink, root: str) -> None:
    key, clock = await new_key(link, root), Clock()
    logins = FailedLogins(most=3, clock=clock)
    security = await SecurityManager.open(SecurityTerms(), link, root=root, fetcher=Issuer(), logins=logins)
    await security.authenticate(bearer(key), address=OUT_THERE)
    for _ in range(3):
        with pytest.raises(Unauthorized):
            await security.authenticate(bearer("flux_guess"), address=OUT_THERE)
    with pytest.raises(TooMany) as refusal:
        await security.authenticate(bearer("flux_guess"), address=OUT_THERE)
    assert refusal.value.all_headers()["Retry-After"] == "60"
    assert (await security.authenticate(bearer(key), address=OUT_THERE)).user == "ada"  # it was good before
    with pytest.raises(Unauthorized):  # another address has its own count
        await security.authenticate(bearer("flux_guess"), address="192.0.2.2")
    clock.now += WINDOW_S
    with pytest.raises(Unauthorized):
        await security.authenticate(bearer("flux_guess"), address=OUT_THERE)


@pytest.mark.parametrize(
    ("one", "other", "are_one"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("no address", "unix:", True),
    ],
)
def test_what_counts_as_one_address(one: str, other: str, are_one: bool) -> None:
    logins = FailedLogins(most=1)
    logins.failed(one)
    assert (logins.wait_s(other, "x") > 0) == are_one


async def test_a_flood_of_addresses_is_forgotten_oldest_first() -> None:
    logins = FailedLogins(most=1)
    for number in range(25_000):
        logins.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert logins.wait_s("10.0.0.0", "x") == 0
    assert logins.wait_s("10.0.97.167", "x") > 0


LINKS: dict[str, Callable[[str, dict[str, str]], tuple[str, dict[str, str]]]] = {
    "another task": lambda path, query: ("/task/b/result", query),
    "the task itself": lambda path, query: ("/task/a", query),
    "a path above": lambda path, query: ("/task/a/../b/result", query),
    "another picture": lambda path, query: (path, query | {"index": "2"}),
    "one more parameter": lambda path, query: (path, query | {"wait": "60"}),
    "one parameter less": lambda path, query: (path, {n: v for n, v in query.items() if n != "index"}),
    "another user": lambda path, query: (path, query | {"user": "eve"}),
    "without its key": lambda path, query: (path, query | {"key": ""}),
    "longer": lambda path, query: (path, query | {"expires": str(int(query["expires"]) + 60)}),
    "no signature": lambda path, query: (path, {n: v for n, v in query.items() if n != "sig"}),
    "an empty signature": lambda path, query: (path, query | {"sig": ""}),
    "a signature of other letters": lambda path, query: (path, query | {"sig": "é" * 43}),
    "a lone surrogate": lambda path, query: (path, query | {"sig": "\udc80"}),
}


@pytest.mark.parametrize("name", LINKS)
async def test_a_changed_link_opens_nothing(name: str, link: RedisLink, root: str) -> None:
    key = await new_key(link, root)
    security = await opened(link, root)
    principal = await security.authenticate(bearer(key), address=OUT_THERE)
    path, query = query_of(security.sign_path("/task/a/result?index=1", principal, seconds=900))
    found = await security.verify_path(path, query)
    assert (found.user, sorted(found.scopes)) == ("ada", ["read"])
    assert key.split("_")[2] not in str(query)
    with pytest.raises(Unauthorized):
        await security.verify_path(*LINKS[name](path, query))


async def test_a_link_is_for_15_minutes_at_most_and_for_our_own_paths(link: RedisLink, root: str) -> None:
    await new_key(link, root)
    security = await opened(link, root)
    before = int(time.time())
    _, query = query_of(security.sign_path("/task/a/result", Principal("ada", ALL), seconds=10**6))
    assert before + 900 <= int(query["expires"]) <= time.time() + 900
    for path in ("https://evil.example/task/a", "//evil.example/task/a", "task/a", "/a?expires=9", "/a#b"):
        with pytest.raises(ValueError, match="sign"):
            security.sign_path(path, Principal("ada", ALL), seconds=900)


class CountingIssuer:
    """Serves what it is told to, and counts."""

    def __init__(self, document: object) -> None:
        self.document = document
        self.num_asked = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def fetch(self, url: str, *, max_bytes: int, total_timeout_s: float) -> bytes:
        self.num_asked += 1
        await self.may_answer.wait()
        if self.document is None:
            raise InputFetchFailed("the host answered with status 500", retryable=True)
        return self.document if isinstance(self.document, bytes) else json.dumps(self.document).encode()


def key_set(issuer: CountingIssuer, clock: Clock) -> jwks.KeySet:
    return jwks.KeySet("https://issuer.example/jwks", algorithm="RS256", fetcher=issuer, clock=clock)


async def test_an_unknown_kid_asks_again_at_most_once_a_minute() -> None:
    issuer, clock = CountingIssuer({"keys": [jwk(RSA_KEY)]}), Clock()
    keys = key_set(issuer, clock)
    assert await keys.verifying_key("k1") is not None
    found = await asyncio.gather(*(keys.verifying_key(f"invented-{n}") for n in range(100)))
    assert (found, issuer.num_asked) == ([None] * 100, 1)
    clock.now += jwks.ASK_AGAIN_S
    issuer.document = {"keys": [jwk(RSA_KEY), jwk(OTHER_RSA_KEY, "k2")]}
    found = await asyncio.gather(*(keys.verifying_key("k2") for _ in range(100)))
    assert all(found)
    assert issuer.num_asked == 2


async def test_a_key_that_comes_with_the_next_set_is_waited_for() -> None:
    """The issuer has begun to sign with a new key, and an old token has just made the gateway fetch the set anew."""
    issuer, clock = CountingIssuer({"keys": [jwk(RSA_KEY)]}), Clock()
    keys = key_set(issuer, clock)
    assert await keys.verifying_key("k1") is not None
    clock.now += jwks.KEPT_S
    issuer.document = {"keys": [jwk(RSA_KEY), jwk(OTHER_RSA_KEY, "k2")]}
    issuer.may_answer.clear()
    assert await keys.verifying_key("k1") is not None
    await until(lambda: issuer.num_asked == 2)
    asking = asyncio.create_task(keys.verifying_key("k2"))
    await asyncio.sleep(0)  # it asks
    issuer.may_answer.set()
    assert await asking is not None
    assert issuer.num_asked == 2
    await keys.close()


@pytest.mark.parametrize("answer", [None, b"<html>", b"[]", {"keys": []}, {"keys": {}}, {"keys": [jwk(RSA_KEY)] * 51}])
async def test_the_old_set_serves_while_the_issuer_has_none(answer: object) -> None:
    issuer, clock = CountingIssuer({"keys": [jwk(RSA_KEY)]}), Clock()
    keys = key_set(issuer, clock)
    await keys.verifying_key("k1")
    issuer.document = answer
    clock.now += jwks.KEPT_S
    assert await keys.verifying_key("k1") is not None
    await keys.close()
    clock.now += jwks.ASK_AGAIN_S
    assert await keys.verifying_key("k9") is None
    assert await keys.verifying_key("k1") is not None
    await keys.close()


async def test_an_issuer_that_never_answered_makes_tokens_wait(link: RedisLink, root: str) -> None:
    terms = SecurityTerms(algorithm="RS256", issuer=ISSUER, audience=AUDIENCE, jwks_url="https://issuer.example/jwks")
    security = await SecurityManager.open(terms, link, root=root, fetcher=CountingIssuer(None))
    token = signed(key=RSA_KEY, algorithm="RS256", kid="k1")
    with pytest.raises(Unavailable):
        await security.authenticate(bearer(token), address=OUT_THERE)
    await security.close()


async def test_names_in_a_refusal_are_those_of_no_client(
    link: RedisLink, root: str, caplog: pytest.LogCaptureFixture
) -> None:
    await new_key(link, root)
    security = await opened(link, root)
    hostile: Mapping[str, str] = {"authorization": "Bearer flux_x\r\nlogin accepted user=root"}
    with pytest.raises(Unauthorized) as refusal:
        await security.authenticate(hostile, address=OUT_THERE)
    assert "root" not in caplog.text + refusal.value.detail
