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
from flux_engine.generate.sampling import sibling, steps_run
from flux_engine.generate.text import Embeddings, PromptEncoder
from flux_engine.job.image import ImageJob
from flux_engine.media.decode import Pictures, fitted
from flux_engine.progress import Progress

if TYPE_CHECKING:
    from PIL.Image import Image

    from flux_engine.models.manager import LoadedModel


@dataclass(slots=True)
class Generated:
    """Pictures in the order of `ImageJob.seeds`, and where the time went."""

    images: list[Image] = field(default_factory=list)
    text_ms: float = 0.0
    denoise_ms: float = 0.0
    decode_ms: float = 0.0

    def spent_ms(self) -> dict[str, float]:
        return {"text": self.text_ms, "denoise": self.denoise_ms, "decode": self.decode_ms}


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
        done = Generated()
        progress.stage("text")
        began = time.perf_counter()
        start = _start(model, job, pictures or Pictures())
        embeddings = self._prompts.encode(model, job, job.prompt)
        settle()
        done.text_ms = _ms_since(began)
        cancellation.check()
        progress.stage("denoising")
        for index, seed in enumerate(job.seeds()):
            preview = FlowPreview(width=job.width, height=job.height) if job.preview and can_preview(model) else None
            steps = _Steps(job, start.num_steps, index, progress, cancellation, preview=preview)
            began = time.perf_counter()
            model.tuned.applied.begin_call(
                model.pipeline, num_inference_steps=start.num_steps, has_true_cfg=job.true_cfg_scale > 1
            )
            made = _one_image(start, job, seed, embeddings, steps)
            done.images.append(start.outside_mask(made))
            done.denoise_ms += (steps.ended_at - began) * 1000
            done.decode_ms += _ms_since(steps.ended_at)
        return done


def can_preview(model: LoadedModel) -> bool:
    """Whether the VAE is at hand between two steps: offloaded as a whole, each look would swap it and the transformer,
    12 to 22 GiB each way."""
    return model.tuned.applied.offload != "model"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    """What the images of a job begin from: the pipeline that takes it, its arguments, and the steps that it runs."""

    pipeline: Any
    arguments: dict[str, Any]
    num_steps: int
    kept: Pictures = field(default_factory=Pictures)  # what stands where the mask is black

    def outside_mask(self, made: Image) -> Image:
        """`made` within the mask, and the given picture's own pixels outside it: the VAE would change them a little."""
        if self.kept.image is None or self.kept.mask is None:
            return made
        from PIL import Image as Pillow

        return Pillow.composite(made, self.kept.image, self.kept.mask)


def _start(model: LoadedModel, job: ImageJob, pictures: Pictures) -> _Start:
    limits, spec = model.spec.limits, model.spec
    arguments: dict[str, Any] = {}
    if spec.pipeline_class.startswith("FluxKontext"):
        arguments["max_area"] = job.width * job.height  # else it makes a megapixel, whatever width and height say
    if pictures.image is None:
        return _Start(pipeline=model.pipeline, arguments=arguments, num_steps=job.num_inference_steps)
    if pictures.mask is None and limits.image_use == "reference":
        pipeline = sibling(model.pipeline, spec.image_to_image_class or spec.pipeline_class)
        arguments["image"] = pictures.image
        return _Start(pipeline=pipeline, arguments=arguments, num_steps=job.num_inference_steps)
    size = {"width": job.width, "height": job.height}
    image = fitted(pictures.image, **size)
    strength = 1.0 if job.strength is None else job.strength
    arguments |= {"image": image, "strength": strength}
    num_steps = steps_run(job.num_inference_steps, strength)
    if pictures.mask is None:
        pipeline = sibling(model.pipeline, spec.image_to_image_class or spec.pipeline_class)
        return _Start(pipeline=pipeline, arguments=arguments, num_steps=num_steps)
    if "max_area" in arguments:
        arguments["_auto_resize"] = False  # else Kontext's inpainting leaves the job's size for one of its own
    mask = fitted(pictures.mask, **size)
    return _Start(
        pipeline=sibling(model.pipeline, spec.inpaint_class or spec.pipeline_class),
        arguments=arguments | {"mask_image": mask},
        num_steps=num_steps,
        kept=Pictures(image=image, mask=mask),
    )


class _Steps:
    """What happens at the end of each denoising step of one image of a job."""

    def __init__(
        self,
        job: ImageJob,
        num_steps: int,
        index: int,
        progress: Progress,
        cancellation: Cancellation,
        *,
        preview: FlowPreview | None,
    ) -> None:
        self._before = index * num_steps
        self._total = job.num_images * num_steps
        self._progress = progress
        self._cancellation = cancellation
        self._preview = preview
        self.ended_at = time.perf_counter()

    def on_step_end(self, pipeline: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        """diffusers' `callback_on_step_end`."""
        settle()
        self._cancellation.check()
        preview = None
        if self._preview is not None:
            is_wanted = self._progress.wants_preview()
            preview = self._preview.follow(pipeline, tensors["latents"], step, is_wanted=is_wanted)
        done = self._before + step + 1
        self._progress.step(done, self._total, preview=preview)
        self.ended_at = time.perf_counter()
        if done == self._total:
            self._progress.stage("decoding")
        return {}


def _one_image(start: _Start, job: ImageJob, seed: int, embeddings: Embeddings, steps: _Steps) -> Image:
    import torch

    guided: dict[str, Any] = {}
    if job.guidance_scale is not None:
        guided["guidance_scale"] = job.guidance_scale
    if job.true_cfg_scale > 1:
        guided["true_cfg_scale"] = job.true_cfg_scale
    image: Image = start.pipeline(
        **embeddings,
        **start.arguments,
        **guided,
        width=job.width,
        height=job.height,
        num_inference_steps=job.num_inference_steps,
        max_sequence_length=job.max_sequence_length,
        generator=torch.Generator("cpu").manual_seed(seed),
        callback_on_step_end=steps.on_step_end,
    ).images[0]
    return image


def _ms_since(moment: float) -> float:
    return (time.perf_counter() - moment) * 1000
