"""The files of finished tasks: taken from what a worker returns, kept in the gateway's own store, read back.

A worker returns files inline or as links, for as long as its queue keeps them (RunPod: 30 minutes). Here they are
stored under their content's hash, in the bucket that the workers use as well, or in a folder, until their task expires.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import io
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpx2
from PIL import Image

from flux_engine.errors import Internal, StorageFailed
from flux_engine.job.formats import CONTENT_TYPES
from flux_engine.media.decode import DAMAGED
from flux_engine.results.entry import CacheEntry, StoredFile
from flux_engine.results.store import ResultStore, object_key, read_unless_gone

EXTENSIONS: Final = {content_type: name for name, content_type in CONTENT_TYPES.items()}
HELD_BYTES: Final = 64 * 1024**2  # the files read last: players ask for them in ranges
MAX_FILE_BYTES: Final = 256 * 1024**2
DOWNLOAD_S: Final = 60.0
BROKEN: Final = "the worker's result cannot be read; send the job again"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Adopted:
    """A worker's result: its files as they are stored now, and the rest of it."""

    files: tuple[StoredFile, ...]
    thumbnail: StoredFile | None
    result: Mapping[str, Any]

    def as_json(self) -> tuple[dict[str, Any], ...]:
        return files_json(self.files, self.thumbnail)


def files_json(files: Sequence[StoredFile], thumbnail: StoredFile | None) -> tuple[dict[str, Any], ...]:
    """As a task keeps them: the thumbnail last, and marked."""
    said = [file.model_dump(exclude_none=True) for file in files]
    if thumbnail is not None:
        said.append(thumbnail.model_dump(exclude_none=True) | {"is_thumbnail": True})
    return tuple(said)


class Results:
    """See the module."""

    def __init__(self, store: ResultStore) -> None:
        self.store: Final = store
        self._held: OrderedDict[str, bytes] = OrderedDict()
        self._held_bytes = 0
        self._client: httpx2.AsyncClient | None = None

    async def adopt(self, output: Mapping[str, Any]) -> Adopted:
        """Store what `output`, a worker's result, names. Raises StorageFailed, and Internal where it is none."""
        try:
            items = [output["video"]] if "video" in output else list(output["images"])
            files = [await self._stored(item) for item in items]
            thumbnail = None
            if isinstance(output.get("thumbnail"), Mapping):
                thumbnail = await self._thumbnail(output["thumbnail"], seed=files[0].seed)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise Internal(BROKEN) from error
        rest = {name: value for name, value in output.items() if name not in ("images", "video", "thumbnail")}
        return Adopted(tuple(files), thumbnail, rest)

    async def has(self, entry: CacheEntry) -> bool:
        """Whether every file of `entry` is here. A store that does not say counts as no."""
        try:
            looks = [self.store.exists(stored.key, size=stored.bytes) for stored in entry.objects()]
            return all(found is True for found in await asyncio.gather(*looks))
        except StorageFailed:
            return False

    async def read(self, file: Mapping[str, Any]) -> bytes | None:
        """A file's bytes, None where it is gone. Raises StorageFailed where the store does not answer."""
        key = str(file["key"])
        data = self._held.get(key)
        if data is None:
            size, sha256 = int(file["bytes"]), str(file["sha256"])
            data = await read_unless_gone(self.store, key, size=size, sha256=sha256)
            if data is not None:
                self._hold(key, data)
        else:
            self._held.move_to_end(key)
        return data

    async def forget(self, key: str) -> None:
        """Delete a file. Raises StorageFailed."""
        data = self._held.pop(key, None)
        self._held_bytes -= len(data) if data is not None else 0
        await self.store.delete(key)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
        self.store.close()

    async def _stored(self, item: Mapping[str, Any]) -> StoredFile:
        facts = {name: item[name] for name in StoredFile.model_fields if name in item and name != "key"}
        key = object_key(self.store.prefix, str(item["sha256"]), EXTENSIONS[str(item["content_type"])])
        stored = StoredFile(key=key, **facts)
        if "b64_json" not in item and await self._is_there(stored):
            return stored
        data = await self._bytes_of(item)
        if len(data) != stored.bytes or hashlib.sha256(data).hexdigest() != stored.sha256:
            raise Internal("the worker's result was damaged on its way; send the job again")
        await self.store.put(data, key=key, content_type=stored.content_type)
        self._hold(key, data)
        return stored

    async def _thumbnail(self, item: Mapping[str, Any], *, seed: int) -> StoredFile | None:
        """None where it is damaged: the video is there all the same."""
        data = await self._bytes_of(item)
        try:
            with Image.open(io.BytesIO(data), formats=("WEBP",)) as picture:
                width, height = picture.size
        except DAMAGED:
            log.warning("the thumbnail of a worker's video cannot be read and is left out")
            return None
        sha256 = hashlib.sha256(data).hexdigest()
        key = object_key(self.store.prefix, sha256, "webp")
        await self.store.put(data, key=key, content_type="image/webp")
        return StoredFile(
            key=key, sha256=sha256, bytes=len(data), content_type="image/webp", width=width, height=height, seed=seed
        )

    async def _is_there(self, stored: StoredFile) -> bool:
        return await self.store.exists(stored.key, size=stored.bytes) is True

    async def _bytes_of(self, item: Mapping[str, Any]) -> bytes:
        if "b64_json" in item:
            try:
                return base64.b64decode(item["b64_json"], validate=True)
            except binascii.Error as error:
                raise Internal(BROKEN) from error
        return await self._downloaded(str(item["url"]))

    async def _downloaded(self, url: str) -> bytes:
        """The file behind a link of our own worker's, where it keeps its files elsewhere."""
        if self._client is None:
            self._client = httpx2.AsyncClient(timeout=DOWNLOAD_S, follow_redirects=False, trust_env=False)
        parts: list[bytes] = []
        size = 0
        try:
            async with self._client.stream("GET", url) as response:
                if response.status_code != 200:
                    raise StorageFailed("the worker's result is not where its link leads; send the job again")
                async for part in response.aiter_bytes():
                    size += len(part)
                    if size > MAX_FILE_BYTES:
                        raise StorageFailed("the worker's result is larger than the gateway takes")
                    parts.append(part)
        except httpx2.HTTPError as error:
            raise StorageFailed("the worker's result could not be fetched; send the job again") from error
        return b"".join(parts)

    def _hold(self, key: str, data: bytes) -> None:
        if key in self._held or len(data) > HELD_BYTES // 4:
            return
        self._held[key] = data
        self._held_bytes += len(data)
        while self._held_bytes > HELD_BYTES:
            _, gone = self._held.popitem(last=False)
            self._held_bytes -= len(gone)
