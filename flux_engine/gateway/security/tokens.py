"""JSON Web Tokens: one algorithm, every claim required, nothing in a token chooses how it is checked.

    tokens = Tokens(TokenTerms(algorithm="HS256", issuer=..., audience=...), HmacKey(secret))
    text = tokens.issue(principal, epoch=3)
    claims = await tokens.verify(text)              # raises TokenRefused

The header may name its algorithm, type and key and nothing else: `crit`, `jku`, `x5u`, `jwk` and whatever is invented
next are refused by not being named here. The reason of a refusal is for the log; clients learn only that it is refused.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, get_args

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from jwt import PyJWTError
from pydantic import SecretStr

from flux_engine.gateway.seams import Principal
from flux_engine.gateway.security.keys import SCOPES, USER
from flux_engine.gateway.security.secret import MIN_SECRET_BYTES

Algorithm = Literal["HS256", "RS256", "ES256"]
PublicKey = RSAPublicKey | EllipticCurvePublicKey
PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey

MAX_SECONDS: Final = 900
LEEWAY_S: Final = 30
MAX_CHARACTERS: Final = 8192
TYPES: Final = ("jwt", "at+jwt")
HEADERS: Final = frozenset(("alg", "typ", "kid", "x5t", "x5t#S256"))  # the thumbprints are ignored
KEY_ID: Final = re.compile(r"[A-Za-z0-9._~=+-]{1,128}")
REQUIRED: Final = ("exp", "iat", "sub", "aud", "iss")
KEY_CLAIM, EPOCH_CLAIM = "flux_key", "flux_epoch"  # an issuer may have a `key` of its own
_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_FARTHEST_S: Final = 1e11  # the year 5138; beyond it arithmetic on times goes wrong


class TokenRefused(Exception):
    """The text is no token for this gateway. Its message is for the log and quotes nothing of the token."""


class KeysAway(Exception):
    """Tokens cannot be checked now: the issuer's keys have not been fetched yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTerms:
    """What every token has to say."""

    algorithm: Algorithm
    issuer: str
    audience: str


@dataclass(frozen=True, slots=True)
class Claims:
    """A token that holds. `key_id` and `epoch` are those of the API key that it was traded for, if any."""

    user: str
    scopes: frozenset[str]
    issued_at: float
    key_id: str | None
    epoch: int


class VerifyingKeys(Protocol):
    """Where the key for a token comes from: a secret, a file (both below), or a JWKS (jwks.py)."""

    @property
    def can_sign(self) -> bool:
        """Whether tokens can be made here too."""
        ...

    def signing_key(self) -> bytes | PrivateKey:
        """The key that signs. Only where `can_sign`."""
        ...

    async def verifying_key(self, key_id: str | None) -> bytes | PublicKey | None:
        """The key that `kid` names, None where there is none. Raises KeysAway."""
        ...


class HmacKey:
    """HS256: whoever can check a token can make one, so the secret stays with this service."""

    can_sign: Final = True

    def __init__(self, secret: SecretStr) -> None:
        """Raises ValueError for a secret under 32 bytes."""
        self._secret = secret.get_secret_value().encode()
        if len(self._secret) < MIN_SECRET_BYTES:
            raise ValueError(f"a secret for HS256 has {MIN_SECRET_BYTES} bytes or more")

    def signing_key(self) -> bytes:
        return self._secret

    async def verifying_key(self, key_id: str | None) -> bytes:
        return self._secret


class KeyPair:
    """RS256 or ES256 with a key of the operator's: a private one also makes tokens."""

    def __init__(self, key: PrivateKey | PublicKey, *, algorithm: Algorithm) -> None:
        """Raises ValueError for a key that is not of `algorithm`."""
        self._private = key if isinstance(key, RSAPrivateKey | EllipticCurvePrivateKey) else None
        self._public = self._private.public_key() if self._private is not None else key
        check_public_key(self._public, algorithm)

    @property
    def can_sign(self) -> bool:
        return self._private is not None

    def signing_key(self) -> PrivateKey:
        if self._private is None:
            raise TokenRefused("a public key signs nothing")
        return self._private

    async def verifying_key(self, key_id: str | None) -> PublicKey | None:
        return self._public  # type: ignore[return-value]


def check_public_key(key: object, algorithm: Algorithm) -> None:
    """Raises ValueError for a key that is too weak or of another algorithm."""
    if algorithm == "RS256" and isinstance(key, RSAPublicKey):
        if key.key_size < 2048:
            raise ValueError("an RSA key has 2048 bits or more")
    elif not (algorithm == "ES256" and isinstance(key, EllipticCurvePublicKey) and key.curve.name == "secp256r1"):
        raise ValueError(f"{algorithm} needs {'an RSA key' if algorithm == 'RS256' else 'a P-256 key'}")


