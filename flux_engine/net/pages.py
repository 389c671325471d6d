"""Addresses of pages that show a file -> the file's own address, for hosts whose rule is published and certain."""

from __future__ import annotations

import re
from typing import Final

_RULES: Final = (
    (re.compile(r"(https://(?:www\.)?github\.com/[^/?#]+/[^/?#]+)/blob/([^?#]+).*"), r"\1/raw/\2"),
    (re.compile(r"(https://huggingface\.co/[^?#]+?)/blob/([^?#]+).*"), r"\1/resolve/\2"),
    (re.compile(r"(https://gitlab\.com/[^?#]+?/-)/blob/([^?#]+).*"), r"\1/raw/\2"),
    (re.compile(r"(https://(?:www\.)?dropbox\.com/[^#]+[?&])dl=0(.*)"), r"\1dl=1\2"),
    (
        re.compile(r"https://drive\.google\.com/(?:file/d/|open\?id=)([A-Za-z0-9_-]{10,100})(?:[/?&#].*)?"),
        r"https://drive.google.com/uc?export=download&id=\1",
    ),
)


def file_address(url: str) -> str:
    """The address of the file that the page at `url` shows; any other URL unchanged."""
    for pattern, address in _RULES:
        if (match := pattern.fullmatch(url)) is not None:
            return match.expand(address)
    return url
