"""Files on their way to the client: encoded, stored, then handed out as links or inline, and measured.

The platform drops a result over its limit without a word to the client (docs/facts.md), so a result is serialised
and measured here, before the platform sees it.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from PIL import Image

from flux_engine.errors import ResultTooLarge
from flux_engine.job.base import JsonObject, ResponseFormat
from flux_engine.job.fingerprint import made_from
from flux_engine.job.formats import CONTENT_TYPES
from flux_engine.job.image import ImageJob
from flux_engine.media.encode import encode_image, made_from_of
from flux_engine.results.entry import CacheEntry, StoredFile
from flux_engine.results.store import NewFile, ResultStore, object_key

if TYPE_CHECKING:
    from flux_engine.generate.video.film import Film
    from flux_engine.job.video import VideoJob

RUN_LIMIT_BYTES: Final = 10_000_000
RUNSYNC_LIMIT_BYTES: Final = 20_000_000
REENCODED_QUALITY: Final = 90
ENVELOPE_BYTES: Final = 16_384  # what the SDK and the platform put around a result
# `num_images` too, so that image i of n is the file of a job for that seed alone.
SAID_ELSEWHERE: Final = ("type", "prompt", "model", "seed", "num_images")


@dataclass(frozen=True, slots=True)
class FinishedFile:
    """One encoded file and what the result and the cache say of it."""

    data: bytes
    facts: StoredFile

    @property
    def new_file(self) -> NewFile:
        return NewFile(self.facts.key, self.data, self.facts.content_type)


async def encode_images(
    images: Sequence[Image.Image], job: ImageJob, *, model: Mapping[str, Any], prefix: str, content: JsonObject
) -> list[FinishedFile]:
    """Encode in threads, side by side; `model` is the result's description of what made them.

    `content` stands in place of the parameters that only name something, as in the fingerprint: so a file tells
    no client where another one's LoRAs and pictures lie, and the same fingerprint is the same bytes.
    """
    effective = made_from({**job.parameters(), **content})
    parameters = {name: value for name, value in effective.items() if name not in SAID_ELSEWHERE}
    said = {"prompt": job.prompt, "model": dict(model), "parameters": parameters}
    pairs = zip(images, job.seeds(), strict=True)
    encoded = (asyncio.to_thread(_encode, image, seed, job, said, prefix) for image, seed in pairs)
    return await asyncio.gather(*encoded)


def video_files(film: Film, job: VideoJob, *, prefix: str) -> tuple[FinishedFile, FinishedFile]:
    """The video and its thumbnail."""
    with Image.open(io.BytesIO(film.thumbnail)) as picture:
        width, height = picture.size
    video = _finished(
        film.data,
        CONTENT_TYPES[job.output_format],
        prefix=prefix,
        extension=job.output_format,
        width=job.width,
        height=job.height,
        seed=job.seed,
        fps=job.fps,
        num_frames=job.num_frames,
        duration=job.duration,
    )
    small = _finished(
        film.thumbnail, "image/webp", prefix=prefix, extension="webp", width=width, height=height, seed=job.seed
    )
    return video, small


async def handed_out(
    entry: CacheEntry, store: ResultStore, response_format: ResponseFormat, *, at_hand: Mapping[str, bytes]
) -> tuple[JsonObject, datetime | None]:
    """The part of the result that names the files of `entry`, and when its URLs expire, if they do.

    `at_hand` holds the bytes of files that were just made, by key. Raises StorageFailed.
    """
    said, expiries = [], []
    for stored in entry.objects():
        if response_format == "b64_json":
            data = at_hand.get(stored.key)
            if data is None:
                data = await store.get(stored.key, size=stored.bytes, sha256=stored.sha256)
            said.append({"b64_json": base64.b64encode(data).decode(), **_facts(stored)})
        else:
            link = await store.url(stored.key)
            expiries.append(link.expires_at)
            said.append({"url": link.url, **_facts(stored)})
    expires_at = min((moment for moment in expiries if moment is not None), default=None)
    if entry.thumbnail is None:
        return {"images": said}, expires_at
    *_, thumbnail = said
    place = {name: thumbnail[name] for name in ("url", "b64_json") if name in thumbnail}
    return {"video": said[0], "thumbnail": place}, expires_at


async def made_to_fit(result: JsonObject, job: ImageJob) -> JsonObject:
    """`result`, with its PNGs as JPEGs where it is over the platform's limit and the client left the format open."""
    if not job.is_format_open or is_within_limit(result, job.id):
        return result
    inline = [image for image in result["images"] if "b64_json" in image]
    smaller = await asyncio.gather(*(asyncio.to_thread(_as_jpeg, image) for image in inline))
    said = (
        f"the pictures are over the platform's {_limit_of(job.id) / 1e6:.0f} MB as png and `output_format` was left "
        "open: they came as jpg; for png ask for `response_format` `url`, which needs a bucket"
    )
    return result | {
        "images": smaller,
        "parameters": result["parameters"] | {"output_format": "jpg", "output_quality": REENCODED_QUALITY},
        "warnings": [*result["warnings"], said],
    }


