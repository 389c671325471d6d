"""A finished picture enlarged: by an upscaler of the volume, else drawn anew in tiles by the model itself.

Each tile has the model's own size and is redrawn a little, so that it takes no more memory than any picture does. Tiles
overlap and are blended; their broad colours stay those of the picture.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from flux_engine.errors import InvalidInput
from flux_engine.generate.sampling import OnStep, Sampler, Spent
from flux_engine.generate.start import start_of
from flux_engine.job.edits.upscale import REDRAWN
from flux_engine.job.image import ImageJob
from flux_engine.job.limits import ModelLimits
from flux_engine.job.work import steps_run
from flux_engine.media.decode import Pictures
from flux_engine.media.mosaic import Box, Mosaic, Sides, tiles_of
from flux_engine.models.beside.upscaler import LoadedUpscaler, load_upscaler

if TYPE_CHECKING:
    from PIL.Image import Image

    from flux_engine.generate.text import Embeddings
    from flux_engine.inputs.upscalers import Upscaler
    from flux_engine.models.loaded import LoadedModel

OVERLAP: Final = 1 / 4  # of a tile's side
MULTIPLE: Final = 16  # of the sides that a model draws
LEAST_SIDE: Final = 64


class Enlarging(Protocol):
    """One way to enlarge a job's pictures, all of one size.

    larger = enlarging.enlarged(picture, seed, on_step=report)     # `report` is called for each of `num_steps`
    """

    @property
    def num_steps(self) -> int:
        """Denoising steps for one picture."""
        ...

    def enlarged(self, picture: Image, seed: int, *, on_step: Callable[[int], None]) -> Image: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ByUpscaler:
    """By a network from the volume."""

    network: LoadedUpscaler
    factor: int
    max_bytes: int
    spent: Spent

    @property
    def num_steps(self) -> int:
        return 0

    def enlarged(self, picture: Image, seed: int, *, on_step: Callable[[int], None]) -> Image:
        began = time.perf_counter()
        larger = self.network.enlarged(picture, self.factor, max_bytes=self.max_bytes)
        self.spent.decode_ms += (time.perf_counter() - began) * 1000
        return larger


@dataclass(frozen=True, slots=True, kw_only=True)
class ByTiles:
    """By the model, tile by tile; tile i has a seed of its own, so that no pattern repeats."""

    model: LoadedModel
    job: ImageJob
    embeddings: Embeddings
    size: Sides  # of the larger picture
    spent: Spent

    @property
    def num_steps(self) -> int:
        return len(self._boxes()) * self._steps_of_tile

    @property
    def _steps_of_tile(self) -> int:
        return steps_run(self.job.num_inference_steps, REDRAWN)

    def enlarged(self, picture: Image, seed: int, *, on_step: Callable[[int], None]) -> Image:
        from PIL import Image as Pillow

        beneath = picture.resize(self.size, Pillow.Resampling.LANCZOS)
        mosaic = Mosaic(beneath)
        for index, box in enumerate(self._boxes()):
            before = index * self._steps_of_tile

            def report(step: int, _latents: Any, before: int = before) -> None:
                on_step(before + step)

            mosaic.add(self._redrawn(beneath.crop(box), seed + index, report), box)
        return mosaic.picture()

    def _boxes(self) -> list[Box]:
        side = self.model.spec.limits.side
        return tiles_of(self.size, side=side, overlap=round(side * OVERLAP))

    def _redrawn(self, tile: Image, seed: int, on_step: OnStep) -> Image:
        import torch
        from PIL import Image as Pillow

        width, height = (max(-(-length // MULTIPLE) * MULTIPLE, LEAST_SIDE) for length in tile.size)
        job = replace(
            self.job, width=width, height=height, strength=REDRAWN, mask_crop=None, expand=None, is_size_open=False
        )
        is_reference = self.model.spec.limits.image_use != "start"
        everywhere = (
            Pillow.new("L", tile.size, 255) if is_reference else None
        )  # else the tile is looked at, not redrawn
        start = start_of(self.model, job, Pictures(image=tile, mask=everywhere))
        images: list[Image] = Sampler(self.model, job, self.spent).call(
            start.pipeline,
            self.embeddings,
            num_steps=start.num_steps,
            on_step=on_step,
            generator=torch.Generator("cpu").manual_seed(seed),
            **start.arguments,
        )
        return images[0]


def enlarging_of(
    model: LoadedModel, job: ImageJob, embeddings: Embeddings, *, size: Sides, upscaler: Upscaler | None, spent: Spent
) -> Enlarging | None:
    """How the pictures of `job`, each of `size`, are enlarged; None where they are not.

    Raises InvalidInput where the model redraws no picture and there is no upscaler, and ModelUnavailable for one that
    cannot be loaded.
    """
    if job.upscale is None:
        return None
    if upscaler is not None:
        network = load_upscaler(upscaler.path, device=model.device)
        return ByUpscaler(network=network, factor=job.upscale, max_bytes=model.plan.activation_bytes, spent=spent)
    if not _can_redraw(model.spec.limits):
        raise InvalidInput(
            f"{job.model} redraws no pictures and no upscaler is on the volume; put one there with "
            "`python builder/fetch_models.py RealESRGAN_x4`, or leave `upscale` out",
            field="upscale",
        )
    larger = size[0] * job.upscale, size[1] * job.upscale
    return ByTiles(model=model, job=job, embeddings=embeddings, size=larger, spent=spent)


def _can_redraw(limits: ModelLimits) -> bool:
    return limits.image_use == "start" or (limits.image_use == "reference" and limits.takes_mask)
