"""A video from its job to its bytes: each frame goes to the encoder while the next one is made.

Runs on the GPU thread. Whatever ends it, an error or a cancellation, takes the encoder along.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flux_engine.generate.sampling import Spent
from flux_engine.generate.screening import screened_frames
from flux_engine.generate.truncation import truncation_warnings
from flux_engine.generate.video.generator import VideoGenerator
from flux_engine.job.video import VideoJob
from flux_engine.media.video import EncoderFailed, VideoEncoder, VideoSpec, thumbnail

if TYPE_CHECKING:
    from PIL.Image import Image

    from flux_engine.generate.gpu import Cancellation
    from flux_engine.models.beside.content_filter import ContentFilter
    from flux_engine.models.loaded import LoadedModel
    from flux_engine.progress import Progress


@dataclass(slots=True)
class Film:
    """An encoded video, its thumbnail (WebP), and where the time went."""

    data: bytes = b""
    thumbnail: bytes = b""
    encode_ms: float = 0.0  # frames waited that long for the encoder
    spent: Spent = field(default_factory=Spent)
    warnings: list[str] = field(default_factory=list)

    def spent_ms(self) -> dict[str, float]:
        """By the names of the result's timings."""
        return self.spent.by_stage() | {"encode": self.encode_ms}


def film(
    generator: VideoGenerator,
    model: LoadedModel,
    job: VideoJob,
    progress: Progress,
    cancellation: Cancellation,
    *,
    first_frame: Image | None = None,
    content_filter: ContentFilter | None = None,
) -> Film:
    """Make and encode the video of `job`. Raises JobCancelled, EncoderFailed, and InvalidInput for a model of
    another kind."""
    made = Film(warnings=truncation_warnings(model.pipeline, model.spec, job))
    frames = generator.frames(model, job, progress, cancellation, spent=made.spent, first_frame=first_frame)
    with VideoEncoder(spec_of(job)) as encoder, _ended_by(cancellation, encoder):
        for frame in screened_frames(frames, job, content_filter):
            with _waiting(made):
                encoder.write(frame)
                made.thumbnail = made.thumbnail or thumbnail(frame)
        progress.stage("encoding")
        with _waiting(made):
            made.data = encoder.finish()
    return made


def spec_of(job: VideoJob) -> VideoSpec:
    return VideoSpec(
        width=job.width,
        height=job.height,
        fps=job.fps,
        num_frames=job.num_frames,
        frames_made=job.frames_made,
        output_format=job.output_format,
        quality=job.output_quality,
        is_loop=job.loop,
        title=job.prompt,
    )


@contextmanager
def _ended_by(cancellation: Cancellation, encoder: VideoEncoder) -> Iterator[None]:
    """Within, a cancellation ends ffmpeg at once: its last frames may take minutes, during which the GPU would idle."""
    with cancellation.calling(encoder.abort):
        try:
            yield
        except EncoderFailed:
            cancellation.check()
            raise


@contextmanager
def _waiting(made: Film) -> Iterator[None]:
    began = time.perf_counter()
    yield
    made.encode_ms += (time.perf_counter() - began) * 1000
