"""What a job names and does not hold: its LoRAs and pictures, fetched, looked at and known by content."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from PIL import Image

from flux_engine.errors import FluxError
from flux_engine.inputs.lora_store import LoraStore, StoredLora
from flux_engine.inputs.pictures import PictureSource
from flux_engine.job.base import Job, JsonObject
from flux_engine.media.decode import Pictures, as_mask, decode_picture


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInputs:
    """The LoRAs of a job in its order, its pictures, and the hashes of the pictures' files by field."""

    loras: tuple[StoredLora, ...] = ()
    pictures: Pictures = field(default_factory=Pictures)
    picture_hashes: Mapping[str, str] = field(default_factory=dict)

    def content(self, job: Job) -> JsonObject:
        """What the job's parameters only name, by content, for the fingerprint."""
        named: JsonObject = dict(self.picture_hashes)
        if self.loras:
            pairs = zip(self.loras, job.loras, strict=True)
            named["loras"] = [{"sha256": stored.sha256, "scale": asked.scale} for stored, asked in pairs]
        return named


class InputFetcher:
    """Fetches the inputs of jobs, those of one job side by side."""

    def __init__(self, loras: LoraStore, pictures: PictureSource) -> None:
        self._loras = loras
        self._pictures = pictures

    async def fetch(self, job: Job) -> JobInputs:
        """Raises InvalidInput and InputFetchFailed: the first one ends the other downloads of the job."""
        sources = job.sources()
        try:
            async with asyncio.TaskGroup() as group:
                finding = [group.create_task(self._loras.get(lora.path)) for lora in job.loras]
                fetching = [group.create_task(self._picture(source, name)) for name, source in sources.items()]
        except ExceptionGroup as failed:
            raise _first(failed) from failed
        loras, fetched = [task.result() for task in finding], [task.result() for task in fetching]
        pictures = {name: picture for name, (picture, _) in zip(sources, fetched, strict=True)}
        image, mask = pictures.get("image"), pictures.get("mask")
        if image is not None and mask is not None:
            mask = await asyncio.to_thread(as_mask, mask, size=image.size)
        return JobInputs(
            loras=tuple(loras),
            pictures=Pictures(image=image, mask=mask),
            picture_hashes={name: sha256 for name, (_, sha256) in zip(sources, fetched, strict=True)},
        )

    async def _picture(self, source: str, name: str) -> tuple[Image.Image, str]:
        data = await self._pictures.get(source, name)
        return await asyncio.to_thread(decode_picture, data, name), hashlib.sha256(data).hexdigest()


def _first(failed: ExceptionGroup[Exception]) -> Exception:
    """What the client is told of several failures: the first that is an answer to it."""
    return next((error for error in failed.exceptions if isinstance(error, FluxError)), failed.exceptions[0])
