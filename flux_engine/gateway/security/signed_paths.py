"""Paths with a signature in their query, for an <img> or a <video>, which send no headers.

    /task/a1b2/result?index=1&expires=1764100000&user=ada&key=7Qm2xPf0aLzT&sig=...

A signature is for GET, for one path with its whole query, for one user, and for minutes; it opens nothing else, and it
ends with its key. Whoever has the link has the picture until then: a page asks for a new one each time it shows it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from flux_engine.gateway.seams import Principal
from flux_engine.gateway.security.keys import USER

MAX_SECONDS: Final = 900
SIGNATURE: Final = "sig"  # a name that tracers redact
OWN: Final = ("expires", "user", "key", SIGNATURE)


class PathSigner:
    """Signs paths and checks them. `secret` is 32 bytes that every replica has."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def sign(self, path: str, principal: Principal, *, seconds: int) -> str:
        """`path`, which may have a query, with a signature of `seconds`, 1 to 900. Raises ValueError."""
        parts = urlsplit(path)
        query = parse_qsl(parts.query, keep_blank_values=True)
        if parts.scheme or parts.netloc or not parts.path.startswith("/") or parts.fragment:
            raise ValueError("a path of this service is signed, no other address")
        if any(name in OWN for name, _ in query):
            raise ValueError("the path is signed already")
        expires = int(time.time()) + max(1, min(seconds, MAX_SECONDS))
        query += [("expires", str(expires)), ("user", principal.user), ("key", principal.key_id or "")]
        return f"{parts.path}?{urlencode([*query, (SIGNATURE, self._signature(unquote(parts.path), dict(query)))])}"

    def verify(self, path: str, query: Mapping[str, str]) -> Principal | None:
        """Whoever this path was signed for, with the scope `read`; None where the signature does not hold any more.

        `path` is decoded, as a server hands it on. Whether the key still lives is the caller's to look up.
        """
        given = query.get(SIGNATURE, "")
        signed = {name: value for name, value in query.items() if name != SIGNATURE}
        expected = self._signature(path, signed)
        if not hmac.compare_digest(expected.encode(), given.encode("utf-8", "replace")):
            return None
        expires, user = signed.get("expires", ""), signed.get("user", "")
        if not expires.isdigit() or time.time() >= int(expires) or not USER.fullmatch(user):
            return None
        return Principal(user, frozenset(("read",)), signed.get("key") or None)

    def _signature(self, path: str, query: Mapping[str, str]) -> str:
        said = "\n".join(["GET", quote(path, safe="/"), *(f"{quote(n)}={quote(v)}" for n, v in sorted(query.items()))])
        digest = hmac.new(self._secret, said.encode("utf-8", "replace"), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
