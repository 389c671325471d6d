"""A client's URL as it was written: path and query reach the server byte for byte.

A signature covers the bytes of its URL, and HTTP libraries decode `%2F` or quote `+` anew. Here only the host is
normalised, and only what a request line cannot carry is percent-encoded: blanks, control characters, backslashes and
everything outside ASCII. The fragment is dropped. door.py decides which schemes and hosts may be opened.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urljoin

from yarl import URL

MAX_CHARACTERS: Final = 8192

_PARTS: Final = re.compile(  # RFC 3986, appendix B
    r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):)?(?://(?P<authority>[^/?#]*))?(?P<path>[^?#]*)(?P<query>\?[^#]*)?(?:#.*)?",
    re.DOTALL,
)
_HOST: Final = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(?:%25[A-Za-z0-9]+)?")  # a name, IPv4 or IPv6
_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_NOT_IN_A_REQUEST: Final = re.compile(r"[^\x21-\x5b\x5d-\x7e]")


class NotAUrl(ValueError):
    """The text is no URL. The message says what is wrong and quotes nothing."""


def parsed_url(text: str, *, base: URL | None = None) -> URL:
    """`text` as an absolute URL, path and query as written. A redirect's may be relative to `base`. Raises NotAUrl."""
    text = text.strip()
    parts = _PARTS.fullmatch(text)
    if parts is None or not text:
        raise NotAUrl("it is empty")
    if len(text) > MAX_CHARACTERS:
        raise NotAUrl(f"it has more than {MAX_CHARACTERS} characters")
    if base is None and _LONE_SURROGATE.search(text):  # a redirect's are bytes of its header
        raise NotAUrl("it holds a broken character")
    scheme, authority = parts["scheme"], parts["authority"]
    path, query = _quoted(parts["path"]), _quoted(parts["query"] or "")
    if scheme is None and base is not None:
        scheme = base.scheme
        if authority is None:
            return URL(f"{base.origin()}{_resolved(path, query, base)}", encoded=True)
    if not scheme or not authority:
        raise NotAUrl("it must begin with https:// and a host name")
    return URL(f"{_origin(scheme, authority)}{path or '/'}{query}", encoded=True)


def _resolved(path: str, query: str, base: URL) -> str:
    """Path and query of a reference without a host (RFC 3986, 5.2.2)."""
    if path.startswith("/"):
        return f"{path}{query}"
    if path:
        return f"{urljoin(base.raw_path, path)}{query}"
    return f"{base.raw_path}{query or f'?{base.raw_query_string}'.rstrip('?')}"


def _origin(scheme: str, authority: str) -> str:
    """Scheme, host and port in their usual spelling; a user name and a password are kept, to be refused by name."""
    try:
        url = URL(f"{scheme.lower()}://{authority}")
    except (ValueError, IndexError):  # UnicodeError is a ValueError; yarl 1.25 raises IndexError for `[]@`
        raise NotAUrl("its host name or port is misspelt") from None
    host = url.raw_host or ""
    has_labels = len(host) <= 253 and all(0 < len(label) < 64 for label in host.removesuffix(".").split("."))
    if not _HOST.fullmatch(host) or not has_labels:
        raise NotAUrl("its host name is misspelt")
    return str(url).rstrip("/")


def _quoted(text: str) -> str:
    return _NOT_IN_A_REQUEST.sub(_percent_encoded, text)


def _percent_encoded(match: re.Match[str]) -> str:
    # Undecodable bytes of a Location header arrive as lone surrogates, which become those bytes again.
    try:
        encoded = match[0].encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise NotAUrl("it holds a broken character") from None
    return "".join(f"%{byte:02X}" for byte in encoded)
