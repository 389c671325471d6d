"""Bytes that came with the job, in a data URI or plain base64, in the spellings that clients and their detours produce.

Both alphabets, line breaks and missing padding are read. A form or a query turns `+` into a blank and percent-encodes
the rest; a script sends Python's `b'...'` or JSON's `\\/`. All of these mean the same bytes.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final
from urllib.parse import unquote, unquote_to_bytes

SCHEME: Final = "data:"

_ENCODED_SCHEME: Final = "data%3a"
_MAX_UNQUOTED: Final = 2  # times that a text went through a form
_HEADLESS: Final = re.compile(r"(?:[\w.+-]{1,64}/[\w.+-]{1,64})?;?\s*base64\s*,", re.IGNORECASE)  # cut at `:` or `;`
_QUOTATION: Final = re.compile(r"""b?(['"])(.*)\1""", re.DOTALL)
_LINE_END: Final = re.compile(r"[\t\r\n\f\v]+|\\[rn]")  # `\n` as two characters: JSON encoded twice
_BLANKS: Final = re.compile(r" +")
_INVISIBLE: Final = str.maketrans(dict.fromkeys("\ufeff\u200b"))


def is_data_uri(text: str) -> bool:
    return text[: len(SCHEME)].lower() == SCHEME or text[: len(_ENCODED_SCHEME)].lower() == _ENCODED_SCHEME


def inline_bytes(text: str, *, max_bytes: int) -> bytes | None:
    """The bytes that `text` holds; None where they exceed `max_bytes`.

    Raises ValueError where it is not base64; the text says what is wrong and quotes nothing.
    """
    text = _bare(text)
    if is_data_uri(text):
        head, _, text = _unquoted_scheme(text).partition(",")
        if not re.search(r";\s*base64\s*$", head, re.IGNORECASE):
            return _percent_encoded(text, max_bytes)
    elif (headless := _HEADLESS.match(text)) is not None:
        text = text[headless.end() :]
    plain = _plain_base64(text)
    if len(plain) * 3 // 4 > max_bytes:
        return None
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("its base64 is broken off or misspelt; encode the file's bytes again") from None


def _bare(text: str) -> str:
    """`text` without quotation marks around it and invisible characters at its ends."""
    text = text.strip("\ufeff\u200b \t\r\n")
    if text[-1:] in ("'", '"') and (quoted := _QUOTATION.fullmatch(text)) is not None:
        return quoted[2]
    return text


def _unquoted_scheme(text: str) -> str:
    return unquote(text) if text[: len(_ENCODED_SCHEME)].lower() == _ENCODED_SCHEME else text


def _percent_encoded(text: str, max_bytes: int) -> bytes | None:
    """The body of a data URI without base64: bytes percent-encoded, as RFC 2397 has them."""
    if "%" not in text:
        raise ValueError("a data URI must be base64, `data:image/png;base64,...`")
    if len(text) - 2 * text.count("%") > max_bytes:
        return None
    return unquote_to_bytes(text)


def _plain_base64(text: str) -> str:
    """The standard alphabet alone, without blanks and padding."""
    for _ in range(_MAX_UNQUOTED):
        if "%" in text:
            text = unquote(text)
    text = _LINE_END.sub("", text).replace("\\/", "/").translate(_INVISIBLE).strip()
    if " " in text:
        text = _without_blanks(text)
    return text.replace("-", "+").replace("_", "/").rstrip("=")


def _without_blanks(text: str) -> str:
    """A blank is the `+` that a form or query made of it, unless blanks stand where lines of one length break."""
    lines = _BLANKS.split(text)
    width = len(lines[0])
    if width % 4 == 0 and all(len(line) == width for line in lines[:-1]) and 0 < len(lines[-1]) <= width:
        return "".join(lines)
    return text.replace(" ", "+")
