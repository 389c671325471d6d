"""What the operator has set about credentials, and the keys that tokens are checked with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from pydantic import SecretStr

from flux_engine.gateway.security.jwks import Fetch, KeySet
from flux_engine.gateway.security.secret import MIN_SECRET_BYTES, derived
from flux_engine.gateway.security.tokens import Algorithm, HmacKey, KeyPair, PrivateKey, PublicKey, VerifyingKeys


class NotConfigured(Exception):
    """Nobody could log in; the gateway must not start. The message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityTerms:
    """What the operator has set. Without `jwt_secret`, `jwt_key_file` and `jwks_url`, tokens are the gateway's own."""

    secret: SecretStr | None = None
    algorithm: Algorithm = "HS256"
    issuer: str = "flux-gateway"
    audience: str = "flux-gateway"
    jwt_secret: SecretStr | None = None
    jwt_key_file: Path | None = None
    jwks_url: str | None = None

    @property
    def takes_foreign_tokens(self) -> bool:
        return any(setting is not None for setting in (self.jwt_secret, self.jwt_key_file, self.jwks_url))


def verifying_keys(terms: SecurityTerms, secret: bytes, fetcher: Fetch, *, clock: Callable[[], float]) -> VerifyingKeys:
    """Raises NotConfigured for settings that contradict one another or cannot be read."""
    try:
        if terms.secret is not None and len(terms.secret.get_secret_value().encode()) < MIN_SECRET_BYTES:
            raise ValueError(f"GATEWAY_SECRET has {MIN_SECRET_BYTES} bytes or more")
        _check_pairs(terms)
        if terms.jwks_url is not None:
            return KeySet(terms.jwks_url, algorithm=terms.algorithm, fetcher=fetcher, clock=clock)
        if terms.algorithm == "HS256":
            return HmacKey(terms.jwt_secret or SecretStr(derived(secret, "tokens").hex()))
        if terms.jwt_key_file is None:
            raise ValueError(f"{terms.algorithm} needs JWT_KEY_FILE or JWKS_URL")
        return KeyPair(_key_in(terms.jwt_key_file), algorithm=terms.algorithm)
    except (ValueError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise NotConfigured(f"tokens cannot be checked: {reason}") from None


def _check_pairs(terms: SecurityTerms) -> None:
    """Raises ValueError for a key that nothing would be checked with: every token of its issuer would be refused."""
    if terms.algorithm == "HS256" and terms.jwt_key_file is not None:
        raise ValueError("JWT_KEY_FILE needs JWT_ALGORITHM RS256 or ES256")
    if terms.algorithm != "HS256" and terms.jwt_secret is not None:
        raise ValueError(f"JWT_SECRET is for HS256: {terms.algorithm} needs JWT_KEY_FILE or JWKS_URL")
    if terms.jwks_url is not None and terms.jwt_key_file is not None:
        raise ValueError("JWT_KEY_FILE and JWKS_URL cannot both be set: tokens are checked by one of them")


def _key_in(file: Path) -> PrivateKey | PublicKey:
    """The key in a PEM file. Raises OSError and ValueError."""
    text = file.read_bytes()
    try:
        if b"PRIVATE KEY" in text:
            return load_pem_private_key(text, password=None)  # type: ignore[return-value]
        return load_pem_public_key(text)  # type: ignore[return-value]
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("JWT_KEY_FILE holds no PEM key without a password") from None
