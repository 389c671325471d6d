"""What stands in place of a LoRA, told by its first bytes: another kind of file, or a server's answer.

A site that refuses a download often does so with status 200 and a page: to log in, to prove that one is human, to say
that something is not there. `is_answer` tells such a page from a file that the client named by mistake.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

START_BYTES: Final = 16_384  # of a file or page that are looked at
TAR_MAGIC_AT: Final = 257


@dataclass(frozen=True, slots=True)
class OtherContent:
    """What the bytes are, and what to do: clauses for a message.

    `is_answer`: a server said this in place of the file. `asks_for_login`: a token may help. `may_pass`: waiting may.
    """

    what: str
    advice: str
    is_answer: bool = False
    asks_for_login: bool = False
    may_pass: bool = False


TO_SAFETENSORS: Final = "convert it to safetensors and send that"
UNPACK: Final = "unpack it and send the .safetensors file in it"
FILES: Final = (  # where the magic bytes stand, the bytes, what it is, what to do
    (0, b"\x80\x02", "a Python pickle, which can run code", TO_SAFETENSORS),
    (0, b"\x80\x03", "a Python pickle, which can run code", TO_SAFETENSORS),
    (0, b"\x80\x04", "a Python pickle, which can run code", TO_SAFETENSORS),
    (0, b"\x80\x05", "a Python pickle, which can run code", TO_SAFETENSORS),
    (0, b"PK\x03\x04", "a zip archive", UNPACK),
    (0, b"PK\x05\x06", "an empty zip archive", UNPACK),
    (0, b"\x1f\x8b", "a gzip archive", UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (0, b"Rar!", "a RAR archive", UNPACK),
    (0, b"BZh", "a bzip2 archive", UNPACK),
    (0, b"\xfd7zXZ", "an xz archive", UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a Zstandard archive", UNPACK),
    (TAR_MAGIC_AT, b"ustar", "a tar archive", UNPACK),
    (0, b"GGUF", "a GGUF file, a quantised model", "send the LoRA that was made for it as safetensors"),
    (0, b"\x89HDF", "an HDF5 file", TO_SAFETENSORS),
    (0, b"\x93NUMPY", "a NumPy file", TO_SAFETENSORS),
    (0, b"\x89PNG", "a picture (PNG)", "send the LoRA itself: pictures go into `image`"),
    (0, b"\xff\xd8\xff", "a picture (JPEG)", "send the LoRA itself: pictures go into `image`"),
    (0, b"GIF8", "a picture (GIF)", "send the LoRA itself: pictures go into `image`"),
    (8, b"WEBP", "a picture (WebP)", "send the LoRA itself: pictures go into `image`"),
    (4, b"ftyp", "a video or picture", "send the LoRA itself"),
    (0, b"%PDF", "a PDF document", "send the LoRA itself"),
    (0, b"version https://git-lfs", "a Git LFS pointer", "send the file that it stands for: `git lfs pull` fetches it"),
)
PYTORCH: Final = OtherContent("a PyTorch file (.pt, .ckpt, .bin), a pickle that can run code", TO_SAFETENSORS)
EMPTY: Final = OtherContent("empty", "download or upload it again", is_answer=True, may_pass=True)
CHALLENGE: Final = OtherContent(
    "a page that asks whether one is human",
    "try again later, or send the LoRA from the volume, from Hugging Face, or as base64",
    is_answer=True,
    may_pass=True,
)
BUSY: Final = OtherContent("an answer that the server is busy", "try again later", is_answer=True, may_pass=True)
LOGIN: Final = OtherContent("a login page", "use a link that needs no login", is_answer=True, asks_for_login=True)
ERROR: Final = OtherContent("an error in place of the file", "check the address", is_answer=True, asks_for_login=True)
PAGE: Final = OtherContent(
    "a web page", "send the address of the file itself, the one that its download button leads to", is_answer=True
)
TEXT: Final = OtherContent("text", "send the .safetensors file itself", is_answer=True)

ANYWHERE: Final = r"cf-chl|challenge-platform|cf_chl|just a moment\.\.\.|checking your browser|ddos-guard"  # of a page
WORDS: Final = (  # of a short answer or a page's title, the first that fits, in lower case
    (r"captcha|just a moment|are you (a )?(human|robot)|attention required", CHALLENGE),
    (r"too many requests|rate.?limit|temporarily unavailable|try again later|service unavailable|overloaded", BUSY),
    (r"log.?in|sign.?in|password|unauthori[sz]ed|authenticat|access.?denied|forbidden|permission|api.?key", LOGIN),
)
MARKUP: Final = re.compile(r"\s*<(!|\?xml|[a-z]+[ \t\r\n>/])")
PAGE_MARKUP: Final = re.compile(r"<!doctype html|<html|<head|<body")
TITLE: Final = re.compile(r"<title[^>]*>(.{0,500}?)</title>", re.DOTALL)
SHORT_CHARACTERS: Final = 2000


def other_content(start: bytes) -> OtherContent | None:
    """What a file that begins with `start` is; None where nothing is known of it, as for a safetensors file."""
    if not start:
        return EMPTY
    for position, magic, what, advice in FILES:
        if start[position : position + len(magic)] == magic:
            if magic.startswith(b"PK") and b"/data.pkl" in start[:256]:
                return PYTORCH
            return OtherContent(what, advice)
    text = _text(start)
    return _answer(text) if text is not None else None


def _answer(text: str) -> OtherContent:
    """What a server says in place of a file. A menu may say "log in" as well: of a long page the title counts alone."""
    is_page = PAGE_MARKUP.search(text) is not None
    is_data = not is_page and (MARKUP.match(text) is not None or text.lstrip()[:1] in ("{", "["))
    if is_page and re.search(ANYWHERE, text):
        return CHALLENGE
    title = TITLE.search(text)
    telling = text if len(text) <= SHORT_CHARACTERS or not is_page else title[1] if title is not None else ""
    known = next((content for pattern, content in WORDS if re.search(pattern, telling)), None)
    if known is LOGIN and not is_page:
        return ERROR
    if known is not None:
        return known
    if is_page:
        return LOGIN if 'type="password"' in text else PAGE
    return ERROR if is_data else TEXT


def _text(start: bytes) -> str | None:
    """`start` in lower case where it is text in UTF-8 or UTF-16, else None."""
    encoding = "utf-16" if start[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = start[:START_BYTES].decode(encoding, errors="strict")
    except UnicodeDecodeError as error:
        if len(start) - error.start > 4:  # a character may be cut at the end
            return None
        text = start[: error.start].decode(encoding)
    is_printable = all(character.isprintable() or character.isspace() for character in text)
    return text.lower() if is_printable else None
