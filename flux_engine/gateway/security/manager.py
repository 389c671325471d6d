"""Who is asking, and what they may do.

    security = await SecurityManager.open(terms, link, root=..., fetcher=...)     # refuses to start without credentials
    principal = await security.authenticate(request.headers, address=...)         # Unauthorized, TooMany, Unavailable
    security.require(principal, "generate")                                       # Forbidden
    issued = await security.exchange(request.headers, address=...)                # a key for a token of 15 minutes

A credential is an API key or a token (credential.py). Every refusal reads the same to the client; the log says why.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from flux_engine.cache.redis_link import CacheAway, RedisLink
from flux_engine.gateway.problems import Forbidden, TooMany, Unauthorized, Unavailable
from flux_engine.gateway.seams import Principal, Scope
from flux_engine.gateway.security.credential import credential_in, refused
from flux_engine.gateway.security.jwks import Fetch, KeySet
from flux_engine.gateway.security.key_store import KeyStore, Looked
from flux_engine.gateway.security.keys import PREFIX, is_key_of, key_id_of
from flux_engine.gateway.security.logins import FailedLogins
from flux_engine.gateway.security.secret import derived, gateway_secret
from flux_engine.gateway.security.signed_paths import PathSigner
from flux_engine.gateway.security.terms import NotConfigured, SecurityTerms, verifying_keys
from flux_engine.gateway.security.tokens import (
    MAX_SECONDS,
    Claims,
    KeysAway,
    TokenRefused,
    Tokens,
    TokenTerms,
    VerifyingKeys,
)

START_WAIT_S: Final = 10.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token in exchange for a key."""

    user: str
    token: str
    expires_in_s: int
    scopes: frozenset[str]


