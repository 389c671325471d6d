"""Addresses of pages that show a file -> the file's own address, for hosts whose rule is published and certain."""

from __future__ import annotations

import re
from typing import Final

_HUB: Final = r"(?i:https://(?:(?:www\.)?huggingface\.co|hf\.co))"
_DROPBOX: Final = r"(?i:https://(?:www\.)?dropbox\.com)/(?:s|scl)"
_RULES: Final = (
    (re.compile(r"((?i:https://(?:www\.)?github\.com)/[^/?#]+/[^/?#]+)/blob/([^?#]+).*"), r"\1/raw/\2"),
    (re.compile(_HUB + r"/([^?#]+?)/blob/([^?#]+).*"), r"https://huggingface.co/\1/resolve/\2"),
    (re.compile(_HUB + r"/([^?#]+?/resolve/.+)"), r"https://huggingface.co/\1"),  # the token is for this host
    (re.compile(r"((?i:https://gitlab\.com)/[^?#]+?/-)/blob/([^?#]+).*"), r"\1/raw/\2"),
    (re.compile(rf"({_DROPBOX}/[^#]+[?&])dl=0(.*)"), r"\1dl=1\2"),
    (re.compile(rf"({_DROPBOX}/[^?#]+)\??"), r"\1?dl=1"),
    (re.compile(rf"({_DROPBOX}/[^?#]+\?(?!(?:[^#]*&)?(?:dl|raw)=)[^#]+)(?:#.*)?"), r"\1&dl=1"),
    (
        re.compile(
            r"(?i:https://drive\.google\.com)/(?:file/(?:u/\d/)?d/|open\?id=)([A-Za-z0-9_-]{10,100})(?:[/?&#].*)?"
        ),
        r"https://drive.google.com/uc?export=download&id=\1",
    ),
)


def file_address(url: str) -> str:
    """The address of the file that the page at `url` shows; any other URL unchanged."""
    for pattern, address in _RULES:
        if (match := pattern.fullmatch(url)) is not None:
            return match.expand(address)
    return url
