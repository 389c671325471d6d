"""Base64 as clients write it, and what is none."""

from __future__ import annotations

import base64
import random
from urllib.parse import quote

import pytest

from flux_engine.inputs.inline import inline_bytes, is_data_uri

CONTENT = bytes(range(200, 256)) * 7 + b"\xfb\xef\xbe\xff"  # with `++` and `//` in base64
TEXT = base64.b64encode(CONTENT).decode()


@pytest.mark.parametrize(
    "written",
    [
        TEXT,
        TEXT.rstrip("="),
        base64.urlsafe_b64encode(CONTENT).decode(),
        base64.encodebytes(CONTENT).decode(),
        f"data:application/octet-stream;base64,{TEXT}",
        f"DATA:;BASE64,{TEXT}",
        TEXT.replace("+", " "),
        f"data:image/png;base64,{TEXT.replace('+', ' ')}",
        f"data:image/png; base64 , {TEXT}",
        f"image/png;base64,{TEXT}",
        f";base64,{TEXT}",
        f"base64, {TEXT}",
        quote(TEXT, safe=""),
        quote(quote(TEXT, safe=""), safe=""),
        "data:image/png;base64," + quote(TEXT, safe=""),
        quote(f"data:image/png;base64,{TEXT}", safe=""),
        base64.encodebytes(CONTENT).decode().replace("\n", " "),
        base64.encodebytes(CONTENT).decode().replace("\n", "\r\n"),
        "data:image/png;base64," + base64.encodebytes(CONTENT).decode().replace("\n", "\\n"),
        TEXT.replace("/", "\\/"),
        repr(base64.b64encode(CONTENT)),
        f'"{TEXT}"',
        f"\ufeff{TEXT}",
        "data:image/png," + quote(CONTENT),
    ],
)
def test_every_spelling_gives_the_bytes(written: str) -> None:
    assert inline_bytes(written, max_bytes=len(CONTENT)) == CONTENT
    assert is_data_uri(written) is written.lower().startswith(("data:", "data%3a"))


@pytest.mark.parametrize("length", range(1, 400, 7))
def test_a_blank_is_a_plus_again_whatever_the_length(length: int) -> None:
    content = b"\x89" + random.Random(length).randbytes(length)
    text = base64.b64encode(content).decode()
    blanks = text.rstrip("+").replace("+", " ") + text[len(text.rstrip("+")) :]  # none at the end: texts are stripped
    assert inline_bytes(blanks, max_bytes=401) == content
    lines = base64.encodebytes(content).decode().replace("\n", " ").strip()
    assert inline_bytes(lines, max_bytes=401) == content


def test_one_byte_too_many_is_not_decoded() -> None:
    assert inline_bytes(TEXT, max_bytes=len(CONTENT) - 1) is None


@pytest.mark.parametrize(
    "written", ["data:text/plain,hello", "data:;base64,%%%", "data:;base64,a%b", "not base64!", "AAAAA", "ÄÖ=="]
)
def test_what_is_no_base64_is_refused_without_a_quotation(written: str) -> None:
    with pytest.raises(ValueError, match="base64") as refused:
        inline_bytes(written, max_bytes=1000)
    assert written.rpartition(",")[2] not in str(refused.value)
