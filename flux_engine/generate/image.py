"""An ImageJob becomes pictures, on the GPU thread.

Each image has a generator of its own on the CPU and is made by itself: so the same seed gives the same bytes on any
device and however many images are asked for at once. A batch would gain at most 6 % (flux-facts).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flux_engine.generate.gpu import Cancellation
from flux_engine.generate.preview import FlowPreview
from flux_engine.generate.text import Embeddings, PromptEncoder
from flux_engine.job import ImageJob
from flux_engine.progress import Progress

if TYPE_CHECKING:
    from PIL.Image import Image

    from flux_engine.models.manager import LoadedModel


@dataclass(slots=True)
class Generated:
    """Pictures in the order of `ImageJob.seeds`, and where the time went."""

    images: list[Image] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    text_ms: float = 0.0
    denoise_ms: float = 0.0
    decode_ms: float = 0.0

    def spent_ms(self) -> dict[str, float]:
        return {"text": self.text_ms, "denoise": self.denoise_ms, "decode": self.decode_ms}


class ImageGenerator:
    """Turns jobs into pictures; keeps nothing but prompt embeddings between them."""

    def __init__(self) -> None:
        self._prompts = PromptEncoder()

    def generate(self, model: LoadedModel, job: ImageJob, progress: Progress, cancellation: Cancellation) -> Generated:
        """Make the job's images. Raises JobCancelled at the first step after a cancellation."""
        done = Generated()
        progress.stage("text")
        began = time.perf_counter()
        model.tuned.applied.begin_job(
            model.pipeline, num_inference_steps=job.num_inference_steps, has_true_cfg=job.true_cfg_scale > 1
        )
        embeddings = self._embeddings(model, job)
        done.text_ms = _ms_since(began)
        cancellation.check()
        progress.stage("denoising")
        for index, seed in enumerate(job.seeds()):
            steps = _Steps(job, index, progress, cancellation)
            began = time.perf_counter()
            done.images.append(_one_image(model, job, seed, embeddings, steps))
            done.denoise_ms += (steps.ended_at - began) * 1000
            done.decode_ms += _ms_since(steps.ended_at)
        return done

    def _embeddings(self, model: LoadedModel, job: ImageJob) -> Embeddings:
        length = job.max_sequence_length
        embeddings = self._prompts.encode(model, job.prompt, max_sequence_length=length)
        if job.true_cfg_scale > 1:
            negative = job.negative_prompt or ""
            embeddings = embeddings | self._prompts.encode_negative(model, negative, max_sequence_length=length)
        return embeddings


class _Steps:
    """What happens at the end of each denoising step of one image of a job."""

    def __init__(self, job: ImageJob, index: int, progress: Progress, cancellation: Cancellation) -> None:
        self._steps = job.num_inference_steps
        self._before = index * self._steps
        self._total = job.num_images * self._steps
        self._progress = progress
        self._cancellation = cancellation
        self._preview = FlowPreview(width=job.width, height=job.height) if job.preview else None
        self.ended_at = time.perf_counter()

    def on_step_end(self, pipeline: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        """diffusers' `callback_on_step_end`."""
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


def _one_image(model: LoadedModel, job: ImageJob, seed: int, embeddings: Embeddings, steps: _Steps) -> Image:
    import torch

    guided: dict[str, Any] = {}
    if job.guidance_scale is not None:
        guided["guidance_scale"] = job.guidance_scale
    if job.true_cfg_scale > 1:
        guided["true_cfg_scale"] = job.true_cfg_scale
    image: Image = model.pipeline(
        **embeddings,
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
