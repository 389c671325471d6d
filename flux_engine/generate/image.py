"""An ImageJob becomes pictures, on the GPU thread: from noise, or from the pictures that it brings.

Each image has a generator of its own on the CPU and is made by itself: so a seed gives the same picture on any device,
and the same bytes however many images are asked for at once. A batch would gain at most 6 % (docs/facts.md).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flux_engine.generate.gpu import Cancellation, settle
from flux_engine.generate.preview import FlowPreview
from flux_engine.generate.sampling import Sampler, Spent
from flux_engine.generate.start import Start, start_of
from flux_engine.generate.text import Embeddings, PromptEncoder
from flux_engine.job.image import ImageJob
from flux_engine.media.decode import Pictures
from flux_engine.progress import Progress

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from flux_engine.models.loaded import LoadedModel


@dataclass(slots=True)
class Generated:
    """Pictures in the order of `ImageJob.seeds`, and where the time went."""

    images: list[Image] = field(default_factory=list)
    spent: Spent = field(default_factory=Spent)

    def spent_ms(self) -> dict[str, float]:
        return self.spent.by_stage()


class ImageGenerator:
    """Turns jobs into pictures; keeps nothing but prompt embeddings between them."""

    def __init__(self) -> None:
        self._prompts = PromptEncoder()

    def generate(
        self,
        model: LoadedModel,
        job: ImageJob,
        progress: Progress,
        cancellation: Cancellation,
        *,
        pictures: Pictures | None = None,
    ) -> Generated:
        """Make the job's images; `pictures` are those that it brings, of any size.

        Raises JobCancelled at the first step after a cancellation.
        """
        made = Generated()
        progress.stage("text")
        began = time.perf_counter()
        start = start_of(model, job, pictures or Pictures())
        embeddings = self._prompts.encode(model, job, job.prompt)
        settle()
        made.spent.text_ms = (time.perf_counter() - began) * 1000
        cancellation.check()
        progress.stage("denoising")
        sampler = Sampler(model, job, made.spent)
        for index, seed in enumerate(job.seeds()):
            steps = _Steps(start, job, index, progress, cancellation, preview=_preview(model, job, progress))
            picture = _one_image(sampler, start, seed, embeddings, steps)
            made.images.append(start.finished(picture))
        return made


def _preview(model: LoadedModel, job: ImageJob, progress: Progress) -> FlowPreview | None:
    if not job.preview or not can_preview(model):
        return None
    return FlowPreview(width=job.width, height=job.height, xmp=progress.preview_xmp)


def can_preview(model: LoadedModel) -> bool:
    """Whether the VAE stays on the device between two steps. Under model offload each preview would swap it with the
    transformer, 12 to 22 GiB each way."""
    return model.tuned.applied.offload != "model"


class _Steps:
    """Reports each denoising step of one image of a job, and ends it once the job is cancelled."""

    def __init__(
        self,
        start: Start,
        job: ImageJob,
        index: int,
        progress: Progress,
        cancellation: Cancellation,
        *,
        preview: FlowPreview | None,
    ) -> None:
        self._pipeline = start.pipeline
        self._before = index * start.num_steps
        self._total = job.num_images * start.num_steps
        self._progress = progress
        self._cancellation = cancellation
        self._preview = preview

    def report(self, step: int, latents: Tensor) -> None:
        self._cancellation.check()
        preview = None
        if self._preview is not None:
            is_wanted = self._progress.wants_preview()
            preview = self._preview.follow(self._pipeline, latents, step, is_wanted=is_wanted)
        done = self._before + step + 1
        self._progress.step(done, self._total, preview=preview)
        if done == self._total:
            self._progress.stage("decoding")


def _one_image(sampler: Sampler, start: Start, seed: int, embeddings: Embeddings, steps: _Steps) -> Image:
    import torch

    images: list[Image] = sampler.call(
        start.pipeline,
        embeddings,
        num_steps=start.num_steps,
        on_step=steps.report,
        generator=torch.Generator("cpu").manual_seed(seed),
        **start.arguments,
    )
    return images[0]
