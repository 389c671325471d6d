"""What a job asks of the GPU: its steps, its passes, and the one figure that `usage` tells."""

from __future__ import annotations

from flux_engine.job.edits.upscale import REDRAWN
from flux_engine.job.image import ImageJob
from flux_engine.job.limits import PIXELS_PER_MEGAPIXEL
from flux_engine.job.timeline import Schedule, value_at
from flux_engine.job.video import VideoJob


def work_of(job: ImageJob | VideoJob) -> float:
    """Megapixels x steps x pictures or frames that are generated, twice with true CFG; with `upscale` also the tiles
    that are drawn anew, whether the model draws them or an upscaler does that work."""
    megapixels = job.width * job.height / PIXELS_PER_MEGAPIXEL
    enlarged = 1 + redrawn_share(job)
    return round(megapixels * job.num_inference_steps * pictures_of(job) * passes_of(job) * enlarged, 6)


def redrawn_share(job: ImageJob | VideoJob) -> float:
    """The work of enlarging a picture, against that of making it."""
    if not isinstance(job, ImageJob) or job.upscale is None:
        return 0.0
    return job.upscale**2 * REDRAWN


def pictures_of(job: ImageJob | VideoJob) -> int:
    """Pictures, or frames, that the model makes."""
    return job.frames_generated if isinstance(job, VideoJob) else job.num_images


def passes_of(job: ImageJob | VideoJob) -> int:
    """Passes of one step: true CFG adds one without the prompt."""
    return 2 if job.true_cfg_scale > 1 else 1


def steps_of(job: ImageJob | VideoJob) -> int:
    """Denoising steps that run for the whole job: fewer than its own for each picture that is redrawn."""
    if isinstance(job, ImageJob):
        steps = steps_run(job.num_inference_steps, 1.0 if job.strength is None else job.strength)
        tiles = 0 if job.upscale is None else job.upscale**2 * steps_run(job.num_inference_steps, REDRAWN)
        return job.num_images * (steps + tiles)
    if job.mode == "interpolate":
        return job.frames_made * job.num_inference_steps
    whole = len(job.keyframes) - 1 + (0 if job.image is not None else 1)
    redrawn = sum(steps_run(job.num_inference_steps, strength_at(job, position)) for position in job.positions()[1:])
    return whole * job.num_inference_steps + redrawn


def steps_run(num_inference_steps: int, strength: float) -> int:
    """How many steps image-to-image runs: those from noise level `strength` on, at least one."""
    return num_inference_steps - int(num_inference_steps - num_inference_steps * strength)


def strength_at(job: VideoJob, position: float) -> float:
    """How much of the frame at `position` is redrawn in `mode` feedback."""
    schedule: Schedule = job.strength or ((0, 1.0),)
    return value_at(schedule, position)
