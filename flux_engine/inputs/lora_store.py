"""LoraStore: any `path` that a job may name -> a file on the volume and the hash of its bytes.

    stored = await LoraStore.from_settings(settings).get("owner/name")

A hub commit and a Civitai version never change, so they are fetched once; the file behind a URL may, so it is fetched
again after an hour. Only what is a LoRA, by its bytes and its tensors' names, is kept and remembered: a login page, an
error or an archive is refused, and the next job asks the site again.
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
from weakref import WeakValueDictionary

from flux_engine.errors import InputFetchFailed, LoraInvalid, StorageFailed
from flux_engine.inputs.lora_archive import Workspace, check_lora, lacks_alpha, lora_in, with_adapter_config
from flux_engine.inputs.lora_cache import LoraCache, hash_file
from flux_engine.inputs.lora_content import START_BYTES, other_content
from flux_engine.inputs.lora_hub import find_hub_file
from flux_engine.inputs.lora_sites import Download, LoraSites
from flux_engine.inputs.lora_source import CivitaiLora, HubLora, InlineLora, LoraSource, VolumeLora, parse_source
from flux_engine.inputs.lora_volume import LoraVolume, StoredLora
from flux_engine.inputs.safetensors_header import Header
from flux_engine.net.fetch import Fetcher
from flux_engine.settings import Settings

DOWNLOAD_TIMEOUT_S: Final = 900.0
CONFIG_TIMEOUT_S: Final = 30.0
MAX_CONFIG_BYTES: Final = 500_000
URL_MAX_AGE_S: Final = 3600.0
LORA_FOLDER: Final = "loras"  # on the volume
MAX_CHECKED: Final = 4096
FULL: Final = (errno.ENOSPC, errno.EDQUOT)
MAX_INLINE_BYTES: Final = 20_000_000  # the platform's largest job

BeforeDownload = Callable[[], None]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraLimits:
    """The largest file, what is kept on the volume, and how old a URL's file may be."""

    max_file_bytes: int
    max_cache_bytes: int
    url_max_age_s: float = URL_MAX_AGE_S


