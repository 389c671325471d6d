"""The bytes of a picture that a job names: behind an https URL, in a data URI, or in plain base64.

What is certainly no picture, such as a login page, is refused here by its name; decoding is media/decode.py's.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from typing import Final

from flux_engine.errors import InputFetchFailed, InvalidInput
from flux_engine.inputs.inline import inline_bytes
from flux_engine.media.decode import announced_pixels
from flux_engine.net.content import HEAD_BYTES, named
from flux_engine.net.fetch import Fetcher
from flux_engine.net.pages import file_address

MAX_BYTES: Final = 20_000_000
MAX_SUM_BYTES: Final = 60_000_000  # of all pictures of a job
MAX_SUM_PIXELS: Final = 48_000_000  # 144 MB decoded
TIMEOUT_S: Final = 60.0
MAX_PATH_CHARACTERS: Final = 512

_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_MISTAKES: Final = (  # what is often sent in place of a URL or base64, and what to do
    (re.compile(r"(?:www\.)?[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}/\S*"), "put https:// in front of it"),
    (re.compile(r"//\S+"), "put https: in front of it"),
    (re.compile(r"blob:\S+"), "a blob: address works in your browser alone; send the bytes in base64"),
    (
        re.compile(
            r"(?:[A-Za-z]:\\|[.~]{0,2}/|\\\\).{0,300}\.[A-Za-z0-9]{2,5}|[^/\s]{1,100}\.(?:png|jpe?g|webp|gif|avif)"
        ),
        "a path on your computer cannot be opened here; send the file's bytes in base64 or a URL",
    ),
)


class PictureSum:
    """What the pictures of one job amount to together; they are read in several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes = self._pixels = 0

    def add(self, data: bytes, field: str) -> None:
        """Count a picture before it is decoded. Raises InputFetchFailed where it is one too many."""
        pixels = announced_pixels(data)
        with self._lock:
            self._bytes += len(data)
            self._pixels += pixels
            if self._bytes > MAX_SUM_BYTES:
                raise InputFetchFailed(
                    f"the pictures of this job have more than {MAX_SUM_BYTES / 1e6:.0f} MB together; send smaller ones",
                    field=field.partition("[")[0],
                )
            if self._pixels > MAX_SUM_PIXELS:
                raise InputFetchFailed(
                    f"the pictures of this job have more than {MAX_SUM_PIXELS / 1e6:.0f} megapixels together; send "
                    "smaller ones, since a model looks at about one of each",
                    field=field.partition("[")[0],
                )


class PictureSource:
    """Fetches the pictures of jobs; keeps none."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher

    async def get(self, source: str, field: str, *, before_download: Callable[[], None] = lambda: None) -> bytes:
        """The bytes that `source` names, at most MAX_BYTES; `before_download` is called before the network is used.

        Raises InvalidInput and InputFetchFailed with `field`.
        """
        if not is_address(source):
            return await asyncio.to_thread(inline_picture, source, field)
        before_download()
        return _unless_known(await self._downloaded(source, field), field)

    async def _downloaded(self, url: str, field: str) -> bytes:
        address = picture_address(url, field)
        try:
            return await self._fetcher.fetch(address, max_bytes=MAX_BYTES, total_timeout_s=TIMEOUT_S)
        except InputFetchFailed as error:
            message = f"`{field}` could not be loaded: {error.message}"
            raise InputFetchFailed(message, field=field, retryable=error.retryable, status=error.status) from error


def is_address(source: str) -> bool:
    """Whether `source` names an address, and is not the picture itself."""
    return _URL.match(source) is not None


def picture_address(url: str, field: str) -> str:
    """The address of the file behind `url`, which may be that of a page about it. Raises InvalidInput."""
    if not url.lower().startswith("https://"):
        raise InvalidInput(f"the URL in `{field}` must begin with https://", field=field)
    return file_address(url)


def inline_picture(source: str, field: str) -> bytes:
    """The bytes in `source`, which is no address. Raises InvalidInput and InputFetchFailed."""
    if len(source) <= MAX_PATH_CHARACTERS:
        for pattern, advice in _MISTAKES:
            if pattern.fullmatch(source):
                raise InvalidInput(f"`{field}` is neither a URL nor base64: {advice}", field=field)
    try:
        content = inline_bytes(source, max_bytes=MAX_BYTES)
    except ValueError as error:
        message = f"`{field}` must be an https URL, a data URI or base64 of a picture: {error}"
        raise InvalidInput(message, field=field) from None
    if content is None:
        raise InputFetchFailed(f"`{field}` has more than {MAX_BYTES} bytes; send a smaller picture", field=field)
    if not content:
        raise InvalidInput(f"`{field}` is a data URI without bytes; send the picture's behind the comma", field=field)
    return _unless_known(content, field)


def _unless_known(data: bytes, field: str) -> bytes:
    """`data`, unless it is certainly no picture. Raises InvalidInput."""
    if (what := named(data[:HEAD_BYTES])) is not None:
        raise InvalidInput(f"`{field}` is no picture: it is {what}", field=field)
    return data
