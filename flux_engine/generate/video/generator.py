"""VideoGenerator: a VideoJob becomes a stream of frames, on the GPU thread.

`interpolate` makes each frame from noise: the noise lies on the arc between the keyframes' seeds, the prompt's
embeddings on an eased way between theirs. `feedback` makes each frame from the one before (feedback.py). Frames are
handed on as they are made, so memory does not grow with their number. Knows nothing of files and encoders.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from flux_engine.errors import InvalidInput
from flux_engine.generate.gpu import settle
from flux_engine.generate.sampling import Spent
from flux_engine.generate.text import Embeddings, PromptEncoder
from flux_engine.generate.video.blend import blended, slerp
from flux_engine.generate.video.feedback import FeedbackChain
from flux_engine.generate.video.frames import Frame, FrameSampler, Report
from flux_engine.generate.video.schedule import eased, place_at
from flux_engine.job.video import VideoJob
from flux_engine.job.video_fields import MAX_KEYFRAMES
from flux_engine.job.work import steps_of

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from flux_engine.generate.gpu import Cancellation
    from flux_engine.models.loaded import LoadedModel
    from flux_engine.models.planning.plan import Plan
    from flux_engine.models.spec import ModelSpec
    from flux_engine.progress import Progress

BATCH_PIXELS: Final = 1024 * 1024  # beyond a megapixel at once a batch gains nothing (docs/facts.md)
MAX_BATCH: Final = 8  # frames are handed on a batch at a time


class VideoGenerator:
    """Turns jobs into frames; keeps nothing but prompt embeddings between them."""

    def __init__(self) -> None:
        self._prompts = PromptEncoder(capacity=MAX_KEYFRAMES + 1)  # and the negative prompt

    def frames(
        self,
        model: LoadedModel,
        job: VideoJob,
        progress: Progress,
        cancellation: Cancellation,
        *,
        spent: Spent,
        first_frame: Image | None = None,
    ) -> Iterator[Frame]:
        """The `job.frames_made` frames in order, uint8 (height, width, 3). `first_frame` is what `job.image` names, of
        any size; `spent` grows as they come.

        Raises InvalidInput for a model that makes no videos, and JobCancelled at the first step after a cancellation.
        """
        check_model(model.spec)
        progress.stage("text")
        began = time.perf_counter()
        embeddings = [self._prompts.encode(model, job, keyframe.prompt) for keyframe in job.keyframes]
        settle()
        spent.text_ms += (time.perf_counter() - began) * 1000
        cancellation.check()
        progress.stage("denoising")
        is_chain = job.mode == "feedback"
        report = Report(
            progress=progress,
            cancellation=cancellation,
            total_steps=steps_of(job),
            total_frames=job.frames_made,
            has_previews=job.preview,
        )
        dtype = embeddings[0]["prompt_embeds"].dtype
        sampler = FrameSampler(model, job, report, spent, dtype=dtype)
        if is_chain:
            yield from FeedbackChain(job, sampler, embeddings).frames(first_frame)
        else:
            plan, side = model.tuned.applied.plan, model.spec.limits.side
            batch = frames_at_once(plan, side=side, width=job.width, height=job.height)
            yield from _interpolated(job, sampler, embeddings, batch=batch)


def check_model(spec: ModelSpec) -> None:
    """Raises InvalidInput unless `spec` makes videos."""
    if not spec.makes_videos:
        raise InvalidInput(f"{spec.id} makes images only; send a FLUX.1 text-to-image `model`", field="model")


def frames_at_once(plan: Plan, *, side: int, width: int, height: int) -> int:
    """How many frames of `width` x `height` are made together: up to a megapixel, within what `plan` allows for
    pictures of `side` x `side`; and one where it allows one, as under a step cache, which decides for a whole batch."""
    if plan.largest_batch == 1:
        return 1
    pixels = width * height
    return max(1, min(MAX_BATCH, BATCH_PIXELS // pixels, plan.largest_batch * side**2 // pixels))


def _interpolated(
    job: VideoJob, sampler: FrameSampler, embeddings: Sequence[Embeddings], *, batch: int
) -> Iterator[Frame]:
    positions = job.positions()
    for start in range(0, len(positions), batch):
        noise, texts = [], []
        for position in positions[start : start + batch]:
            place = place_at(job.keyframes, position, num_frames=job.num_frames, is_loop=job.loop)
            noise.append(
                _noise(sampler, job.keyframes[place.before].seed, job.keyframes[place.after].seed, place.share)
            )
            texts.append(blended(embeddings[place.before], embeddings[place.after], eased(place.share)))
        for picture in sampler.from_noise(noise, texts):
            yield sampler.finished(picture)


def _noise(sampler: FrameSampler, start: int, end: int, share: float) -> Tensor:
    return sampler.noise(start) if start == end else slerp(sampler.noise(start), sampler.noise(end), share)
