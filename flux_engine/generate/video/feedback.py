"""A video in which each frame is the last one, moved and partly redrawn.

Before the model redraws it at `strength`, the last frame is moved by `motion`, given its keyframe's colours, sharpened
lightly and given a little noise: without these a chain drifts in tint and blurs. At each keyframe the chain is anchored
anew: prompt, colours and noise are that keyframe's own, and on the way there they ease from one to the next. For
each later keyframe one more picture is made, for its colours alone. In a loop the last quarter fades towards the first
frame before it is redrawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from flux_engine.generate.text import Embeddings
from flux_engine.generate.video.blend import blended
from flux_engine.generate.video.colour import Palette, matched, palette_of
from flux_engine.generate.video.frames import Frame, FrameSampler
from flux_engine.generate.video.motion import move_between, warped
from flux_engine.generate.video.schedule import eased, place_at
from flux_engine.job.fields import MAX_SEED
from flux_engine.job.timeline import Motion
from flux_engine.job.video import VideoJob
from flux_engine.job.work import strength_at
from flux_engine.media.decode import fitted

if TYPE_CHECKING:
    from torch import Tensor

SHARPENING: Final = 0.25  # share of the difference from a 3x3 blur that is added
NOISE: Final = 0.02  # standard deviation, of 0 to 1
HOMING_SHARE: Final = 0.25  # the last part of a loop, in which it leads back


class FeedbackChain:
    """Makes the frames of one job. `embeddings` has one entry a keyframe."""

    def __init__(self, job: VideoJob, sampler: FrameSampler, embeddings: Sequence[Embeddings]) -> None:
        self._job = job
        self._sampler = sampler
        self._embeddings = embeddings
        self._palettes: dict[int, Palette] = {}

    def frames(self, first_frame: Image.Image | None) -> Iterator[Frame]:
        """Every frame in order, beginning with `first_frame` where there is one."""
        first = self._from_noise(0) if first_frame is None else self._from_image(first_frame)
        self._palettes[0] = palette_of(first)
        yield self._sampler.finished(first)
        last = first
        for start, end in pairwise(self._job.positions()):
            last = self._next(last, first, start, end)
            yield self._sampler.finished(last)

    def _next(self, last: Tensor, first: Tensor, start: float, end: float) -> Tensor:
        job = self._job
        place = place_at(job.keyframes, end, num_frames=job.num_frames, is_loop=job.loop)
        share = eased(place.share)
        seed = _seed_at(job, place.before, end)
        picture = warped(last, move_between(job.motion or Motion(), start, end))
        if job.loop:
            picture = picture.lerp(first.to(picture.dtype), _homing(end, job.num_frames))
        palette = self._palette(place.before).towards(self._palette(place.after), share)
        picture = _noisy(_sharpened(matched(picture, palette)), seed)
        embeddings = blended(self._embeddings[place.before], self._embeddings[place.after], share)
        return self._sampler.from_picture(picture, embeddings, strength=strength_at(job, end), seed=seed)

    def _palette(self, keyframe: int) -> Palette:
        if keyframe not in self._palettes:
            self._palettes[keyframe] = palette_of(self._from_noise(keyframe))
        return self._palettes[keyframe]

    def _from_noise(self, keyframe: int) -> Tensor:
        noise = self._sampler.noise(self._job.keyframes[keyframe].seed)
        return self._sampler.from_noise([noise], [self._embeddings[keyframe]])[0].float()

    def _from_image(self, image: Image.Image) -> Tensor:
        """`image` cropped about its centre to the job's shape."""
        import torch

        whole = fitted(image.convert("RGB"), width=self._job.width, height=self._job.height)
        return torch.from_numpy(np.array(whole)).to(self._sampler.device).permute(2, 0, 1).float() / 255


def _seed_at(job: VideoJob, keyframe: int, position: float) -> int:
    """Another noise each frame: the same one over and over would burn its pattern in."""
    anchor = job.keyframes[keyframe]
    return (anchor.seed + round(position - anchor.frame)) % (MAX_SEED + 1)


def _homing(position: float, num_frames: int) -> float:
    """How far a loop has come on its way back to its first frame."""
    left = (num_frames - position) / (num_frames * HOMING_SHARE)
    return eased(1 - min(1.0, left))


def _sharpened(picture: Tensor) -> Tensor:
    from torch.nn.functional import avg_pool2d, pad

    blurred = avg_pool2d(pad(picture[None], (1, 1, 1, 1), mode="reflect"), 3, stride=1)[0]
    return picture + SHARPENING * (picture - blurred)


def _noisy(picture: Tensor, seed: int) -> Tensor:
    import torch

    noise = torch.randn(picture.shape, generator=torch.Generator("cpu").manual_seed(seed))
    return (picture + NOISE * noise.to(picture.device)).clamp(0, 1)
