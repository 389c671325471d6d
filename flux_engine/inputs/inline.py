"""Bytes that came with the job, in a data URI or plain base64.

Both alphabets, line breaks and left-out padding are taken: clients of many languages write them.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

SCHEME: Final = "data:"


def is_data_uri(text: str) -> bool:
    return text[: len(SCHEME)].lower() == SCHEME


def inline_bytes(text: str, *, max_bytes: int) -> bytes | None:
    """The bytes that `text` holds; None where they are more than `max_bytes`.

    Raises ValueError where it is no base64, whose text says what is wrong and quotes nothing.
    """
    if is_data_uri(text):
        head, _, text = text.partition(",")
        if not head.lower().endswith(";base64"):
            raise ValueError("a data URI must be base64, `data:application/octet-stream;base64,...`")
    plain = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
    if len(plain) * 3 // 4 > max_bytes:
        return None
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("its base64 is broken off or misspelt") from None
