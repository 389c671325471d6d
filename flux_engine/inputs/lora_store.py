"""LoraStore: any `path` that a job may name -> a file on the volume and the hash of its bytes.

Downloads go through `fetch`; the hub is asked by huggingface_hub what a revision holds. A hub revision and a Civitai
version never change, so they are fetched once; the file behind a URL may, so it is fetched again after an hour. What
a file holds is not looked at here.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from pydantic import SecretStr

from flux_engine.errors import InputFetchFailed, InvalidInput, StorageFailed
from flux_engine.inputs.lora_cache import LoraCache, hash_file
from flux_engine.inputs.lora_hub import HUB_URL, find_hub_file
from flux_engine.inputs.lora_source import (
    CivitaiLora,
    HubLora,
    InlineLora,
    LoraSource,
    UrlLora,
    VolumeLora,
    parse_source,
)
from flux_engine.net.fetch import Fetcher, Token
from flux_engine.settings import Settings

CIVITAI_URL: Final = "https://civitai.com"
CIVITAI_FILE_HOSTS: Final = (  # where its downloads lead: its own hosts, and its account at a store of files
    *("civitai.com", "*.civitai.com", "*.5ac0637cfd0766c97916cefa3764fbdf.r2.cloudflarestorage.com"),
)
HUB_FILE_HOSTS: Final = ("huggingface.co", "*.huggingface.co", "*.hf.co")
DOWNLOAD_TIMEOUT_S: Final = 900.0
URL_MAX_AGE_S: Final = 3600.0
LORA_FOLDER: Final = "loras"  # of the volume
MAX_HASHES: Final = 4096
FULL: Final = (errno.ENOSPC, errno.EDQUOT)
MAX_INLINE_BYTES: Final = 20_000_000  # the platform's largest job

BeforeDownload = Callable[[], None]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoredLora:
    """A LoRA on this machine's volume."""

    path: Path
    sha256: str


@dataclass(frozen=True, slots=True)
class _Download:
    """A file behind a URL; what it gave within the last `max_age_s` seconds is taken for what it gives now."""

    url: str
    hosts: tuple[str, ...]
    token: Token | None = None
    max_age_s: float | None = None


