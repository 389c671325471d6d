"""Base64 as clients write it, and what is none."""

from __future__ import annotations

import base64

import pytest

from flux_engine.inputs.inline import inline_bytes, is_data_uri

CONTENT = bytes(range(200, 256)) * 7
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
    ],
    ids=["plain", "unpadded", "urlsafe", "lines", "data uri", "capitals"],
)
def test_every_spelling_gives_the_bytes(written: str) -> None:
    assert inline_bytes(written, max_bytes=len(CONTENT)) == CONTENT
    assert is_data_uri(written) is written.lower().startswith("data:")


def test_one_byte_too_many_is_not_decoded() -> None:
    assert inline_bytes(TEXT, max_bytes=len(CONTENT) - 1) is None


@pytest.mark.parametrize("written", ["data:text/plain,hello", "data:;base64,%%%", "not base64!", "AAAAA", "ÄÖ=="])
def test_what_is_no_base64_is_refused_without_a_quotation(written: str) -> None:
    with pytest.raises(ValueError, match="base64") as refused:
        inline_bytes(written, max_bytes=1000)
    assert written.rpartition(",")[2] not in str(refused.value)
