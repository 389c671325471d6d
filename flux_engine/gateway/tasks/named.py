"""What a job names and brings, refused here where a worker would refuse it, so that no GPU waits for it.

    await named.check(job)          # nothing is fetched

Whether an address answers, and whether a LoRA is on the volume, a worker finds out.
"""

from __future__ import annotations

import asyncio
import io
from typing import Final

from flux_engine.errors import InputFetchFailed, LoraInvalid
from flux_engine.inputs.lora_header import read_header
from flux_engine.inputs.lora_kinds import other_kind
from flux_engine.inputs.lora_source import InlineLora, UrlLora, parse_source
from flux_engine.inputs.pictures import MAX_BYTES, inline_picture, is_address, picture_address
from flux_engine.job.base import Job
from flux_engine.media.decode import decode_picture
from flux_engine.media.mask import decode_mask
from flux_engine.net.fetch import Fetcher

AT_ONCE: Final = 2  # a picture of 16 megapixels takes 100 MB while it is decoded


class NamedInputs:
    """For one event loop."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self._free = asyncio.Semaphore(AT_ONCE)

    async def check(self, job: Job) -> None:
        """Raises InvalidInput, InputFetchFailed and LoraInvalid, as a worker would."""
        if not job.sources() and not job.loras:
            return
        async with self._free:
            await asyncio.to_thread(self._check, job)

    def _check(self, job: Job) -> None:
        for lora in job.loras:
            self._check_lora(lora.path)
        for field, source in job.sources().items():
            self._check_picture(source, field)

    def _check_picture(self, source: str, field: str) -> None:
        if is_address(source):
            self._check_address(picture_address(source, field), field, what=f"`{field}`")
        elif field == "mask":
            decode_mask(inline_picture(source, field), field)
        else:
            decode_picture(inline_picture(source, field), field)

    def _check_lora(self, path: str) -> None:
        source = parse_source(path, max_inline_bytes=MAX_BYTES)
        if isinstance(source, UrlLora):
            self._check_address(source.url, "loras", what="a LoRA")
        elif isinstance(source, InlineLora):
            try:
                header = read_header(io.BytesIO(source.content), len(source.content))
            except LoraInvalid as error:
                raise LoraInvalid(error.message, field="loras") from error
            kind = other_kind(header.tensors)
            if kind is not None and kind.verdict == "no LoRA":
                raise kind.error()

    def _check_address(self, url: str, field: str, *, what: str) -> None:
        try:
            self._fetcher.check(url)
        except InputFetchFailed as error:
            raise InputFetchFailed(f"{what} could not be loaded: {error.message}", field=field) from error
