"""An ImageJob becomes pictures, on the GPU thread: from noise, or from the pictures that it brings.

Each image has a generator of its own on the CPU and is made by itself: so a seed gives the same picture on any device,
and the same bytes however many images are asked for at once. A batch would gain at most 6 % (docs/facts.md).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flux_engine.generate.gpu import Cancellation, settle
from flux_engine.generate.preview import FlowPreview
from flux_engine.generate.references import looked_at, reference_arguments
from flux_engine.generate.sampling import Sampler, Spent, sibling
from flux_engine.generate.text import Embeddings, PromptEncoder
from flux_engine.job.image import ImageJob
from flux_engine.job.work import steps_run
from flux_engine.media.decode import Pictures, fitted
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
        start = _start(model, job, pictures or Pictures())
        embeddings = self._prompts.encode(model, job, job.prompt)
        settle()
        made.spent.text_ms = (time.perf_counter() - began) * 1000
        cancellation.check()
        progress.stage("denoising")
        sampler = Sampler(model, job, made.spent)
        for index, seed in enumerate(job.seeds()):
            steps = _Steps(start, job, index, progress, cancellation, preview=_preview(model, job, progress))
            picture = _one_image(sampler, start, seed, embeddings, steps)
            made.images.append(start.outside_mask(picture))
        return made


def _preview(model: LoadedModel, job: ImageJob, progress: Progress) -> FlowPreview | None:
    if not job.preview or not can_preview(model):
        return None
    return FlowPreview(width=job.width, height=job.height, xmp=progress.preview_xmp)


def can_preview(model: LoadedModel) -> bool:
    """Whether the VAE stays on the device between two steps. Under model offload each preview would swap it with the
    transformer, 12 to 22 GiB each way."""
    return model.tuned.applied.offload != "model"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    """What every image of a job starts from: the pipeline, its arguments, and how many steps run."""

    pipeline: Any
    arguments: dict[str, Any]
    num_steps: int
    kept: Pictures = field(default_factory=Pictures)  # shown where the mask is black

    def outside_mask(self, made: Image) -> Image:
        """`made` within the mask, and the given picture's own pixels outside it: the VAE would change them a little."""
        if self.kept.image is None or self.kept.mask is None:
            return made
        from PIL import Image as Pillow

        return Pillow.composite(made, self.kept.image, self.kept.mask)


def _start(model: LoadedModel, job: ImageJob, pictures: Pictures) -> _Start:
    spec = model.spec
    arguments: dict[str, Any] = {}
    if spec.pipeline_class.startswith("FluxKontext"):
        arguments["max_area"] = job.width * job.height  # otherwise Kontext makes a megapixel
    if references := looked_at(spec, pictures):
        pipeline = sibling(model.pipeline, spec.image_to_image_class or spec.pipeline_class)
        arguments |= reference_arguments(spec, references)
        return _Start(pipeline=pipeline, arguments=arguments, num_steps=job.num_inference_steps)
    if pictures.image is None:
        return _Start(pipeline=model.pipeline, arguments=arguments, num_steps=job.num_inference_steps)
    size = {"width": job.width, "height": job.height}
    image = fitted(pictures.image, **size)
    strength = 1.0 if job.strength is None else job.strength
    arguments |= {"image": image, "strength": strength}
    num_steps = steps_run(job.num_inference_steps, strength)
    if pictures.mask is None:
        pipeline = sibling(model.pipeline, spec.image_to_image_class or spec.pipeline_class)
        return _Start(pipeline=pipeline, arguments=arguments, num_steps=num_steps)
    if "max_area" in arguments:
        arguments["_auto_resize"] = False  # otherwise Kontext inpainting overrides the requested size
    mask = fitted(pictures.mask, **size)
    return _Start(
        pipeline=sibling(model.pipeline, spec.inpaint_class or spec.pipeline_class),
        arguments=arguments | {"mask_image": mask},
        num_steps=num_steps,
        kept=Pictures(image=image, mask=mask),
    )


class _Steps:
    """Reports each denoising step of one image of a job, and ends it once the job is cancelled."""

    def __init__(
        self,
        start: _Start,
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


def _one_image(sampler: Sampler, start: _Start, seed: int, embeddings: Embeddings, steps: _Steps) -> Image:
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
