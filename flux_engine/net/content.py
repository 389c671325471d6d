"""What a file is by its first bytes, for hosts that send something else in place of the file that was asked for.

A login page, a challenge, an error in JSON and an archive arrive with status 200 like any file. `content_of` says what
it is and what the client can do. The caller knows its own formats and asks only about what is none of them.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final

HEAD_BYTES: Final = 4096  # enough to tell every kind below

_MAGIC: Final = (
    (b"PK\x03\x04", "a zip archive; unpack it and send the file in it"),
    (b"PK\x05\x06", "an empty zip archive; send the file itself"),
    (b"\x1f\x8b", "a gzip archive; unpack it and send the file in it"),
    (b"BZh", "a bzip2 archive; unpack it and send the file in it"),
    (b"\xfd7zXZ\0", "an xz archive; unpack it and send the file in it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it and send the file in it"),
    (b"Rar!\x1a\x07", "a rar archive; unpack it and send the file in it"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive; unpack it and send the file in it"),
    (b"%PDF-", "a PDF document; send the picture in it"),
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer, not the file; send the address of its download"),
    (b"GGUF", "a GGUF model"),
    (b"\x80\x02", "a Python pickle, which can run code when it is read"),
    (b"\x1aE\xdf\xa3", "a WebM or Matroska video; send one picture of it"),
)
_CHALLENGE: Final = (
    *("just a moment", "challenge-platform", "cf-chl", "attention required", "captcha", "verify you are human"),
    *("ddos protection", "checking your browser", "enable javascript and cookies"),
)
_LOGIN: Final = ("log in", "login", "sign in", "signin", "sign-in", "authenticate")
_BUSY: Final = re.compile(
    r"rate.?limit|too many requests|slow.?down|busy|temporar|try again|try later|unavailable|internal.?error|overload"
)
_DENIED: Final = re.compile(
    r"log.?in|sign.?in|unauthori[sz]ed|authenticat|denied|forbidden|permission|token|api.?key|gated|restricted"
)
_SMALL_PAGE: Final = 600  # characters; on a longer one the words may be a link in its navigation
_PAGE: Final = re.compile(r"<(?:!doctype html|html|head|body|title|script|meta)\b", re.IGNORECASE)
_XML_CODE: Final = re.compile(r"<Code>\s*([A-Za-z0-9]{1,60})\s*</Code>")
_TITLE: Final = re.compile(r"<title[^>]*>([^<]{0,200})")
_PLAIN_WORD: Final = re.compile(r"[A-Za-z0-9'-]{1,20}[,;:!?.]?")


@dataclass(frozen=True, slots=True)
class Content:
    """What a file is, such as `a web page that asks for a login; use a link that needs none`.

    The text begins with an article, and where the client can do something, it says so after a semicolon. It quotes a
    short error message of the host at most, and no address.
    `is_answer`: the host says this in place of the file. `asks_for_login`: a token may help. `may_pass`: waiting may.
    """

    text: str
    is_answer: bool = False
    asks_for_login: bool = False
    may_pass: bool = False

    @property
    def what(self) -> str:
        """The text without its advice."""
        return self.text.partition(";")[0]


def named(head: bytes) -> str | None:
    """The text of `content_of`."""
    content = content_of(head)
    return content.text if content is not None else None


def content_of(head: bytes) -> Content | None:
    """What a file that begins with `head` is; None if unknown."""
    if not head:
        return Content("empty; the host sent no bytes", is_answer=True, may_pass=True)
    for magic, what in _MAGIC:
        if head.startswith(magic):
            return Content(what)
    if head[257:262] == b"ustar":
        return Content("a tar archive; unpack it and send the file in it")
    if head[4:8] == b"ftyp" and head[8:12] not in (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1"):
        return Content("an MP4 or QuickTime video; send one picture of it")
    return _text(head)


def _text(head: bytes) -> Content | None:
    try:
        text = head[:HEAD_BYTES].decode("utf-8-sig", "strict" if len(head) < HEAD_BYTES else "ignore")
    except UnicodeDecodeError:
        return None
    if "\0" in text:
        return None
    text = text.lstrip()
    while text.startswith("<!--") and "-->" in text:
        text = text.partition("-->")[2].lstrip()
    if _PAGE.match(text):
        return _page(text.lower())
    if text.startswith("<"):
        return _xml(text)
    return _json(text) if text.startswith(("{", "[")) else None


def _xml(text: str) -> Content:
    if "<svg" in text:
        return Content("an SVG drawing; save it as PNG and send that")
    code = _XML_CODE.search(text)
    if code is None:
        return Content("an XML document; send the file itself")
    return _error(f"an error in XML ({code[1]}); use a working link", code[1])


def _page(lower: str) -> Content:
    if any(word in lower for word in _CHALLENGE):
        return Content(
            "a web page that checks for a human (a challenge), so the host blocks downloads; use another host",
            is_answer=True,
            may_pass=True,
        )
    title = _TITLE.search(lower)
    is_about = lower if len(lower) < _SMALL_PAGE else title[1] if title else ""
    if 'type="password"' in lower or any(word in is_about for word in _LOGIN):
        text = "a web page that asks for a login; use a link that needs none"
        return Content(text, is_answer=True, asks_for_login=True)
    return Content("a web page (HTML), not the file; send the address of the file itself", is_answer=True)


def _json(text: str) -> Content:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return Content("JSON text, not the file", is_answer=True)
    while isinstance(found, dict):
        found = next((found[name] for name in ("error", "message", "detail", "msg") if found.get(name)), None)
    said = _plain(found) if isinstance(found, str) else ""
    return _error(f'JSON text that says "{said}", not the file' if said else "JSON text, not the file", text)


def _error(text: str, said: str) -> Content:
    """An error of the host, whose words `said` tell whether a token or waiting may help."""
    lower = said.lower()
    may_pass = _BUSY.search(lower) is not None
    return Content(text, True, asks_for_login=not may_pass and _DENIED.search(lower) is not None, may_pass=may_pass)


def _plain(message: str) -> str:
    """The words of a host's message without addresses, paths and keys."""
    words = message[:200].split()
    return " ".join(word if _PLAIN_WORD.fullmatch(word) else "..." for word in words)[:100]