def is_within_limit(result: JsonObject, job_id: str) -> bool:
    """Whether the platform takes `result`; what is larger would reach the client as COMPLETED without output."""
    return _size_of(result) <= _limit_of(job_id)


def linked_instead(result: JsonObject, files: JsonObject, expires_at: datetime | None, *, job_id: str) -> JsonObject:
    """`result` with `files`, which name links, in place of what would be too large."""
    said = (
        f"the result is over the platform's {_limit_of(job_id) / 1e6:.0f} MB with its files in it, so links came "
        "instead; ask for `response_format` `url`, fewer or smaller images, or a shorter video"
    )
    linked = result | files
    linked["parameters"] = result["parameters"] | {"response_format": "url"}
    linked["warnings"] = [*result["warnings"], said]
    return linked if expires_at is None else linked | {"expires_at": as_utc(expires_at)}


def within_limit(result: JsonObject, job_id: str) -> JsonObject:
    """`result` itself, once it is sure that the platform takes it. Raises ResultTooLarge."""
    limit, size = _limit_of(job_id), _size_of(result)
    if size > limit:
        raise ResultTooLarge(
            f"the result is {size / 1e6:.1f} MB and the platform takes {limit / 1e6:.0f} MB; ask for fewer or smaller "
            "images, a shorter video, a smaller `output_format`, or for `response_format` `url`, which needs a bucket",
            field="response_format",
        )
    return result


def _limit_of(job_id: str) -> int:
    return RUNSYNC_LIMIT_BYTES if job_id.startswith("sync-") else RUN_LIMIT_BYTES


def _size_of(result: JsonObject) -> int:
    """Bytes of `result` on its way to the platform."""
    return len(json.dumps(result, allow_nan=False, ensure_ascii=False).encode()) + ENVELOPE_BYTES


def _as_jpeg(image: JsonObject) -> JsonObject:
    """One of a result's inline images, encoded anew; what the file says of how it was made stays."""
    with Image.open(io.BytesIO(base64.b64decode(image["b64_json"]))) as picture:
        data = encode_image(picture.convert("RGB"), "jpg", quality=REENCODED_QUALITY, made_from=made_from_of(picture))
    return image | {
        "b64_json": base64.b64encode(data).decode(),
        "content_type": CONTENT_TYPES["jpg"],
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
    }


def as_utc(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _encode(image: Image.Image, seed: int, job: ImageJob, said: JsonObject, prefix: str) -> FinishedFile:
    data = encode_image(image, job.output_format, quality=job.output_quality, made_from=said | {"seed": seed})
    return _finished(
        data,
        CONTENT_TYPES[job.output_format],
        prefix=prefix,
        extension=job.output_format,
        width=image.width,
        height=image.height,
        seed=seed,
    )


def _finished(data: bytes, content_type: str, *, prefix: str, extension: str, **facts: Any) -> FinishedFile:
    sha256 = hashlib.sha256(data).hexdigest()
    key = object_key(prefix, sha256, extension)
    stored = StoredFile(key=key, sha256=sha256, bytes=len(data), content_type=content_type, **facts)
    return FinishedFile(data, stored)


def _facts(stored: StoredFile) -> JsonObject:
    return stored.model_dump(exclude={"key"}, exclude_none=True)