class Tokens:
    """Makes and checks tokens."""

    def __init__(self, terms: TokenTerms, keys: VerifyingKeys) -> None:
        if terms.algorithm not in get_args(Algorithm):
            raise ValueError(f"tokens are signed by one of {', '.join(get_args(Algorithm))}")
        self._terms = terms
        self._keys = keys

    @property
    def can_issue(self) -> bool:
        return self._keys.can_sign

    def issue(self, principal: Principal, *, epoch: int, seconds: int = MAX_SECONDS) -> str:
        """A token for `principal`, of `seconds` and at most 15 minutes."""
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": self._terms.issuer,
            "aud": self._terms.audience,
            "sub": principal.user,
            "iat": now,
            "exp": now + min(seconds, MAX_SECONDS),
            "scope": " ".join(sorted(principal.scopes)),
            EPOCH_CLAIM: epoch,
        }
        if principal.key_id is not None:
            claims[KEY_CLAIM] = principal.key_id
        return jwt.encode(claims, self._keys.signing_key(), algorithm=self._terms.algorithm, headers={"typ": "at+jwt"})

    async def verify(self, text: str) -> Claims:
        """What `text` says, once every check has passed. Raises TokenRefused and KeysAway."""
        if len(text) > MAX_CHARACTERS:
            raise TokenRefused("too long")
        if not _COMPACT.fullmatch(text):
            raise TokenRefused("not three parts of base64url")
        header = _object_of(text.partition(".")[0])
        self._check_header(header)
        key = await self._keys.verifying_key(header.get("kid"))
        if key is None:
            raise TokenRefused("unknown key")
        try:
            claims = jwt.decode(
                text,
                key,
                algorithms=[self._terms.algorithm],
                audience=self._terms.audience,
                issuer=self._terms.issuer,
                leeway=LEEWAY_S,
                options={"require": list(REQUIRED), "enforce_minimum_key_length": True},
            )
        except (PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise TokenRefused(type(error).__name__) from None
        return self._checked(claims)

    def _check_header(self, header: Mapping[str, object]) -> None:
        if not header.keys() <= HEADERS:
            raise TokenRefused("a header field that nothing here reads")
        if header.get("alg") != self._terms.algorithm:
            raise TokenRefused("another algorithm")
        kind = header.get("typ")
        if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in TYPES:
            raise TokenRefused("another type")
        if "kid" in header and not (isinstance(kid := header["kid"], str) and KEY_ID.fullmatch(kid)):
            raise TokenRefused("a key id that is none")

    def _checked(self, claims: Mapping[str, Any]) -> Claims:
        """What PyJWT leaves open: the types of what it compares, and claims that are ours."""
        if claims["iss"] != self._terms.issuer:
            raise TokenRefused("another issuer")
        for name in ("exp", "iat", "nbf"):
            moment = claims.get(name, 0)
            if isinstance(moment, bool) or not isinstance(moment, int | float) or not 0 <= moment <= _FARTHEST_S:
                raise TokenRefused(f"{name} is no time")
        user, key_id, epoch = claims["sub"], claims.get(KEY_CLAIM), claims.get(EPOCH_CLAIM, 0)
        if not isinstance(user, str) or not USER.fullmatch(user):
            raise TokenRefused("sub is no user")
        if not (key_id is None or isinstance(key_id, str)) or not isinstance(epoch, int):
            raise TokenRefused("key or epoch is of another type")
        return Claims(user, _scopes(claims), float(claims["iat"]), key_id, epoch)


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    """`scope` as RFC 8693 has it, a text of names, or the list `scp` of some issuers; unknown names are left out."""
    given = claims.get("scope", claims.get("scp", ""))
    names = given.split(" ") if isinstance(given, str) else given if isinstance(given, list) else []
    return frozenset(name for name in names if isinstance(name, str) and name in SCOPES)


def _object_of(part: str) -> dict[str, Any]:
    """The JSON object in one part of a token, in which no name stands twice."""
    try:
        raw = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
        value = json.loads(raw, object_pairs_hook=_without_repeats)
    except (binascii.Error, ValueError, RecursionError):
        raise TokenRefused("a header that is no JSON object") from None
    if not isinstance(value, dict):
        raise TokenRefused("a header that is no JSON object")
    return value


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found
