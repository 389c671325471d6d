"""Put a model in a single file on the volume, checked and hashed, under the name that jobs and FLUX_MODEL use.

A file of the hub is checked against the hub's own hash; one of Civitai or of an https URL comes from the hosts that
LORA_HOSTS allows. Whatever comes is looked at before it gets its name: what is no FLUX model is named and removed.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from flux_engine.errors import FluxError, ModelUnavailable
from flux_engine.inputs.lora_hub import find_hub_file
from flux_engine.inputs.lora_sites import Download, LoraSites
from flux_engine.inputs.lora_source import CivitaiLora, HubLora, UrlLora
from flux_engine.models.single_file.content import keep_hash
from flux_engine.models.single_file.model_file import read_model_file
from flux_engine.models.single_file.places import CIVITAI, HUB, NAME, SUFFIXES
from flux_engine.net.content import HEAD_BYTES, content_of
from flux_engine.net.fetch import Fetched, Fetcher
from flux_engine.net.pages import file_address
from flux_engine.units import GIB

MAX_BYTES: Final = 200 * GIB
MAX_S: Final = 12 * 3600.0


class FetchError(Exception):
    """The model cannot be put on the volume; the text says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchedFile:
    """Where the file is, and what FLUX_MODEL and `model` of a job call it."""

    path: Path
    name: str


def means_file(source: str) -> bool:
    """Whether `source` is an https URL, `civitai:VERSION` or `owner/repo:file`."""
    return "://" in source or CIVITAI.fullmatch(source) is not None or HUB.fullmatch(source) is not None


def fetch_file(
    source: str,
    volume: Path,
    *,
    sites: LoraSites,
    revision: str = "main",
    force: bool = False,
    fetcher: Fetcher | None = None,
) -> FetchedFile:
    """Download the file that `source` means. Raises FetchError."""
    try:
        wanted = _wanted(source, volume, sites, revision)
    except FluxError as error:
        raise FetchError(error.message) from error
    if (found := wanted.found()) is not None and not force:
        return found
    partial = wanted.folder / f".{wanted.stem.replace('/', '_')}.partial"
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        fetched = asyncio.run(_download(wanted.download, partial, fetcher or Fetcher()))
        return _accepted(wanted, partial, fetched, volume)
    except OSError as error:
        free = shutil.disk_usage(volume).free / GIB
        raise FetchError(f"the file cannot be written ({free:.1f} GiB are free); enlarge the volume") from error
    finally:
        partial.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """A file to fetch: from where, and where to. `name` is None where it is the file's own on the volume."""

    download: Download
    folder: Path
    stem: str  # without a suffix where only the file's bytes tell which
    sha256: str | None = None
    name: str | None = None

    def found(self) -> FetchedFile | None:
        """The file, if it is there already."""
        places = (self.folder / f"{self.stem}{suffix}" for suffix in ("", *SUFFIXES))
        path = next((place for place in places if place.is_file()), None)
        return FetchedFile(path=path, name=self.name or path.name) if path is not None else None


def _wanted(source: str, volume: Path, sites: LoraSites, revision: str) -> _Wanted:
    """Raises FetchError, and what the hub refuses with."""
    if (civitai := CIVITAI.fullmatch(source)) is not None:
        version = int(civitai["version"])
        return _Wanted(
            download=sites.of_civitai(CivitaiLora(version)),
            folder=volume / "models",
            stem=f"civitai-{version}",
            name=source,
        )
    if (hub := HUB.fullmatch(source)) is not None:
        file = find_hub_file(HubLora(hub["repo"], revision, hub["file"]), token=sites.hf_token, endpoint=sites.hub_url)
        return _Wanted(
            download=sites.of_hub(hub["repo"], file),
            folder=volume / "models" / hub["repo"].replace("/", "--"),
            stem=hub["file"],
            sha256=file.sha256,
            name=source,
        )
    if not source.lower().startswith("https://"):
        raise FetchError("an address must begin with https://")
    stem = unquote(urlsplit(source).path).rpartition("/")[2]
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.")
    if NAME.fullmatch(stem) is None:
        raise FetchError("the address names no file; give the address of the file itself")
    return _Wanted(
        download=sites.of_url(UrlLora(file_address(source)), max_age_s=0), folder=volume / "models", stem=stem
    )


async def _download(download: Download, partial: Path, fetcher: Fetcher) -> Fetched:
    try:
        return await fetcher.fetch_to(
            partial,
            download.url,
            max_bytes=MAX_BYTES,
            total_timeout_s=MAX_S,
            allowed_hosts=download.hosts,
            token=download.token,
        )
    except FluxError as error:
        refused = download.refused(error) if hasattr(error, "status") else error  # type: ignore[arg-type]
        raise FetchError(refused.message) from error


def _accepted(wanted: _Wanted, partial: Path, fetched: Fetched, volume: Path) -> FetchedFile:
    """The file under its name, once it is known to be whole and a model. Raises FetchError."""
    if wanted.sha256 is not None and fetched.sha256 != wanted.sha256:
        raise FetchError("the file is damaged and was removed; the same command fetches it again")
    with partial.open("rb") as file:
        start = file.read(HEAD_BYTES)
    if (content := content_of(start)) is not None and content.is_answer:
        raise FetchError(wanted.download.got(content).message)
    suffix = ".gguf" if start.startswith(b"GGUF") else ".safetensors"
    path = wanted.folder / (wanted.stem if wanted.stem.endswith(SUFFIXES) else f"{wanted.stem}{suffix}")
    try:
        read_model_file(partial, name=path.name)
    except ModelUnavailable as fault:
        raise FetchError(fault.message) from fault
    path.parent.mkdir(parents=True, exist_ok=True)
    os.replace(partial, path)
    keep_hash(path, fetched.sha256, volume=volume)
    return FetchedFile(path=path, name=wanted.name or path.name)
