"""What a job gives: progress while it runs, and a result with its files."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flux_client.errors import ResultLost


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a job is. `stage` is `waiting` until a worker has taken it."""

    job_id: str
    stage: str
    progress: float  # 0 to 1 over the whole job
    step: int | None = None
    total_steps: int | None = None
    frame: int | None = None
    total_frames: int | None = None
    eta_seconds: float | None = None
    preview: bytes | None = field(default=None, repr=False)  # WebP, where `preview` was asked for

    @classmethod
    def of(cls, job_id: str, output: Mapping[str, Any]) -> Progress:
        preview = output.get("preview")
        names = ("step", "total_steps", "frame", "total_frames", "eta_seconds")
        return cls(
            job_id=job_id,
            stage=str(output.get("stage", "waiting")),
            progress=float(output.get("progress", 0.0)),
            preview=base64.b64decode(preview.partition(",")[2]) if isinstance(preview, str) else None,
            **{name: output.get(name) for name in names},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A picture, a video or a thumbnail: behind `url`, or in `b64_json`. A client's `read` gives its bytes."""

    content_type: str
    width: int
    height: int
    sha256: str
    bytes: int
    seed: int | None = None
    fps: float | None = None
    num_frames: int | None = None
    duration: float | None = None
    url: str | None = None
    b64_json: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> File:
        return cls(**{name: raw[name] for name in cls.__dataclass_fields__ if name in raw})


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A finished job. `raw` is all that the worker answered."""

    job_id: str
    images: tuple[File, ...]
    video: File | None
    seed: int
    cached: bool
    warnings: tuple[str, ...]
    raw: Mapping[str, Any] = field(repr=False)

    @property
    def files(self) -> tuple[File, ...]:
        return self.images if self.video is None else (self.video,)

    @classmethod
    def of(cls, job_id: str, output: object) -> Result:
        """Raises ResultLost for what is no result, as where the platform dropped one over its limit."""
        if not isinstance(output, Mapping) or not ("images" in output or "video" in output):
            raise ResultLost("the job finished without a result; with a large one set a bucket", job_id=job_id)
        return cls(
            job_id=job_id,
            images=tuple(File.of(image) for image in output.get("images", ())),
            video=File.of(output["video"]) if "video" in output else None,
            seed=int(output["seed"]),
            cached=bool(output["cached"]),
            warnings=tuple(output["warnings"]),
            raw=output,
        )
