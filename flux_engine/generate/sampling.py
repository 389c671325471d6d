"""Calling a pipeline: one way for pictures and for frames.

Every denoising run of a job goes through `Sampler.call`: guidance, step cache, cancellation points and clock are the
same whatever is made. Which pipeline class takes a job's pictures is the caller's matter; `sibling` makes one.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flux_engine.generate.gpu import settle
from flux_engine.generate.text import Embeddings

if TYPE_CHECKING:
    from torch import Tensor

    from flux_engine.job.base import Job
    from flux_engine.models.loaded import LoadedModel

OnStep = Callable[[int, "Tensor"], None]  # the step, from 0, and the latents after it; may raise JobCancelled


@dataclass(slots=True)
class Spent:
    """Where a job's time on the GPU went, in milliseconds; grows while the job runs."""

    text_ms: float = 0.0
    denoise_ms: float = 0.0
    decode_ms: float = 0.0

    def by_stage(self) -> dict[str, float]:
        """By the names of the result's timings."""
        return {"text": self.text_ms, "denoise": self.denoise_ms, "decode": self.decode_ms}


@dataclass(frozen=True, slots=True)
class Sampler:
    """Runs the pipelines of one job and adds what they take to `spent`.

    made = Sampler(model, job, spent).call(pipeline, embeddings, num_steps=28, on_step=report, generator=generator)
    """

    model: LoadedModel
    job: Job
    spent: Spent

    def call(self, pipeline: Any, embeddings: Embeddings, *, num_steps: int, on_step: OnStep, **arguments: Any) -> Any:
        """What `pipeline` makes of `embeddings`, as its output's `images`.

        `num_steps` is how many steps will run: fewer than the job's own where a picture is redrawn. `arguments` are the
        pipeline's, such as `image`, `latents` or `generator`. The device has finished its work on return.
        """
        job = self.job
        has_true_cfg = job.true_cfg_scale > 1
        # Another pipeline may have run since the last call: its steps must not be reused in this one.
        self.model.tuned.applied.begin_call(
            self.model.pipeline, num_inference_steps=num_steps, has_true_cfg=has_true_cfg
        )
        guidance: dict[str, Any] = {} if job.guidance_scale is None else {"guidance_scale": job.guidance_scale}
        if has_true_cfg:
            guidance["true_cfg_scale"] = job.true_cfg_scale
        began = ended = time.perf_counter()

        def on_step_end(_pipeline: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            nonlocal ended
            settle()
            on_step(step, tensors["latents"])
            ended = time.perf_counter()
            return {}

        images = pipeline(
            **embeddings,
            **guidance,
            **arguments,
            width=job.width,
            height=job.height,
            num_inference_steps=job.num_inference_steps,
            max_sequence_length=job.max_sequence_length,
            callback_on_step_end=on_step_end,
        ).images
        settle()
        self.spent.denoise_ms += (ended - began) * 1000
        self.spent.decode_ms += (time.perf_counter() - ended) * 1000
        return images


def sibling(pipeline: Any, class_name: str, **parts: Any) -> Any:
    """A pipeline of diffusers' class `class_name` made of the parts of `pipeline` and further `parts`, or `pipeline` if
    it is one.

    It gets a scheduler of its own: a shared one would keep the steps of the other pipeline. `from_pipe` is no
    alternative, since it casts the shared parts to float32.
    """
    if class_name in (type(pipeline).__name__, getattr(pipeline, "class_name", None)):
        return pipeline
    import diffusers

    made_by = getattr(diffusers, class_name)
    given = dict(pipeline.config) | pipeline.components | parts
    given["scheduler"] = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
    made = made_by(**{name: given[name] for name in inspect.signature(made_by).parameters if name in given})
    made.set_progress_bar_config(disable=True)
    return made
