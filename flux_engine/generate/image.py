"""An ImageJob becomes pictures, on the GPU thread: from noise, or from the pictures that it brings.

Each image has a generator of its own on the CPU and is made by itself: so a seed gives the same picture on any device,
and the same bytes however many images are asked for at once. A batch would gain at most 6 % (docs/facts.md).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from flux_engine.generate.control import ControlParts, Controls
from flux_engine.generate.enlarge import enlarging_of
from flux_engine.generate.gpu import Cancellation, settle
from flux_engine.generate.preview import FlowPreview
from flux_engine.generate.prompt import ReadPrompt, read_prompt
from flux_engine.generate.references import looked_at
from flux_engine.generate.sampling import Sampler, Spent
from flux_engine.generate.start import Start, start_of
from flux_engine.generate.text import Embeddings, PromptEncoder
from flux_engine.generate.truncation import truncation_warnings
from flux_engine.inputs.fetcher import JobInputs
from flux_engine.job.image import ImageJob
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
    prompt: ReadPrompt | None = None  # once it is read
    warnings: list[str] = field(default_factory=list)

    def spent_ms(self) -> dict[str, float]:
        return self.spent.by_stage()


class ImageGenerator:
    """Turns jobs into pictures; keeps nothing but prompt embeddings between them."""

    def __init__(self) -> None:
        self._prompts = PromptEncoder()
        self._controls = Controls()

    def generate(
        self,
        model: LoadedModel,
        job: ImageJob,
        progress: Progress,
        cancellation: Cancellation,
        *,
        inputs: JobInputs | None = None,
        control: ControlParts | None = None,
    ) -> Generated:
        """Make the job's images; `inputs` hold the pictures that it brings, of any size, and what enlarges its own.

        Raises JobCancelled at the first step after a cancellation.
        """
        made, inputs = Generated(), inputs or JobInputs()
        progress.stage("text")
        with self._controls.start(model, job, inputs.pictures, control) as controlled:
            began = time.perf_counter()
            start = controlled or start_of(model, job, inputs.pictures)
            prompt = read_prompt(model, job, looked_at(model.spec, inputs.pictures), check=cancellation.check)
            made.prompt = prompt
            embeddings = self._prompts.encode(model, job, prompt.text)
            made.warnings += truncation_warnings(model.pipeline, model.spec, job, read=prompt)  # while a GPU encodes
            settle()
            made.spent.text_ms = (time.perf_counter() - began) * 1000
            cancellation.check()
            size = start.size_of(job)
            enlarging = enlarging_of(model, job, embeddings, size=size, upscaler=inputs.upscaler, spent=made.spent)
            progress.stage("denoising")
            sampler = Sampler(model, job, made.spent)
            of_one = start.num_steps + (enlarging.num_steps if enlarging is not None else 0)
            for index, seed in enumerate(job.seeds()):
                steps = _Steps(index * of_one, job.num_images * of_one, progress, cancellation)
                drawn = _Drawn(start.pipeline, steps, _preview(model, job, progress))
                picture = start.finished(_one_image(sampler, start, seed, embeddings, drawn))
                if enlarging is not None:
                    cancellation.check()
                    picture = enlarging.enlarged(picture, seed, on_step=steps.after(start.num_steps).report)
                made.images.append(picture)
        return made


def _preview(model: LoadedModel, job: ImageJob, progress: Progress) -> FlowPreview | None:
    if not job.preview or not can_preview(model):
        return None
    return FlowPreview(width=job.width, height=job.height, xmp=progress.preview_xmp)


def can_preview(model: LoadedModel) -> bool:
    """Whether the VAE stays on the device between two steps. Under model offload each preview would swap it with the
    transformer, 12 to 22 GiB each way."""
    return model.tuned.applied.offload != "model"


@dataclass(frozen=True, slots=True)
class _Steps:
    """Reports each denoising step of a job, of which `before` were done before these, and ends it once the job is
    cancelled."""

    before: int
    total: int
    progress: Progress
    cancellation: Cancellation

    def report(self, step: int, *, preview: str | None = None) -> None:
        self.cancellation.check()
        done = self.before + step + 1
        self.progress.step(done, self.total, preview=preview)
        if done == self.total:
            self.progress.stage("decoding")

    def after(self, steps: int) -> _Steps:
        return replace(self, before=self.before + steps)


@dataclass(frozen=True, slots=True)
class _Drawn:
    """The steps of one image, with a look at it."""

    pipeline: Any
    steps: _Steps
    preview: FlowPreview | None

    def report(self, step: int, latents: Tensor) -> None:
        preview = None
        if self.preview is not None:
            is_wanted = self.steps.progress.wants_preview()
            preview = self.preview.follow(self.pipeline, latents, step, is_wanted=is_wanted)
        self.steps.report(step, preview=preview)


def _one_image(sampler: Sampler, start: Start, seed: int, embeddings: Embeddings, drawn: _Drawn) -> Image:
    import torch

    images: list[Image] = sampler.call(
        start.pipeline,
        embeddings,
        num_steps=start.num_steps,
        on_step=drawn.report,
        generator=torch.Generator("cpu").manual_seed(seed),
        **start.arguments,
    )
    return images[0]
