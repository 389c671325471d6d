"""One frame, or several in one call, from noise or from a picture, and what the client is told meanwhile.

Both kinds of video make their frames here. Pictures within `generate` are tensors (3, height, width) in 0 to 1 on the
pipeline's device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flux_engine.generate.sampling import Sampler, Spent, sibling
from flux_engine.generate.text import Embeddings
from flux_engine.job.video import VideoJob
from flux_engine.job.work import steps_run
from flux_engine.media.encode import preview_data_uri

if TYPE_CHECKING:
    from torch import Tensor, dtype

    from flux_engine.generate.gpu import Cancellation
    from flux_engine.models.loaded import LoadedModel
    from flux_engine.progress import Progress

Frame = NDArray[np.uint8]  # (height, width, 3), RGB


@dataclass(slots=True, kw_only=True)
class Report:
    """Tells the client of steps and frames, and the device of a cancellation."""

    progress: Progress
    cancellation: Cancellation
    total_steps: int
    total_frames: int
    has_previews: bool  # the client asked for them
    steps: int = 0
    frames: int = 0

    def step(self, count: int) -> None:
        """A denoising step of `count` frames is over. Raises JobCancelled."""
        self.cancellation.check()
        self.steps += count
        self._tell(preview=None)

    def frame(self, frame: Frame) -> None:
        """`frame` is made. Raises JobCancelled."""
        self.cancellation.check()
        self.frames += 1
        if self.has_previews and self.progress.wants_preview():
            from PIL import Image

            self._tell(preview=preview_data_uri(Image.fromarray(frame), xmp=self.progress.preview_xmp))

    def _tell(self, *, preview: str | None) -> None:
        frame = min(self.frames + 1, self.total_frames)
        self.progress.step(self.steps, self.total_steps, preview=preview, frame=frame, total_frames=self.total_frames)


class FrameSampler:
    """Calls the pipeline for the frames of one job."""

    def __init__(self, model: LoadedModel, job: VideoJob, report: Report, spent: Spent, *, dtype: dtype) -> None:
        self.device = model.pipeline._execution_device
        self._dtype = dtype
        self._sampler = Sampler(model, job, spent)
        self._pipeline = model.pipeline
        self._image_to_image: Any = None
        self._job = job
        self._report = report
        self._noise: dict[int, Tensor] = {}

    def noise(self, seed: int) -> Tensor:
        """The noise that an image job of `seed` starts from, packed: (1, tokens, channels)."""
        import torch

        if seed not in self._noise:
            pipeline, job = self._pipeline, self._job
            self._noise[seed] = pipeline.prepare_latents(
                1,
                pipeline.transformer.config.in_channels // 4,
                job.height,
                job.width,
                self._dtype,
                self.device,
                torch.Generator("cpu").manual_seed(seed),
            )[0]
        return self._noise[seed]

    def from_noise(self, noise: Sequence[Tensor], embeddings: Sequence[Embeddings]) -> Tensor:
        """A picture of each noise and its embeddings: (pictures, 3, height, width)."""
        import torch

        together = {name: torch.cat([e[name] for e in embeddings]) for name in embeddings[0]}
        steps = self._job.num_inference_steps
        return self._call(self._pipeline, together, steps=steps, latents=torch.cat(list(noise)))

    def from_picture(self, picture: Tensor, embeddings: Embeddings, *, strength: float, seed: int) -> Tensor:
        """`picture` redrawn at `strength`, above 0 to 1."""
        import torch

        if self._image_to_image is None:
            self._image_to_image = sibling(self._pipeline, "FluxImg2ImgPipeline")
        generator = torch.Generator("cpu").manual_seed(seed)
        steps = steps_run(self._job.num_inference_steps, strength)
        start = {"image": picture[None], "strength": strength, "generator": generator}
        made = self._call(self._image_to_image, embeddings, steps=steps, **start)
        return made[0]

    def finished(self, picture: Tensor) -> Frame:
        """`picture` as pixels; reports that the frame is made."""
        import torch

        pixels = (picture.float() * 255).round().to(torch.uint8)
        frame: Frame = pixels.permute(1, 2, 0).contiguous().cpu().numpy()
        self._report.frame(frame)
        return frame

    def _call(self, pipeline: Any, embeddings: Embeddings, *, steps: int, **start: Any) -> Tensor:
        """Pictures (pictures, 3, height, width)."""
        count = embeddings["prompt_embeds"].shape[0]
        pictures: Tensor = self._sampler.call(
            pipeline,
            embeddings,
            num_steps=steps,
            on_step=lambda _step, _latents: self._report.step(count),
            output_type="pt",
            **start,
        )
        return pictures
