"""What a job asks of the GPU, in the unit that `usage` tells."""

from __future__ import annotations

from flux_engine.job.image import ImageJob
from flux_engine.job.limits import PIXELS_PER_MEGAPIXEL
from flux_engine.job.video import VideoJob


def work_of(job: ImageJob | VideoJob) -> float:
    """Megapixels x steps x pictures or frames that are generated, twice with true CFG."""
    pictures = job.frames_generated if isinstance(job, VideoJob) else job.num_images
    passes = 2 if job.true_cfg_scale > 1 else 1
    megapixels = job.width * job.height / PIXELS_PER_MEGAPIXEL
    return round(megapixels * job.num_inference_steps * pictures * passes, 6)
