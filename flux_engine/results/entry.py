"""What the cache knows of a finished job, and of a job under way, as JSON with a version.

An entry names objects by key and describes each file. It holds no URL: those are signed when they are delivered. What
is read back is untrusted until parsed: `CacheEntry.parse` returns None for anything that this version of the worker
cannot have written for this fingerprint.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from flux_engine.job.fingerprint import SHA256
from flux_engine.media.marks.marker import UNMARKED
from flux_engine.results.store import object_key

ENTRY_VERSION: Final = 1
MAX_ENTRY_BYTES: Final = 64 * 1024

Sha256 = Annotated[str, Field(pattern=rf"\A{SHA256}\z")]
ObjectKey = Annotated[
    str, Field(max_length=512, pattern=r"\A[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*\z")
]
TaskState = Literal["processing", "completed", "failed"]


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class StoredFile(_Stored):
    """One delivered file. Sizes in pixels, `duration` in seconds; the last three are a video's."""

    key: ObjectKey
    sha256: Sha256
    bytes: Annotated[int, Field(gt=0)]
    content_type: Annotated[str, Field(pattern=r"\A(image|video)/[a-z0-9.+-]{1,40}\z")]
    width: Annotated[int, Field(gt=0)]
    height: Annotated[int, Field(gt=0)]
    seed: Annotated[int, Field(ge=0)]
    fps: float | None = None
    num_frames: int | None = None
    duration: float | None = None

    def under(self, prefix: str) -> StoredFile:
        """This file in a store whose keys begin with `prefix`."""
        return self.model_copy(update={"key": object_key(prefix, self.sha256, self.key.rpartition(".")[2])})

    @model_validator(mode="after")
    def _key_is_made_of_the_content(self) -> Self:
        if self.sha256 not in self.key:
            raise ValueError("the key does not hold the hash of the content")
        return self


class Withheld(_Stored):
    """A picture of a job that the content filter kept back: which, and why."""

    index: Annotated[int, Field(ge=0)]
    seed: Annotated[int, Field(ge=0)]
    label: str
    score: float


class CacheEntry(_Stored):
    """The files of a finished job, in the order of its images; a video is one file with a thumbnail."""

    version: Literal[1] = ENTRY_VERSION
    fingerprint: Sha256
    files: Annotated[tuple[StoredFile, ...], Field(min_length=1, max_length=16)]
    thumbnail: StoredFile | None = None
    enhanced_prompt: str | None = None  # what the model read in place of the job's
    warnings: tuple[str, ...] = ()
    marks: Annotated[str, Field(max_length=64)] = UNMARKED  # the `id` of their marker
    withheld: tuple[Withheld, ...] = ()
    created_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))

    @classmethod
    def parse(cls, raw: bytes, *, fingerprint: str, prefix: str) -> CacheEntry | None:
        """The entry in `raw`, or None: unreadable, another version's, another job's, or outside of `prefix`."""
        if len(raw) > MAX_ENTRY_BYTES:
            return None
        try:
            entry = cls.model_validate_json(raw)
        except ValidationError:
            return None
        inside = f"{prefix}/" if prefix else ""
        is_ours = entry.fingerprint == fingerprint and all(file.key.startswith(inside) for file in entry.objects())
        return entry if is_ours else None

    def under(self, prefix: str) -> CacheEntry:
        """The same files under the keys of another store."""
        thumbnail = self.thumbnail.under(prefix) if self.thumbnail is not None else None
        return self.model_copy(update={"files": tuple(f.under(prefix) for f in self.files), "thumbnail": thumbnail})

    def objects(self) -> tuple[StoredFile, ...]:
        """Every object that must exist for this entry to be a hit."""
        return self.files if self.thumbnail is None else (*self.files, self.thumbnail)


class TaskStatus(_Stored):
    """How far a job is. `error` is a code of the tree of errors, or `cancelled`."""

    version: Literal[1] = ENTRY_VERSION
    job_id: str
    fingerprint: Sha256 | None
    status: TaskState
    started_at: AwareDatetime
    finished_at: AwareDatetime | None = None
    error: str | None = None
    result: CacheEntry | None = None

    @classmethod
    def parse(cls, raw: bytes) -> TaskStatus | None:
        """The status in `raw`, or None where it cannot be read."""
        try:
            return cls.model_validate_json(raw)
        except ValidationError:
            return None