class SecurityManager:
    """`Security` (seams.py)."""

    def __init__(
        self, store: KeyStore, tokens: Tokens, signer: PathSigner, *, logins: FailedLogins, keys: VerifyingKeys
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._signer = signer
        self._logins = logins
        self._keys = keys

    @classmethod
    async def open(
        cls,
        terms: SecurityTerms,
        link: RedisLink,
        *,
        root: str,
        fetcher: Fetch,
        logins: FailedLogins | None = None,
        wait_s: float = START_WAIT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> SecurityManager:
        """Raises NotConfigured where nobody could log in, or where a setting is unusable.

        A Redis that is away is waited for, `wait_s` at most.
        """
        store = KeyStore(link, root=root, clock=clock)
        secret = await _started(terms, store, link, root=root, wait_s=wait_s)
        keys = verifying_keys(terms, secret, fetcher, clock=clock)
        tokens = Tokens(TokenTerms(algorithm=terms.algorithm, issuer=terms.issuer, audience=terms.audience), keys)
        return cls(
            store, tokens, PathSigner(derived(secret, "signed paths")), logins=logins or FailedLogins(), keys=keys
        )

    async def authenticate(self, headers: Mapping[str, str], *, address: str) -> Principal:
        """Whoever holds the one credential in `headers`. Raises Unauthorized, TooMany and Unavailable."""
        return await self._opened(credential_in(headers), address)

    async def is_still_good(self, headers: Mapping[str, str]) -> bool:
        """Whether the credential in `headers`, which was good, has not been revoked and has not expired. Yes where that
        cannot be told now."""
        try:
            await self._principal(credential_in(headers))
        except TokenRefused:
            return False
        except Unavailable:
            return True
        return True

    async def exchange(self, headers: Mapping[str, str], *, address: str) -> IssuedToken:
        """A token with the scopes of the API key in `headers`.

        Raises what `authenticate` does, and Forbidden for a token in place of a key, which would live for ever by being
        traded again and again, and where an issuer makes the tokens.
        """
        credential = credential_in(headers)
        principal = await self._opened(credential, address)
        if not credential.startswith(PREFIX):
            raise Forbidden("a token is made for an API key, not for another token")
        if not self._tokens.can_issue:
            raise Forbidden("this gateway makes no tokens: they come from the issuer that it trusts")
        record = (await self._look(principal.key_id)).record
        if record is None:
            raise refused()
        token = self._tokens.issue(principal, epoch=record.epoch)
        return IssuedToken(principal.user, token, MAX_SECONDS, principal.scopes)

    def require(self, principal: Principal, scope: Scope) -> None:
        """Raises Forbidden where `principal` has neither `scope` nor `admin`."""
        if scope not in principal.scopes and "admin" not in principal.scopes:
            raise Forbidden(
                f"this needs the scope `{scope}`, which the credentials do not have",
                headers={"WWW-Authenticate": f'Bearer realm="flux", error="insufficient_scope", scope="{scope}"'},
            )

    def sign_path(self, path: str, principal: Principal, *, seconds: int) -> str:
        """`path` with a signature for GET, 15 minutes at most. Raises ValueError for what is no path of ours."""
        return self._signer.sign(path, principal, seconds=seconds)

    async def verify_path(self, path: str, query: Mapping[str, str]) -> Principal:
        """Whoever `sign_path` signed this path for, with the scope `read`. Raises Unauthorized and Unavailable."""
        principal = self._signer.verify(path, query)
        if principal is None:
            raise Unauthorized("the link has expired or was changed; ask for a new one")
        if principal.key_id is not None:
            record = (await self._look(principal.key_id)).record
            if record is None or record.user != principal.user or not record.is_live(time.time()):
                raise Unauthorized("the link has expired or was changed; ask for a new one")
        return principal

    async def close(self) -> None:
        """End what runs in the background."""
        if isinstance(self._keys, KeySet):
            await self._keys.close()

    async def _opened(self, credential: str, address: str) -> Principal:
        wait_s = math.ceil(self._logins.wait_s(address, credential))
        if wait_s > 0:
            raise TooMany(
                "too many failed logins from this address; wait, then check the credentials",
                headers={"Retry-After": str(wait_s)},
                extra={"violated-policies": ["failed-logins"]},
            )
        try:
            principal = await self._principal(credential)
        except TokenRefused as refusal:
            self._logins.failed(address)
            log.info("credentials refused", extra={"detail": str(refusal)})
            raise refused() from None
        self._logins.succeeded(credential)
        return principal

    async def _principal(self, credential: str) -> Principal:
        """Whoever holds `credential`. Raises TokenRefused, and Unavailable where that cannot be told now."""
        if credential.startswith(PREFIX):
            return await self._key_holder(credential)
        try:
            claims = await self._tokens.verify(credential)
        except KeysAway:
            raise Unavailable("tokens cannot be checked now: the issuer does not answer", retry_after_s=5) from None
        return await self._token_holder(claims)

    async def _key_holder(self, key: str) -> Principal:
        key_id = key_id_of(key)
        if key_id is None:
            raise TokenRefused("a key of another form, or with a wrong checksum")
        record = (await self._look(key_id)).record
        if not is_key_of(record, key) or record is None:
            raise TokenRefused("unknown key")
        if not record.is_live(time.time()):
            raise TokenRefused("revoked or expired key")
        return Principal(record.user, record.scopes, record.id)

    async def _token_holder(self, claims: Claims) -> Principal:
        looked = await self._look(claims.key_id, user=claims.user)
        if claims.issued_at < looked.user_epoch:
            raise TokenRefused("the user's tokens were ended")
        if claims.key_id is None:
            return Principal(claims.user, claims.scopes, None)
        record = looked.record
        if record is None or record.user != claims.user or not record.is_live(time.time()):
            raise TokenRefused("a token of a revoked or expired key")
        if record.epoch != claims.epoch:
            raise TokenRefused("a token of an earlier epoch")
        return Principal(claims.user, claims.scopes & record.scopes, record.id)

    async def _look(self, key_id: str | None, *, user: str = "") -> Looked:
        try:
            return await self._store.look(key_id, user=user)
        except CacheAway:
            raise Unavailable("credentials cannot be checked now; try again", retry_after_s=5) from None


async def _started(terms: SecurityTerms, store: KeyStore, link: RedisLink, *, root: str, wait_s: float) -> bytes:
    """The gateway's secret, once it is sure that somebody can log in. Raises NotConfigured."""
    deadline = time.monotonic() + wait_s
    while True:
        try:
            secret = await gateway_secret(terms.secret, link, root=root)
            has_key = terms.takes_foreign_tokens or any(r.is_live(time.time()) for r in await store.all())
            break
        except CacheAway:
            if time.monotonic() >= deadline:
                raise NotConfigured("Redis does not answer, so that no API key can be checked: see REDIS_URL") from None
            await asyncio.sleep(0.2)
    if terms.secret is None:
        log.warning("GATEWAY_SECRET is not set: tokens and webhooks are signed with a secret that Redis keeps")
    if not has_key:
        raise NotConfigured(
            "no credentials are configured, so that nobody could log in: make a key with"
            " `python -m flux_engine keys create --user NAME`, or set JWT_SECRET, JWT_KEY_FILE or"
            " JWKS_URL"
        )
    return secret
