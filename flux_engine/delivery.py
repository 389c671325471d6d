"""Files on their way to the client: encoded, then put in a store or inline, then measured.

The platform drops a result over its limit without a word to the client (runpod-facts), so a result is serialised
and measured here, before the platform sees it.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from flux_engine.errors import ResultTooLarge
from flux_engine.job import ImageJob, JsonObject
from flux_engine.media.images import CONTENT_TYPES, encode_image

if TYPE_CHECKING:
    from PIL.Image import Image

    from flux_engine.storage.results import ResultStore

RUN_LIMIT_BYTES: Final = 10_000_000
RUNSYNC_LIMIT_BYTES: Final = 20_000_000
ENVELOPE_BYTES: Final = 16_384  # what the SDK and the platform put around a result


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One encoded image and what is said of it."""

    data: bytes
    extension: str
    content_type: str
    width: int
    height: int
    seed: int
    sha256: str


async def encode_images(images: Sequence[Image], job: ImageJob, model: Mapping[str, Any]) -> list[ImageFile]:
    """Encode in threads, side by side; `model` is the result's description of what made them."""
    pairs = zip(images, job.seeds(), strict=True)
    return await asyncio.gather(*(asyncio.to_thread(_encode, image, seed, job, model) for image, seed in pairs))


async def deliver(
    files: Sequence[ImageFile], job: ImageJob, store: ResultStore | None
) -> tuple[list[JsonObject], datetime | None]:
    """What the result says of each file, and when the URLs expire, if they do."""
    if job.response_format == "b64_json" or store is None:
        return [{"b64_json": base64.b64encode(f.data).decode(), **_facts(f)} for f in files], None
    await asyncio.gather(*(store.put(f.data, key=key_of(f), content_type=f.content_type) for f in files))
    links = [await store.url(key_of(f)) for f in files]
    expiries = [link.expires_at for link in links if link.expires_at is not None]
    said = [{"url": link.url, **_facts(f)} for link, f in zip(links, files, strict=True)]
    return said, min(expiries, default=None)


def key_of(file: ImageFile) -> str:
    """Named by content: a repeated upload is harmless."""
    return f"{file.sha256[:32]}.{file.extension}"


def within_limit(result: JsonObject, job_id: str) -> JsonObject:
    """`result` itself, once it is sure that the platform takes it. Raises ResultTooLarge."""
    limit = RUNSYNC_LIMIT_BYTES if job_id.startswith("sync-") else RUN_LIMIT_BYTES
    size = len(json.dumps(result, allow_nan=False, ensure_ascii=False).encode()) + ENVELOPE_BYTES
    if size > limit:
        raise ResultTooLarge(
            f"the result is {size / 1e6:.1f} MB and the platform takes {limit / 1e6:.0f} MB; ask for fewer or smaller "
            "images, send `output_format` `jpg` or `webp`, or set a bucket on the endpoint",
            field="response_format",
        )
    return result


def as_utc(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _encode(image: Image, seed: int, job: ImageJob, model: Mapping[str, Any]) -> ImageFile:
    parameters = {name: value for name, value in job.parameters().items() if name not in ("prompt", "seed", "model")}
    made_from = {"prompt": job.prompt, "seed": seed, "model": dict(model), "parameters": parameters}
    data = encode_image(image, job.output_format, quality=job.output_quality, made_from=made_from)
    return ImageFile(
        data=data,
        extension=job.output_format,
        content_type=CONTENT_TYPES[job.output_format],
        width=image.width,
        height=image.height,
        seed=seed,
        sha256=hashlib.sha256(data).hexdigest(),
    )


def _facts(file: ImageFile) -> JsonObject:
    return {
        "content_type": file.content_type,
        "width": file.width,
        "height": file.height,
        "seed": file.seed,
        "sha256": file.sha256,
        "bytes": len(file.data),
    }