class LoraStore:
    """Finds, fetches and keeps LoRA files; any number of jobs may ask at once."""

    def __init__(self, folder: Path, *, fetcher: Fetcher, limits: LoraLimits, sites: LoraSites) -> None:
        self._volume = LoraVolume(folder)
        self._cache = LoraCache(folder, max_bytes=limits.max_cache_bytes)
        self._fetcher = fetcher
        self._limits = limits
        self._sites = sites
        self._checked: dict[str, None] = {}  # hashes of files known to be LoRAs
        self._flights: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # kept while somebody holds one

    @classmethod
    def from_settings(cls, settings: Settings) -> LoraStore:
        """The store of a worker: the `loras` folder of its volume."""
        return cls(
            settings.model_volume / LORA_FOLDER,
            fetcher=Fetcher(),
            limits=LoraLimits(
                max_file_bytes=settings.lora_max_bytes,
                max_cache_bytes=settings.lora_cache_bytes,
            ),
            sites=LoraSites.from_settings(settings),
        )

    async def get(self, path: str, *, before_download: BeforeDownload = lambda: None) -> StoredLora:
        """The file that `path`, a form of the contract, names; `before_download` is called before the network is used.

        Raises InvalidInput, InputFetchFailed and LoraInvalid with field `loras`, and StorageFailed if the volume cannot
        be read or written.
        """
        max_inline_bytes = min(MAX_INLINE_BYTES, self._limits.max_file_bytes)
        source = await asyncio.to_thread(parse_source, path, max_inline_bytes=max_inline_bytes)  # base64 takes its time
        try:
            return await self._get_or_make_room(source, before_download)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else type(error).__name__
            log.error("could not read or write a LoRA on the volume", extra={"detail": reason})
            advice = "make room on the volume" if error.errno in FULL else "check the volume"
            raise StorageFailed(
                f"could not read or write a LoRA on the volume ({reason}); {advice} and send the job again",
                field="loras",
            ) from error
        except InputFetchFailed as error:
            message = f"a LoRA could not be loaded: {error.message}"
            raise InputFetchFailed(message, field="loras", retryable=error.retryable, status=error.status) from error

    async def _get_or_make_room(self, source: LoraSource, before_download: BeforeDownload) -> StoredLora:
        """`source`; on a full volume once more, if removing other files makes room."""
        try:
            return await self._get(source, before_download)
        except OSError as error:
            if error.errno not in FULL:
                raise
            if not await asyncio.to_thread(self._cache.make_room, self._limits.max_file_bytes):
                raise
        log.warning("volume full: removed the least recently used LoRAs")
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
                return await self._fetched(self._sites.of_civitai(source), before_download)
            case _:
                return await self._fetched(self._sites.of_url(source, self._limits.url_max_age_s), before_download)

    # --------------------------------------------------------------------------------------------- without a download

    def _on_volume(self, source: VolumeLora) -> StoredLora:
        found = self._volume.find(source)
        if found is None:
            raise self._volume.missing(source)
        return found

    def _inline(self, source: InlineLora) -> StoredLora:
        sha256 = hashlib.sha256(source.content).hexdigest()
        if (found := self._kept(sha256)) is not None:
            return found
        with self._cache.partial() as partial:
            partial.write_bytes(source.content)
            check_lora(partial, max_bytes=self._limits.max_file_bytes)
            return StoredLora(self._cache.store(partial, sha256), sha256)

    # --------------------------------------------------------------------------------------------- fetched

    async def _from_hub(self, source: HubLora, before_download: BeforeDownload) -> StoredLora:
        if source.on_volume is not None:
            on_volume = await asyncio.to_thread(self._volume.find, source.on_volume)
            if on_volume is not None:
                return on_volume
        before_download()
        file = await asyncio.to_thread(find_hub_file, source, token=self._sites.hf_token, endpoint=self._sites.hub_url)
        if file.num_bytes is not None and file.num_bytes > self._limits.max_file_bytes:
            raise InputFetchFailed(
                f"it has {file.num_bytes} bytes; this worker takes up to {self._limits.max_file_bytes}"
            )
        if file.sha256 is not None and file.config_url is None:
            found = await asyncio.to_thread(self._kept, file.sha256)
            if found is not None:
                return found
        return await self._fetched(self._sites.of_hub(source.repo, file), before_download)

    async def _fetched(self, download: Download, before_download: BeforeDownload) -> StoredLora:
        """What `download` gave before, or the file behind its URL; one download at a time for each key."""
        known = await asyncio.to_thread(self._remembered, download)
        if known is not None:
            return known
        before_download()
        flight = self._flights.setdefault(download.key, asyncio.Lock())
        async with flight:
            known = await asyncio.to_thread(self._remembered, download)
            if known is not None:
                return known
            with self._cache.partial() as partial, self._cache.partial() as spare:
                stored = await self._downloaded(download, partial, spare)
            await asyncio.to_thread(self._cache.remember, download.key, stored.sha256)
            return stored

    async def _downloaded(self, download: Download, partial: Path, spare: Path) -> StoredLora:
        try:
            fetched = await self._fetcher.fetch_to(
                partial,
                download.url,
                max_bytes=self._limits.max_file_bytes,
                total_timeout_s=DOWNLOAD_TIMEOUT_S,
                allowed_hosts=download.hosts,
                token=download.token,
            )
        except InputFetchFailed as error:
            raise download.refused(error) from error
        workspace = Workspace(partial, spare, self._limits.max_file_bytes)
        lora, header = await asyncio.to_thread(_lora_in, workspace, download)
        config = await self._config(download, header)
        if config is not None:
            lora = await asyncio.to_thread(with_adapter_config, lora, header, config)
        sha256 = fetched.sha256 if lora is workspace else None  # the very bytes that were fetched
        return await asyncio.to_thread(self._stored, lora.file, sha256)

    async def _config(self, download: Download, header: Header) -> bytes | None:
        """PEFT's config beside a file that does not say how strongly the LoRA acts; None if there is none."""
        if download.config_url is None or not await asyncio.to_thread(lacks_alpha, header):
            return None
        try:
            return await self._fetcher.fetch(
                download.config_url,
                max_bytes=MAX_CONFIG_BYTES,
                total_timeout_s=CONFIG_TIMEOUT_S,
                allowed_hosts=download.hosts,
                token=download.token,
            )
        except InputFetchFailed as error:
            if error.retryable:
                raise
            return None

    # --------------------------------------------------------------------------------------------- kept

    def _stored(self, file: Path, sha256: str | None) -> StoredLora:
        """Keep a file that was checked; without `sha256` it is hashed first."""
        sha256 = sha256 or hash_file(file)
        return StoredLora(self._cache.store(file, sha256), sha256)

    def _remembered(self, download: Download) -> StoredLora | None:
        sha256 = self._cache.known_hash(download.key, max_age_s=download.max_age_s)
        return self._kept(sha256) if sha256 is not None else None

    def _kept(self, sha256: str) -> StoredLora | None:
        """The file with this hash. One that is no LoRA, as older versions kept login pages, is removed."""
        path = self._cache.find(sha256)
        if path is None:
            return None
        if sha256 not in self._checked:
            try:
                check_lora(path, max_bytes=self._limits.max_file_bytes)
            except LoraInvalid:
                log.warning("removed a file from the LoRA cache that is no LoRA")
                self._cache.discard(sha256)
                return None
            except FileNotFoundError:  # another worker has made room since
                return None
            self._checked[sha256] = None
            while len(self._checked) > MAX_CHECKED:  # another thread may be doing the same
                self._checked.pop(next(iter(self._checked)), None)
        return StoredLora(path, sha256)


def _lora_in(workspace: Workspace, download: Download) -> tuple[Workspace, Header]:
    """The LoRA in what was downloaded, and its header."""
    with workspace.file.open("rb") as file:
        content = other_content(file.read(START_BYTES))
    if content is not None and content.is_answer:
        raise download.got(content)
    return lora_in(workspace)
