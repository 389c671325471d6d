"""All inputs of a job, fetched side by side: its LoRAs on the volume and its pictures decoded.

Hashes identify every input by its content, for the fingerprint.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from flux_engine.errors import FluxError
from flux_engine.inputs.lora_store import LoraStore
from flux_engine.inputs.lora_volume import StoredLora
from flux_engine.inputs.pictures import PictureSource, PictureSum
from flux_engine.inputs.upscalers import Upscaler, Upscalers
from flux_engine.job.base import CONTROL, REFERENCES, SOURCES, Job, JsonObject
from flux_engine.job.image import ImageJob
from flux_engine.media.decode import Decoded, Pictures, decode_picture
from flux_engine.media.mask import Mask, as_large_as, decode_mask

BY_THE_MODEL: Final = "tiles"  # in place of an upscaler's hash, in the fingerprint


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInputs:
    """The LoRAs of a job in its order, its pictures, their content hashes by field, and warnings about them.

    `files` are the pictures by field as they came, where they are kept: they may hold a manifest of their own.
    """

    loras: tuple[StoredLora, ...] = ()
    pictures: Pictures = field(default_factory=Pictures)
    picture_hashes: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    upscaler: Upscaler | None = None  # that of the volume, for a job that is enlarged

    def content(self, job: Job) -> JsonObject:
        """The content hashes of what the job's parameters only name, for the fingerprint."""
        named: JsonObject = dict(self.picture_hashes)
        if self.loras:
            pairs = zip(self.loras, job.loras, strict=True)
            named["loras"] = [{"sha256": stored.sha256, "scale": asked.scale} for stored, asked in pairs]
        if isinstance(job, ImageJob) and job.control is not None:
            pairs_of_maps = zip(job.control, self.picture_hashes[CONTROL], strict=True)
            named[CONTROL] = [control.shown() | {"image": sha256} for control, sha256 in pairs_of_maps]
        if isinstance(job, ImageJob) and job.upscale is not None:
            named["upscaler"] = BY_THE_MODEL if self.upscaler is None else self.upscaler.sha256
        return named


class InputFetcher:
    """Fetches the inputs of jobs, those of one job side by side."""

    def __init__(
        self,
        loras: LoraStore,
        pictures: PictureSource,
        *,
        upscalers: Upscalers | None = None,
        keeps_files: bool = False,
    ) -> None:
        """Without `upscalers` there are none."""
        self._loras = loras
        self._upscalers = upscalers
        self._pictures = pictures
        self._keeps_files = keeps_files

    async def fetch(self, job: Job, *, before_download: Callable[[], None] = lambda: None) -> JobInputs:
        """`before_download` is called before an input is downloaded, perhaps for each of them.

        Raises InvalidInput and InputFetchFailed; the first error cancels the other downloads of the job.
        """
        sources, sum_ = job.sources(), PictureSum()
        upscaler = await self._upscaler(job)
        if not sources and not job.loras:
            return JobInputs(upscaler=upscaler)
        try:
            async with asyncio.TaskGroup() as group:
                finding = [
                    group.create_task(self._loras.get(lora.path, before_download=before_download)) for lora in job.loras
                ]
                fetching = [
                    group.create_task(self._picture(source, name, sum_, before_download))
                    for name, source in sources.items()
                ]
        except ExceptionGroup as failed:
            raise _first(failed) from failed
        read = dict(zip(sources, (task.result() for task in fetching), strict=True))
        inputs = await asyncio.to_thread(_put_together, tuple(task.result() for task in finding), read)
        files = {name: each.data for name, each in read.items()} if self._keeps_files else {}
        return replace(inputs, files=files, upscaler=upscaler)

    async def lora(self, path: str, *, before_download: Callable[[], None] = lambda: None) -> StoredLora:
        """One LoRA, as `fetch` finds it. Raises InvalidInput and InputFetchFailed."""
        return await self._loras.get(path, before_download=before_download)

    async def _upscaler(self, job: Job) -> Upscaler | None:
        if not isinstance(job, ImageJob) or job.upscale is None or self._upscalers is None:
            return None
        return await asyncio.to_thread(self._upscalers.find, job.upscale)

    async def _picture(self, source: str, name: str, sum_: PictureSum, before_download: Callable[[], None]) -> _Read:
        data = await self._pictures.get(source, name, before_download=before_download)
        return await asyncio.to_thread(_read, data, name, sum_)


@dataclass(frozen=True, slots=True)
class _Read:
    """One picture of a job, decoded, with its file and the file's hash."""

    content: Decoded | Mask
    sha256: str
    data: bytes

    @property
    def identity(self) -> str:
        """What the fingerprint holds of it."""
        return f"{self.sha256}{self.content.way}"


def _read(data: bytes, name: str, sum_: PictureSum) -> _Read:
    sum_.add(data, name)
    decode = decode_mask if name == "mask" else decode_picture
    return _Read(decode(data, name), hashlib.sha256(data).hexdigest(), data)


def _put_together(loras: tuple[StoredLora, ...], read: Mapping[str, _Read]) -> JobInputs:
    """The inputs, with the mask resized to its picture."""
    image = read["image"].content.picture if "image" in read else None
    mask = read["mask"].content if "mask" in read else None
    references = [each for name, each in read.items() if name.startswith(f"{REFERENCES}[")]
    maps = [each for name, each in read.items() if name.startswith(f"{CONTROL}[")]
    hashes: dict[str, str | tuple[str, ...]] = {name: each.identity for name, each in read.items() if name in SOURCES}
    if references:
        hashes[REFERENCES] = tuple(each.identity for each in references)
    if maps:
        hashes[CONTROL] = tuple(each.identity for each in maps)
    if image is not None and isinstance(mask, Mask):
        mask = as_large_as(mask, image.size)
    warnings = [said for name, each in read.items() if name != "mask" for said in each.content.warnings]
    return JobInputs(
        loras=loras,
        pictures=Pictures(
            image=image,
            mask=mask.picture if mask is not None else None,
            references=tuple(each.content.picture for each in references),
            maps=tuple(each.content.picture for each in maps),
        ),
        picture_hashes=hashes,
        warnings=(*warnings, *(mask.warnings if mask is not None else ())),
    )


def _first(failed: ExceptionGroup[Exception]) -> Exception:
    """The error that the client is told: the first one made for it."""
    return next((error for error in failed.exceptions if isinstance(error, FluxError)), failed.exceptions[0])
