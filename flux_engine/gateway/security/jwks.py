"""The public keys of an issuer, from its JWKS address.

Fetched through `net/`, at most 256 KB, kept for 10 minutes. A `kid` that is not in the set asks again, at most once a
minute, so that new keys are found and invented ones cost nothing. A set that cannot be had, or that holds no key of
use, leaves the old one in force. Keys are read here field by field: what is no public signing key of the one algorithm
is left out, whatever it claims to be.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicNumbers
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers

from flux_engine.errors import InputFetchFailed
from flux_engine.gateway.security.tokens import (
    KEY_ID,
    Algorithm,
    KeysAway,
    PrivateKey,
    PublicKey,
    TokenRefused,
    check_public_key,
)

MAX_BYTES: Final = 256 * 1024
MAX_KEYS: Final = 50
KEPT_S: Final = 600.0
ASK_AGAIN_S: Final = 60.0
FIRST_AGAIN_S: Final = 5.0  # while there is no set at all
TIMEOUT_S: Final = 10.0
KEY_TYPES: Final[Mapping[Algorithm, str]] = {"RS256": "RSA", "ES256": "EC"}
PRIVATE: Final = frozenset(("d", "p", "q", "dp", "dq", "qi", "oth", "k"))
MAX_NUMBER_CHARACTERS: Final = 1400  # an RSA modulus of 8192 bits has 1366

log = logging.getLogger(__name__)


class Fetch(Protocol):
    """`Fetcher.fetch` of `net/`."""

    async def fetch(self, url: str, *, max_bytes: int, total_timeout_s: float) -> bytes: ...


class KeySet:
    """VerifyingKeys (tokens.py) from one address. For one event loop."""

    can_sign: Final = False

    def __init__(
        self, url: str, *, algorithm: Algorithm, fetcher: Fetch, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Raises ValueError for an algorithm without public keys."""
        if algorithm not in KEY_TYPES:
            raise ValueError(f"a JWKS holds keys of {' or '.join(KEY_TYPES)}, not of {algorithm}")
        self._url = url
        self._algorithm: Final = algorithm
        self._fetcher = fetcher
        self._clock = clock
        self._keys: dict[str | None, PublicKey] = {}
        self._fetched_at: float | None = None
        self._asked_at: float | None = None
        self._asking = asyncio.Lock()
        self._refreshing: asyncio.Task[None] | None = None

    def signing_key(self) -> PrivateKey:
        raise TokenRefused("the issuer signs its own tokens")

    async def verifying_key(self, key_id: str | None) -> PublicKey | None:
        """The key of this id; without an id the only key of the set. Raises KeysAway before the first set is there."""
        found = self._find(key_id)
        if found is None:
            await self._ask_for(key_id)
            found = self._find(key_id)
        elif self._is_old() and self._may_ask() and (self._refreshing is None or self._refreshing.done()):
            self._refreshing = asyncio.create_task(self._refresh())
        if found is None and not self._keys:
            raise KeysAway("the issuer's keys cannot be had")
        return found

    async def close(self) -> None:
        """End a fetch under way."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.wait([self._refreshing])

    def _find(self, key_id: str | None) -> PublicKey | None:
        if key_id is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(key_id)

    def _is_old(self) -> bool:
        return self._fetched_at is None or self._clock() - self._fetched_at >= KEPT_S

    def _may_ask(self) -> bool:
        pause = ASK_AGAIN_S if self._keys else FIRST_AGAIN_S
        return self._asked_at is None or self._clock() - self._asked_at >= pause

    async def _ask_for(self, key_id: str | None) -> None:
        """Fetch the set for a key that is not in it, unless somebody did while this call waited."""
        async with self._asking:
            if self._find(key_id) is None and self._may_ask():
                await self._ask()

    async def _refresh(self) -> None:
        """Fetch the set anew. Whoever wants a key that is not in the old one waits for it."""
        async with self._asking:
            if self._is_old() and self._may_ask():
                await self._ask()

    async def _ask(self) -> None:
        self._asked_at = self._clock()
        try:
            raw = await self._fetcher.fetch(self._url, max_bytes=MAX_BYTES, total_timeout_s=TIMEOUT_S)
            self._keys = keys_of(raw, self._algorithm)
            self._fetched_at = self._clock()
        except (InputFetchFailed, ValueError) as error:
            log.warning("the issuer's keys cannot be had", extra={"detail": str(error)})


def keys_of(raw: bytes, algorithm: Algorithm) -> dict[str | None, PublicKey]:
    """The keys of use in a JWKS document, by id. Raises ValueError where there is none."""
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        raise ValueError("the JWKS is no JSON") from None
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise ValueError(f"the JWKS holds no list of up to {MAX_KEYS} keys")
    found: dict[str | None, PublicKey] = {}
    for entry in entries:
        key = _public_key(entry, algorithm) if isinstance(entry, dict) else None
        name = entry.get("kid") if isinstance(entry, dict) else None
        if key is None or not (name is None or (isinstance(name, str) and KEY_ID.fullmatch(name))):
            continue
        if name in found:
            raise ValueError("the JWKS names two keys alike")
        found[name] = key
    if not found:
        raise ValueError(f"the JWKS holds no public key for {algorithm}")
    return found


def _public_key(entry: Mapping[str, Any], algorithm: Algorithm) -> PublicKey | None:
    """The key in one entry; None for one of another kind or use, and for a private one."""
    operations = entry.get("key_ops", ["verify"])
    is_for_us = (
        entry.get("kty") == KEY_TYPES[algorithm]
        and entry.get("use", "sig") == "sig"
        and entry.get("alg", algorithm) == algorithm
        and isinstance(operations, list)
        and "verify" in operations
        and not PRIVATE & entry.keys()
    )
    if not is_for_us:
        return None
    try:
        key: PublicKey
        if algorithm == "RS256":
            key = RSAPublicNumbers(_number(entry, "e"), _number(entry, "n")).public_key()
        elif entry.get("crv") == "P-256":
            key = EllipticCurvePublicNumbers(_number(entry, "x"), _number(entry, "y"), SECP256R1()).public_key()
        else:
            return None
        check_public_key(key, algorithm)
    except ValueError:
        return None
    return key


def _number(entry: Mapping[str, Any], name: str) -> int:
    """An unsigned integer of base64url. Raises ValueError."""
    text = entry.get(name)
    if not isinstance(text, str) or not 0 < len(text) <= MAX_NUMBER_CHARACTERS or not text.isascii():
        raise ValueError(f"{name} is no number")
    return int.from_bytes(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
