"""What a job's `image` or `mask` says -> the bytes of a picture: behind an https URL, in a data URI, or plain base64.

What the bytes hold is not looked at here.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final

from flux_engine.errors import InputFetchFailed, InvalidInput
from flux_engine.inputs.inline import inline_bytes
from flux_engine.net.fetch import Fetcher

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
    try:
        content = inline_bytes(source, max_bytes=MAX_BYTES)
    except ValueError as error:
        message = f"`{field}` must be an https URL, a data URI or base64 of a picture: {error}"
        raise InvalidInput(message, field=field) from None
    if content is None:
        raise InputFetchFailed(f"`{field}` has more than {MAX_BYTES} bytes; send a smaller picture", field=field)
    return content
