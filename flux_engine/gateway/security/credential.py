"""The one credential of a request.

`Authorization: Bearer ...`, where `Key` and `Token` are taken too, as other services have them, or `X-API-Key`. In two
places at once it is refused: a proxy in front and this service could read different ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from flux_engine.gateway.problems import Unauthorized
from flux_engine.gateway.security.tokens import MAX_CHARACTERS

SCHEMES: Final = ("bearer", "key", "token")
KEY_HEADERS: Final = ("x-api-key", "x-key")


def credential_in(headers: Mapping[str, str]) -> str:
    """The one credential in `headers`. Raises Unauthorized."""
    given = [(name.lower(), value) for name, value in headers.items()]
    places = [(name, value) for name, value in given if name in ("authorization", *KEY_HEADERS)]
    if not places:
        raise Unauthorized("send an API key: `Authorization: Bearer flux_...`")
    if len(places) > 1:
        raise Unauthorized("the credentials stand in more than one header; send them once")
    name, value = places[0]
    if name == "authorization":
        scheme, _, value = value.strip().partition(" ")
        if scheme.lower() not in SCHEMES:
            raise Unauthorized("send an API key or a token: `Authorization: Bearer flux_...`")
    value = value.strip()
    if not 0 < len(value) <= MAX_CHARACTERS or not value.isascii() or not value.isprintable() or " " in value:
        raise refused()
    return value


def refused() -> Unauthorized:
    """What every bad credential is answered, whatever is wrong with it."""
    return Unauthorized(
        "the credentials are not valid: unknown, expired or revoked",
        headers={"WWW-Authenticate": 'Bearer realm="flux", error="invalid_token"'},
    )
