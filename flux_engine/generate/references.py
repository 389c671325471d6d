"""The references of a job as its pipeline takes them: pictures that the model looks at and does not redraw.

FLUX.2 and FLUX.3 take a list and tell the pictures apart by a coordinate of their tokens. Kontext takes one picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from flux_engine.media.decode import Pictures, fitted

if TYPE_CHECKING:
    from PIL.Image import Image

    from flux_engine.job.image import ImageJob
    from flux_engine.models.spec import ModelSpec

LEAST_SIDE: Final = 64  # pixels; FLUX.2's processor takes nothing smaller


def looked_at(spec: ModelSpec, pictures: Pictures) -> tuple[Image, ...]:
    """The references among `pictures`: `images`, or an `image` that the model does not redraw."""
    if pictures.references:
        return pictures.references
    is_reference = pictures.image is not None and pictures.mask is None and spec.limits.image_use == "reference"
    return (pictures.image,) if is_reference and pictures.image is not None else ()


def reference_arguments(spec: ModelSpec, job: ImageJob, references: Sequence[Image]) -> dict[str, Any]:
    """What a call gets for them, in their order."""
    if not spec.pipeline_class.startswith("FluxKontext"):
        return {"image": [at_least(picture, LEAST_SIDE) for picture in references]}
    (only,) = references
    if not spec.fits_references:
        return {"image": only}
    return {"image": fitted(only, width=job.width, height=job.height), "_auto_resize": False}


def at_least(picture: Image, side: int) -> Image:
    """`picture`, enlarged where its shorter side has fewer pixels than `side`."""
    shorter = min(picture.size)
    if shorter >= side:
        return picture
    width, height = (max(side, round(length * side / shorter)) for length in picture.size)
    return picture.resize((width, height))
