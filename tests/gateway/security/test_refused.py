"""Tokens and keys that open nothing, in one table, and those beside them that do.

Every row is sent to a gateway that would take a good credential, so that a check that refuses everything fails here.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from pydantic import SecretStr

from flux_engine.cache.redis_link import RedisLink
from flux_engine.gateway.problems import Unauthorized
from flux_engine.gateway.security.key_store import KeyStore
from flux_engine.gateway.security.keys import mint
from flux_engine.gateway.security.logins import FailedLogins
from flux_engine.gateway.security.manager import SecurityManager
from flux_engine.gateway.security.terms import SecurityTerms
from flux_engine.gateway.security.tokens import Algorithm

ISSUER, AUDIENCE = "https://issuer.example/", "flux"
SECRET = "0123456789abcdef0123456789abcdef-shared"
RSA_KEY = rsa.generate_private_key(65537, 2048)
OTHER_RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
Json = dict[str, Any]
Way = Literal["secret", "file", "jwks"]


def b64(data: bytes | str) -> str:
    return base64.urlsafe_b64encode(data.encode() if isinstance(data, str) else data).rstrip(b"=").decode()


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def jwk(key: rsa.RSAPrivateKey, kid: str = "k1", **more: object) -> Json:
    numbers = key.public_key().public_numbers()
    n, e = (b64(number.to_bytes((number.bit_length() + 7) // 8)) for number in (numbers.n, numbers.e))
    return {"kty": "RSA", "kid": kid, "use": "sig", "alg": "RS256", "n": n, "e": e} | more


def claims(**changes: object) -> Json:
    now = int(time.time())
    good: Json = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "iat": now, "exp": now + 300, "scope": "read"}
    return {name: value for name, value in (good | changes).items() if value is not None}


def signed(body: Json | None = None, *, key: Any = SECRET, algorithm: str = "HS256", **headers: object) -> str:
    return jwt.encode(body or claims(), key, algorithm=algorithm, headers={"typ": "JWT"} | headers)


def by_hand(header: object, body: object, secret: bytes) -> str:
    """A token with a header that no library would write, with a signature by HMAC all the same."""
    head = f"{b64(json.dumps(header))}.{b64(json.dumps(body))}"
    return f"{head}.{b64(hmac.digest(secret, head.encode(), 'sha256'))}"


def raw(header: str, body: str | None = None) -> str:
    head = f"{b64(header)}.{b64(body or json.dumps(claims()))}"
    return f"{head}.{b64(hmac.digest(SECRET.encode(), head.encode(), 'sha256'))}"


def embedded_key_token() -> str:
    """Signed by a stranger, whose public key the header brings along."""
    return signed(key=OTHER_RSA_KEY, algorithm="RS256", kid="k1", jwk=jwk(OTHER_RSA_KEY))


HMAC_HEADER = {"alg": "HS256", "typ": "JWT"}

TOKENS: dict[str, tuple[Way, Callable[[], str]]] = {
    "alg none": ("secret", lambda: f"{b64(json.dumps({'alg': 'none', 'typ': 'JWT'}))}.{b64(json.dumps(claims()))}.e30"),
    "alg none without a signature": (
        "secret",
        lambda: f"{b64(json.dumps({'alg': 'none', 'typ': 'JWT'}))}.{b64(json.dumps(claims()))}.",
    ),
    "alg None in capitals": ("secret", lambda: by_hand({"alg": "nOnE", "typ": "JWT"}, claims(), SECRET.encode())),
    "alg missing": ("secret", lambda: by_hand({"typ": "JWT"}, claims(), SECRET.encode())),
    "alg a list": ("secret", lambda: by_hand({"alg": ["HS256"], "typ": "JWT"}, claims(), SECRET.encode())),
    "another HMAC": ("secret", lambda: signed(algorithm="HS512", key=SECRET * 2)),
    "another secret": ("secret", lambda: signed(key="x" * 40)),
    "HS256 signed with the RSA public key": ("file", lambda: by_hand(HMAC_HEADER, claims(), pem(RSA_KEY))),
    "HS256 signed with the public key of the set": (
        "jwks",
        lambda: by_hand(HMAC_HEADER | {"kid": "k1"}, claims(), pem(RSA_KEY)),
    ),
    "a JWK's JSON as HMAC secret": (
        "jwks",
        lambda: by_hand(HMAC_HEADER | {"kid": "k1"}, claims(), json.dumps(jwk(RSA_KEY)).encode()),
    ),
    "the algorithm of a JWK beside the allow-list": ("jwks", lambda: signed(key=EC_KEY, algorithm="ES256", kid="e1")),
    "RS512 with the right key": ("jwks", lambda: signed(key=RSA_KEY, algorithm="RS512", kid="k1")),
    "a private JWK of the set": ("jwks", lambda: signed(key=OTHER_RSA_KEY, algorithm="RS256", kid="private")),
    "a JWK for encryption": ("jwks", lambda: signed(key=OTHER_RSA_KEY, algorithm="RS256", kid="encryption")),
    "a JWK in a JWK": ("jwks", lambda: signed(key=OTHER_RSA_KEY, algorithm="RS256", kid="nested")),
    "an OKP key of the set": (
        "jwks",
        lambda: signed(key=ed25519.Ed25519PrivateKey.generate(), algorithm="EdDSA", kid="okp"),
    ),
    "unknown kid": ("jwks", lambda: signed(key=RSA_KEY, algorithm="RS256", kid="k9")),
    "kid with a path": ("jwks", lambda: signed(key=RSA_KEY, algorithm="RS256", kid="../../dev/null")),
    "kid a number": ("secret", lambda: by_hand(HMAC_HEADER | {"kid": 7}, claims(), SECRET.encode())),
    "kid with an SQL quote": ("secret", lambda: by_hand(HMAC_HEADER | {"kid": "' OR 1=1"}, claims(), SECRET.encode())),
    "jwk in the header": ("jwks", embedded_key_token),
    "jku": ("jwks", lambda: signed(key=OTHER_RSA_KEY, algorithm="RS256", jku="https://evil.example/jwks")),
    "x5u": ("secret", lambda: signed(x5u="https://evil.example/cert")),
    "x5c": ("secret", lambda: signed(x5c=["AAAA"])),
    "unknown crit": ("secret", lambda: by_hand(HMAC_HEADER | {"crit": ["b65"], "b65": 1}, claims(), SECRET.encode())),
    "crit b64": ("secret", lambda: by_hand(HMAC_HEADER | {"crit": ["b64"], "b64": False}, claims(), SECRET.encode())),
    "empty crit": ("secret", lambda: by_hand(HMAC_HEADER | {"crit": []}, claims(), SECRET.encode())),
    "wrong typ": ("secret", lambda: signed(typ="logout+jwt")),
    "no typ": ("secret", lambda: by_hand({"alg": "HS256"}, claims(), SECRET.encode())),
    "a header that names alg twice": ("secret", lambda: raw('{"alg":"none","alg":"HS256","typ":"JWT"}')),
    "a header that is a list": ("secret", lambda: raw('["HS256"]')),
    "a header nested 2,000 deep": ("secret", lambda: raw("[" * 2000)),
    "expired": ("secret", lambda: signed(claims(exp=int(time.time()) - 60))),
    "from the future": ("secret", lambda: signed(claims(iat=int(time.time()) + 300, exp=int(time.time()) + 600))),
    "not before later": ("secret", lambda: signed(claims(nbf=int(time.time()) + 300))),
    "no exp": ("secret", lambda: signed(claims(exp=None))),
    "no iat": ("secret", lambda: signed(claims(iat=None))),
    "no sub": ("secret", lambda: signed(claims(sub=None))),
    "no aud": ("secret", lambda: signed(claims(aud=None))),
    "no iss": ("secret", lambda: signed(claims(iss=None))),
    "exp true": ("secret", lambda: raw(json.dumps(HMAC_HEADER), json.dumps(claims(exp=True)))),
    "exp infinite": ("secret", lambda: raw(json.dumps(HMAC_HEADER), json.dumps(claims(exp=float("inf"))))),
    "exp beyond every calendar": ("secret", lambda: signed(claims(exp=10**18))),
    "partial iss": ("secret", lambda: signed(claims(iss=ISSUER[:-2]))),
    "iss a list": ("secret", lambda: raw(json.dumps(HMAC_HEADER), json.dumps(claims(iss=[ISSUER])))),
    "wrong aud": ("secret", lambda: signed(claims(aud="another"))),
    "partial aud": ("secret", lambda: signed(claims(aud="flu"))),
    "sub a number": ("secret", lambda: raw(json.dumps(HMAC_HEADER), json.dumps(claims(sub=7)))),
    "sub with a line break": ("secret", lambda: signed(claims(sub="ada\nlogin of=root"))),
    "truncated": ("secret", lambda: signed()[:-5]),
    "one character changed": ("secret", lambda: _changed(signed(), 20)),
    "two dots": ("secret", lambda: ".."),
    "five parts": ("secret", lambda: signed() + "." + signed().split(".", 1)[1]),
    "a signature with padding": ("secret", lambda: signed() + "="),
    "100 KB": ("secret", lambda: signed(claims(padding="x" * 75_000))),
    "a body that is a list": ("secret", lambda: raw(json.dumps(HMAC_HEADER), "[]")),
    "a body that is half an object": ("secret", lambda: raw(json.dumps(HMAC_HEADER), '{"iss"')),
}  # fmt: skip


@dataclass(frozen=True)
class Issuer:
    """Serves a JWKS in which good keys stand beside all that must be left out."""

    async def fetch(self, url: str, *, max_bytes: int, total_timeout_s: float) -> bytes:
        private = {"kid": "private", "d": "AQAB"}
        okp = {"kty": "OKP", "crv": "Ed25519", "kid": "okp", "x": b64(b"x" * 32), "d": b64(b"d" * 32)}
        point = EC_KEY.public_key().public_numbers()
        x, y = (b64(number.to_bytes(32)) for number in (point.x, point.y))
        elliptic = {"kty": "EC", "crv": "P-256", "kid": "e1", "x": x, "y": y}
        weak = jwk(rsa.generate_private_key(65537, 1024), "weak")
        entries: list[object] = [
            jwk(RSA_KEY),
            jwk(OTHER_RSA_KEY) | private,
            jwk(OTHER_RSA_KEY, "encryption", use="enc"),
            {"kty": "RSA", "kid": "nested", "n": jwk(OTHER_RSA_KEY), "e": "AQAB"},
            {"kty": "oct", "kid": "k1", "k": b64(SECRET)},
            *(okp, elliptic, weak, None, "RSA", {"kid": "no type"}, {"kty": "RSA", "n": "%%%", "e": 3}),
        ]
        return json.dumps({"keys": entries}).encode()


async def manager(way: Way, link: RedisLink, root: str, folder: Path) -> SecurityManager:
    algorithm: Algorithm = "HS256" if way == "secret" else "RS256"
    file = folder / "public.pem"
    file.write_bytes(pem(RSA_KEY))
    terms = SecurityTerms(
        secret=SecretStr("g" * 32),
        algorithm=algorithm,
        issuer=ISSUER,
        audience=AUDIENCE,
        jwt_secret=SecretStr(SECRET) if way == "secret" else None,
        jwt_key_file=file if way == "file" else None,
        jwks_url="https://issuer.example/jwks" if way == "jwks" else None,
    )
    return await SecurityManager.open(terms, link, root=root, fetcher=Issuer(), logins=FailedLogins(most=10**6))


def bearer(credential: str) -> Mapping[str, str]:
    return {"authorization": f"Bearer {credential}"}


GOOD: dict[Way, Callable[[], str]] = {
    "secret": signed,
    "file": lambda: signed(key=RSA_KEY, algorithm="RS256"),
    "jwks": lambda: signed(key=RSA_KEY, algorithm="RS256", kid="k1"),
}


@pytest.mark.parametrize("name", TOKENS)
async def test_tokens_that_must_be_refused(name: str, link: RedisLink, root: str, tmp_path: Path) -> None:
    way, make = TOKENS[name]
    security = await manager(way, link, root, tmp_path)
    assert (await security.authenticate(bearer(GOOD[way]()), address="192.0.2.1")).user == "ada"
    with pytest.raises(Unauthorized) as refusal:
        await security.authenticate(bearer(make()), address="192.0.2.1")
    assert "not valid" in refusal.value.detail  # the same words for all
    assert refusal.value.all_headers()["WWW-Authenticate"].endswith('error="invalid_token"')
    await security.close()


KEYS: dict[str, Callable[[str], str]] = {
    "wrong checksum": lambda key: _changed(key, 1),
    "one character of the secret": lambda key: _changed(key, 30),
    "truncated": lambda key: key[:-1],
    "longer": lambda key: key + "0",
    "100 KB": lambda key: key + "0" * 100_000,
    "without its id": lambda key: "flux__" + key.split("_")[2],
    "the id alone": lambda key: "_".join(key.split("_")[:2]),
    "a secret of another's": lambda key: f"flux_{key.split('_')[1]}_{_other_key().split('_')[2]}",
    "never made": lambda key: _other_key(),
    "another prefix": lambda key: "flex" + key[4:],
    "not ASCII": lambda key: key[:-1] + "é",
    "full-width digits": lambda key: key[:-1] + "１",
    "with a zero byte": lambda key: key[:-1] + "\0",
    "with a line break": lambda key: key + "\nX-Admin: 1",
    "two of them": lambda key: f"{key} {key}",
    "with a comma": lambda key: f"{key},{key}",
    "the stored hash": lambda key: hashlib.sha256(key.encode()).hexdigest(),
    "nothing": lambda key: "",
}


def _changed(text: str, from_the_end: int) -> str:
    place = len(text) - from_the_end
    return text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]


def _other_key() -> str:
    return mint("eve", frozenset(("read",)))[0].get_secret_value()


@pytest.mark.parametrize("name", KEYS)
async def test_keys_that_must_be_refused(name: str, link: RedisLink, root: str) -> None:
    key, record = mint("ada", frozenset(("read",)))
    await KeyStore(link, root=root).add(record)
    security = await SecurityManager.open(SecurityTerms(), link, root=root, fetcher=Issuer())
    assert (await security.authenticate(bearer(key.get_secret_value()), address="192.0.2.1")).user == "ada"
    with pytest.raises(Unauthorized):
        await security.authenticate(bearer(KEYS[name](key.get_secret_value())), address="192.0.2.1")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Basic YWRhOnNlY3JldA=="},
        {"authorization": "KEY"},
        {"authorization": "BearerKEY"},
        {"authorization": "Bearer KEY", "x-api-key": "KEY"},
        {"authorization": "Bearer KEY", "Authorization": "Bearer KEY"},
        {"x-api-key": "Bearer KEY"},
        {"proxy-authorization": "Bearer KEY"},
        {"x-forwarded-authorization": "Bearer KEY"},
        {"cookie": "key=KEY"},
    ],
)
async def test_places_that_hold_no_credential(headers: dict[str, str], link: RedisLink, root: str) -> None:
    key, record = mint("ada", frozenset(("read",)))
    await KeyStore(link, root=root).add(record)
    security = await SecurityManager.open(SecurityTerms(), link, root=root, fetcher=Issuer())
    sent = {name: value.replace("KEY", key.get_secret_value()) for name, value in headers.items()}
    with pytest.raises(Unauthorized):
        await security.authenticate(sent, address="192.0.2.1")


@pytest.mark.parametrize("header", ["Bearer KEY", "bearer KEY", "Key KEY", "Token KEY", "  Bearer   KEY  "])
async def test_places_that_do(header: str, link: RedisLink, root: str) -> None:
    key, record = mint("ada", frozenset(("read",)))
    await KeyStore(link, root=root).add(record)
    security = await SecurityManager.open(SecurityTerms(), link, root=root, fetcher=Issuer())
    sent = header.replace("KEY", key.get_secret_value())
    assert (await security.authenticate({"Authorization": sent}, address="192.0.2.1")).key_id == record.id
    assert (await security.authenticate({"X-API-Key": key.get_secret_value()}, address="192.0.2.1")).user == "ada"


def test_the_table_holds_forty() -> None:
    assert len(TOKENS) >= 40
