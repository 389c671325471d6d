"""What a job's `image` or `mask` says -> the bytes of a picture: behind an https URL, in a data URI, or plain base64.

What the bytes hold is not looked at here.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from typing import Final

from flux_engine.errors import InputFetchFailed, InvalidInput
from flux_engine.storage.fetch import Fetcher

MAX_BYTES: Final = 20_000_000
TIMEOUT_S: Final = 60.0
URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


class PictureSource:
    """Fetches the pictures of jobs; keeps none."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher

    async def get(self, source: str, field: str) -> bytes:
        """The bytes that `source` names, at most MAX_BYTES. Raises InvalidInput and InputFetchFailed with `field`."""
        if URL.match(source):
            return await self._downloaded(source, field)
        return await asyncio.to_thread(_decoded, source, field)

    async def _downloaded(self, url: str, field: str) -> bytes:
        if not url.lower().startswith("https://"):
            raise InvalidInput(f"the URL in `{field}` must begin with https://", field=field)
        try:
            return await self._fetcher.fetch(url, max_bytes=MAX_BYTES, total_timeout_s=TIMEOUT_S)
        except InputFetchFailed as error:
            message = f"`{field}` could not be loaded: {error.message}"
            raise InputFetchFailed(message, field=field, retryable=error.retryable) from error


def _decoded(source: str, field: str) -> bytes:
    if source[:5].lower() == "data:":
        head, _, source = source.partition(",")
        if not head.lower().endswith(";base64"):
            raise InvalidInput(f"the data URI in `{field}` must be base64, `data:image/png;base64,...`", field=field)
    text = "".join(source.split()).replace("-", "+").replace("_", "/").rstrip("=")
    if len(text) // 4 * 3 > MAX_BYTES:
        raise InputFetchFailed(f"`{field}` has more than {MAX_BYTES} bytes; send a smaller picture", field=field)
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput(f"`{field}` must be an https URL, a data URI or base64 of a picture", field=field) from None