class LoraStore:
    """Finds, fetches and keeps LoRA files; any number of jobs may ask at once."""

    def __init__(
        self,
        folder: Path,
        *,
        fetcher: Fetcher,
        max_file_bytes: int,
        max_cache_bytes: int,
        hosts: tuple[str, ...],
        hf_token: SecretStr | None = None,
        civitai_token: SecretStr | None = None,
        hub_url: str = HUB_URL,
        civitai_url: str = CIVITAI_URL,
        url_max_age_s: float = URL_MAX_AGE_S,
    ) -> None:
        self._folder = folder
        self._cache = LoraCache(folder, max_bytes=max_cache_bytes)
        self._fetcher = fetcher
        self._max_file_bytes = max_file_bytes
        self._hosts = hosts
        self._hf_token = hf_token
        self._civitai_token = civitai_token
        self._hub_url = hub_url
        self._civitai_url = civitai_url
        self._url_max_age_s = url_max_age_s
        self._hashes: dict[str, tuple[tuple[int, int, int], str]] = {}
        self._flights: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # as long as somebody holds one

    @classmethod
    def from_settings(cls, settings: Settings) -> LoraStore:
        """The store of a worker: the `loras` folder of its volume."""
        return cls(
            settings.model_volume / LORA_FOLDER,
            fetcher=Fetcher(),
            max_file_bytes=settings.lora_max_bytes,
            max_cache_bytes=settings.lora_cache_bytes,
            hosts=settings.lora_hosts,
            hf_token=settings.hf_token,
            civitai_token=settings.civitai_token,
        )

    async def get(self, path: str, *, before_download: BeforeDownload = lambda: None) -> StoredLora:
        """The file that `path`, a form of the contract, names; `before_download` is called before the network is used.

        Raises InvalidInput and InputFetchFailed, both with field `loras`, and StorageFailed where the volume does not
        take the file.
        """
        max_inline_bytes = min(MAX_INLINE_BYTES, self._max_file_bytes)
        source = await asyncio.to_thread(parse_source, path, max_inline_bytes=max_inline_bytes)  # base64 takes its time
        try:
            return await self._get_or_make_room(source, before_download)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else type(error).__name__
            log.error("the volume did not take or give a LoRA: %s", reason)
            advice = "make room on the volume" if error.errno in FULL else "check the volume"
            raise StorageFailed(
                f"the volume did not take or give a LoRA ({reason}); {advice} and send the job again", field="loras"
            ) from error
        except InputFetchFailed as error:
            message = f"a LoRA could not be loaded: {error.message}"
            raise InputFetchFailed(message, field="loras", retryable=error.retryable, status=error.status) from error

    async def _get_or_make_room(self, source: LoraSource, before_download: BeforeDownload) -> StoredLora:
        """`source`; once more, where the volume is full and other files could make room."""
        try:
            return await self._get(source, before_download)
        except OSError as error:
            if error.errno not in FULL or not await asyncio.to_thread(self._cache.make_room, self._max_file_bytes):
                raise
        log.warning("the volume is full: the LoRAs used longest ago made room")
        return await self._get(source, before_download)

    async def _get(self, source: LoraSource, before_download: BeforeDownload) -> StoredLora:
        match source:
            case VolumeLora():
                return await asyncio.to_thread(self._on_volume, source)
            case InlineLora():
                return await asyncio.to_thread(self._inline, source)
            case HubLora():
                return await self._from_hub(source, before_download)
            case CivitaiLora():
                return await self._from_civitai(source, before_download)
            case UrlLora():
                return await self._from_url(source, before_download)

    # ------------------------------------------------------------------------------------------- already here

    def _on_volume(self, source: VolumeLora) -> StoredLora:
        path = self._folder / source.file_name
        if not path.is_file() or path.resolve().parent != self._folder.resolve():
            raise InvalidInput(f"the volume has no LoRA `{source.file_name}` in its folder `loras`", field="loras")
        state = path.stat()
        identity = (state.st_ino, state.st_size, state.st_mtime_ns)
        known = self._hashes.get(source.file_name)
        if known is None or known[0] != identity:
            known = identity, hash_file(path)
            self._hashes[source.file_name] = known
            while len(self._hashes) > MAX_HASHES:  # another thread may be doing the same
                self._hashes.pop(next(iter(self._hashes)), None)
        return StoredLora(path, known[1])

    def _inline(self, source: InlineLora) -> StoredLora:
        sha256 = hashlib.sha256(source.content).hexdigest()
        if (found := self._cache.find(sha256)) is not None:
            return StoredLora(found, sha256)
        with self._cache.partial() as partial:
            partial.write_bytes(source.content)
            return StoredLora(self._cache.store(partial, sha256), sha256)

    # --------------------------------------------------------------------------------------------- fetched

    async def _from_url(self, source: UrlLora, before_download: BeforeDownload) -> StoredLora:
        download = _Download(source.url, self._hosts, max_age_s=self._url_max_age_s)
        return await self._fetched(source.url, download, before_download)

    async def _from_civitai(self, source: CivitaiLora, before_download: BeforeDownload) -> StoredLora:
        url = f"{self._civitai_url}/api/download/models/{source.version_id}"
        token = _token(self._civitai_url, self._civitai_token)
        hosts = (*CIVITAI_FILE_HOSTS, _host(self._civitai_url))
        try:
            return await self._fetched(f"civitai:{source.version_id}", _Download(url, hosts, token), before_download)
        except InputFetchFailed as error:
            if error.status in (404, 410):
                raise InputFetchFailed(
                    f"Civitai has no version {source.version_id}; send the number behind `modelVersionId` in the "
                    "version's URL: the one behind `/models/` is its page"
                ) from error
            if error.status in (401, 403):
                needed = (
                    "set CIVITAI_TOKEN on this endpoint" if token is None else "its owner restricts who may load it"
                )
                raise InputFetchFailed(f"Civitai refuses version {source.version_id}: {needed}") from error
            raise

    async def _from_hub(self, source: HubLora, before_download: BeforeDownload) -> StoredLora:
        before_download()
        file = await asyncio.to_thread(find_hub_file, source, token=self._hf_token, endpoint=self._hub_url)
        if file.num_bytes is not None and file.num_bytes > self._max_file_bytes:
            raise InputFetchFailed(f"it has {file.num_bytes} bytes; this worker takes up to {self._max_file_bytes}")
        if file.sha256 is not None and (found := await asyncio.to_thread(self._cache.find, file.sha256)) is not None:
            return StoredLora(found, file.sha256)
        hosts = (*HUB_FILE_HOSTS, _host(self._hub_url))
        token = _token(self._hub_url, self._hf_token)
        key = f"hub:{source.repo}@{file.commit}:{file.name}"
        return await self._fetched(key, _Download(file.url, hosts, token), before_download)

    async def _fetched(self, key: str, download: _Download, before_download: BeforeDownload) -> StoredLora:
        """What `key` gave before, or the file of `download`; one download at a time for each key."""
        known = await asyncio.to_thread(self._kept, key, download.max_age_s)
        if known is not None:
            return known
        before_download()  # or before the wait for another job's
        flight = self._flights.setdefault(key, asyncio.Lock())
        async with flight:
            known = await asyncio.to_thread(self._kept, key, download.max_age_s)
            if known is not None:
                return known
            with self._cache.partial() as partial:
                fetched = await self._fetcher.fetch_to(
                    partial,
                    download.url,
                    max_bytes=self._max_file_bytes,
                    total_timeout_s=DOWNLOAD_TIMEOUT_S,
                    allowed_hosts=download.hosts,
                    token=download.token,
                )
                path = await asyncio.to_thread(self._cache.store, partial, fetched.sha256)
            await asyncio.to_thread(self._cache.remember, key, fetched.sha256)
            return StoredLora(path, fetched.sha256)

    def _kept(self, key: str, max_age_s: float | None) -> StoredLora | None:
        sha256 = self._cache.known_hash(key, max_age_s=max_age_s)
        path = self._cache.find(sha256) if sha256 is not None else None
        return StoredLora(path, sha256) if path is not None and sha256 is not None else None


def _host(url: str) -> str:
    return urlsplit(url).hostname or ""


def _token(url: str, value: SecretStr | None) -> Token | None:
    return Token(host=_host(url), value=value) if value is not None else None
