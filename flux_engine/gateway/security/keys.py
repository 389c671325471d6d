"""API keys: `flux_<id>_<secret><crc32>`.

    flux_7Qm2xPf0aLzT_<43 characters of secret><6 characters of checksum>

The id finds the record, the secret proves the key, the checksum tells a typing error or a truncated paste from a
guess without a look at the store, and lets scanners of published code recognise a leaked key. Only the SHA-256 of the
whole key is stored: a secret of 32 random bytes needs no slow hash.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
import zlib
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from flux_engine.gateway.seams import Scope

DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
PREFIX: Final = "flux_"
ID_CHARACTERS: Final = 12
SECRET_BYTES: Final = 32
SECRET_CHARACTERS: Final = 43  # 32 bytes in base 62
CHECKSUM_CHARACTERS: Final = 6
KEY_CHARACTERS: Final = len(PREFIX) + ID_CHARACTERS + 1 + SECRET_CHARACTERS + CHECKSUM_CHARACTERS
SCOPES: Final[tuple[Scope, ...]] = ("generate", "read", "admin")
USER: Final = re.compile(r"[\x21-\x7e]{1,128}")  # printable and without blanks: it stands in logs and keys
_KEY: Final = re.compile(
    rf"{PREFIX}([0-9A-Za-z]{{{ID_CHARACTERS}}})_[0-9A-Za-z]{{{SECRET_CHARACTERS + CHECKSUM_CHARACTERS}}}"
)
_NOBODYS_DIGEST: Final = "0" * 64


class KeyRecord(BaseModel):
    """What is stored of a key. `revoked_at` and `expires_at` are seconds since 1970.

    `epoch` rises when the key is revoked; a token holds the epoch of its key at the time it was made.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: Literal[1] = 1
    id: str
    user: str
    scopes: frozenset[Scope]
    sha256: str
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    epoch: int = 0

    @classmethod
    def parse(cls, raw: bytes | str) -> Self | None:
        """The record, or None for anything that is none."""
        try:
            return cls.model_validate_json(raw)
        except ValidationError:
            return None

    def is_live(self, now: float) -> bool:
        """Whether the key opens anything at `now`."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


def mint(user: str, scopes: frozenset[Scope], *, expires_at: float | None = None) -> tuple[SecretStr, KeyRecord]:
    """A new key, to be shown once, and its record. Raises ValueError for a user's name or scopes that cannot be."""
    if not USER.fullmatch(user):
        raise ValueError("a user's name is 1 to 128 printable ASCII characters without blanks")
    if not scopes or not scopes <= set(SCOPES):
        raise ValueError(f"a key has one or more of the scopes {', '.join(SCOPES)}")
    key_id = "".join(secrets.choice(DIGITS) for _ in range(ID_CHARACTERS))
    body = f"{PREFIX}{key_id}_{_base62(int.from_bytes(secrets.token_bytes(SECRET_BYTES)), SECRET_CHARACTERS)}"
    key = body + _checksum(body)
    record = KeyRecord(
        id=key_id, user=user, scopes=scopes, sha256=_digest(key), created_at=time.time(), expires_at=expires_at
    )
    return SecretStr(key), record


def key_id_of(key: str) -> str | None:
    """The id in a key of the right form and checksum; None for any other text."""
    found = _KEY.fullmatch(key) if len(key) == KEY_CHARACTERS else None
    if found is None or not hmac.compare_digest(_checksum(key[:-CHECKSUM_CHARACTERS]), key[-CHECKSUM_CHARACTERS:]):
        return None
    return found[1]


def is_key_of(record: KeyRecord | None, key: str) -> bool:
    """Whether `key` is the one that `record` was made of, in the same time whether it is, is not, or is unknown."""
    stored = record.sha256 if record is not None else _NOBODYS_DIGEST
    return hmac.compare_digest(stored.encode(), _digest(key).encode()) and record is not None


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), CHECKSUM_CHARACTERS)


def _base62(number: int, width: int) -> str:
    text = ""
    while number:
        number, digit = divmod(number, len(DIGITS))
        text = DIGITS[digit] + text
    return text.rjust(width, DIGITS[0])
