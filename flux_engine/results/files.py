"""The files of a finished job: encoded, named by their content, and described for the cache and the client."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from PIL import Image

from flux_engine.job.base import JsonObject
from flux_engine.job.fingerprint import made_from
from flux_engine.job.formats import CONTENT_TYPES, ImageFormat, VideoFormat
from flux_engine.job.image import ImageJob
from flux_engine.job.video import VideoJob
from flux_engine.media.encode import encode_image, made_from_of
from flux_engine.media.marks.marker import NO_STAMP, Stamp
from flux_engine.results.entry import CacheEntry, StoredFile, Withheld
from flux_engine.results.store import NewFile, ResultStore, object_key

REENCODED_QUALITY: Final = 90
FORMATS: Final[Mapping[str, ImageFormat | VideoFormat]] = {name: name for name in CONTENT_TYPES}  # by extension
# `num_images` too, so that image i of n is the file of a job for that seed alone.
SAID_ELSEWHERE: Final = ("type", "prompt", "model", "seed", "num_images")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What the files of a job come from, beside the job itself.

    `model` is the result's description of what made them. `content` stands in place of the parameters that only name
    something, as in the fingerprint: so a file tells no client where another one's LoRAs and pictures lie, and the same
    fingerprint is the same bytes. `prefix` is the store's, and `stamp` marks the files. `seeds` are those of the
    pictures, where some were `withheld`. `warnings` belong to the files, whoever gets them.
    """

    fingerprint: str
    model: JsonObject
    content: JsonObject
    prefix: str
    stamp: Stamp = NO_STAMP
    enhanced_prompt: str | None = None
    seeds: tuple[int, ...] = ()
    withheld: tuple[Withheld, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ResultFiles:
    """The files of a finished job: `entry` describes all of them, `at_hand` has the bytes where they are here.

    `pixels` are the pictures as they were made, in the order of `entry.files`; empty for everything else. `stamp` marks
    what else may be made of them.
    """

    entry: CacheEntry
    at_hand: tuple[NewFile, ...] = ()
    pixels: tuple[Image.Image, ...] = ()
    stamp: Stamp = NO_STAMP

    def data(self, key: str) -> bytes | None:
        """The bytes of one file, where they are here."""
        return next((file.data for file in self.at_hand if file.key == key), None)


async def picture_files(pixels: Sequence[Image.Image], job: ImageJob, origin: Origin) -> ResultFiles:
    """Encode the pictures of `job` in threads, side by side."""
    effective = made_from({**job.parameters(), **origin.content})
    parameters = {name: value for name, value in effective.items() if name not in SAID_ELSEWHERE}
    said = {"prompt": job.prompt, "model": dict(origin.model), "parameters": parameters}
    pairs = zip(pixels, origin.seeds or job.seeds(), strict=True)
    encoding = (asyncio.to_thread(_encoded, image, seed, job, said, origin) for image, seed in pairs)
    encoded = await asyncio.gather(*encoding)
    entry = CacheEntry(
        fingerprint=origin.fingerprint,
        files=tuple(facts for facts, _ in encoded),
        enhanced_prompt=origin.enhanced_prompt,
        warnings=origin.warnings,
        marks=origin.stamp.marker.id,
        withheld=origin.withheld,
    )
    return ResultFiles(entry, tuple(_new(*one) for one in encoded), tuple(pixels), origin.stamp)


def video_files(video: bytes, thumbnail: bytes, job: VideoJob, origin: Origin) -> ResultFiles:
    """The encoded video of `job` and its thumbnail, a WebP. Takes a while for a long one: call it on a thread."""
    video, thumbnail = origin.stamp.on(video, job.output_format), origin.stamp.on(thumbnail, "webp")
    with Image.open(io.BytesIO(thumbnail)) as picture:
        width, height = picture.size
    film = _described(
        video,
        job.output_format,
        prefix=origin.prefix,
        width=job.width,
        height=job.height,
        seed=job.seed,
        fps=job.fps,
        num_frames=job.num_frames,
        duration=job.duration,
    )
    small = _described(thumbnail, "webp", prefix=origin.prefix, width=width, height=height, seed=job.seed)
    entry = CacheEntry(
        fingerprint=origin.fingerprint,
        files=(film,),
        thumbnail=small,
        warnings=origin.warnings,
        marks=origin.stamp.marker.id,
    )
    return ResultFiles(entry, (_new(film, video), _new(small, thumbnail)), stamp=origin.stamp)


async def remarked(files: ResultFiles, stamp: Stamp, store: ResultStore) -> ResultFiles:
    """`files` with the marks of `stamp`: the same where they have them, else other files with the same pixels, all at
    hand and not yet in `store`. Raises StorageFailed where one cannot be read from it."""
    entry = files.entry
    if entry.marks == stamp.marker.id:
        return replace(files, stamp=stamp)
    marking = (_marked_again(files, facts, stamp, store) for facts in entry.objects())
    marked = await asyncio.gather(*marking)
    described = [facts for facts, _ in marked]
    thumbnail = described.pop() if entry.thumbnail is not None else None
    changed = {"files": tuple(described), "thumbnail": thumbnail, "marks": stamp.marker.id}
    return ResultFiles(entry.model_copy(update=changed), tuple(_new(*one) for one in marked), files.pixels, stamp)


async def _marked_again(
    files: ResultFiles, facts: StoredFile, stamp: Stamp, store: ResultStore
) -> tuple[StoredFile, bytes]:
    data = files.data(facts.key)
    if data is None:
        data = await store.get(facts.key, size=facts.bytes, sha256=facts.sha256)
    return await asyncio.to_thread(_as_marked, data, facts, stamp)


def _as_marked(data: bytes, facts: StoredFile, stamp: Stamp) -> tuple[StoredFile, bytes]:
    prefix, _, name = facts.key.rpartition("/")
    output_format = FORMATS[name.rpartition(".")[2]]
    marked = stamp.again(data, output_format)
    kept = facts.model_dump(exclude={"key", "sha256", "bytes", "content_type"})
    return _described(marked, output_format, prefix=prefix, **kept), marked


def as_jpeg(png: bytes, facts: StoredFile, pixels: Image.Image | None, stamp: Stamp) -> tuple[StoredFile, bytes]:
    """A picture as JPEG, from its pixels where they are at hand; what the PNG says of its making stays."""
    with Image.open(io.BytesIO(png)) as picture:  # reads the head, not the pixels
        said = made_from_of(picture)
        data = encode_image(pixels or picture.convert("RGB"), "jpg", quality=REENCODED_QUALITY, made_from=said)
    data = stamp.on(data, "jpg")
    made = _described(
        data, "jpg", prefix=facts.key.rpartition("/")[0], width=facts.width, height=facts.height, seed=facts.seed
    )
    return made, data


def _encoded(
    image: Image.Image, seed: int, job: ImageJob, said: JsonObject, origin: Origin
) -> tuple[StoredFile, bytes]:
    data = encode_image(image, job.output_format, quality=job.output_quality, made_from=said | {"seed": seed})
    data = origin.stamp.on(data, job.output_format)
    facts = _described(data, job.output_format, prefix=origin.prefix, width=image.width, height=image.height, seed=seed)
    return facts, data


def _described(data: bytes, output_format: ImageFormat | VideoFormat, *, prefix: str, **facts: Any) -> StoredFile:
    sha256 = hashlib.sha256(data).hexdigest()
    return StoredFile(
        key=object_key(prefix, sha256, output_format),
        sha256=sha256,
        bytes=len(data),
        content_type=CONTENT_TYPES[output_format],
        **facts,
    )


def _new(facts: StoredFile, data: bytes) -> NewFile:
    return NewFile(facts.key, data, facts.content_type)
