"""The references of a job as its pipeline takes them: pictures that the model looks at and does not redraw.

FLUX.2 and FLUX.3 take a list and tell the pictures apart by a coordinate of their tokens. Kontext takes one picture;
several, for a model that has learned it, stand on one canvas side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from flux_engine.media.decode import Pictures

if TYPE_CHECKING:
    from PIL.Image import Image

    from flux_engine.models.spec import ModelSpec

LEAST_SIDE: Final = 64  # pixels; FLUX.2's processor takes nothing smaller


def looked_at(spec: ModelSpec, pictures: Pictures) -> tuple[Image, ...]:
    """The references among `pictures`: `images`, or an `image` that the model does not redraw."""
    if pictures.references:
        return pictures.references
    is_reference = pictures.image is not None and pictures.mask is None and spec.limits.image_use == "reference"
    return (pictures.image,) if is_reference and pictures.image is not None else ()


def reference_arguments(spec: ModelSpec, references: Sequence[Image]) -> dict[str, Any]:
    """What a call gets for them, in their order."""
    if not spec.pipeline_class.startswith("FluxKontext"):
        return {"image": [at_least(picture, LEAST_SIDE) for picture in references]}
    if spec.reference_side is None:
        (only,) = references
        return {"image": only}
    return {"image": side_by_side(references, side=spec.reference_side), "_auto_resize": False}


def at_least(picture: Image, side: int) -> Image:
    """`picture`, enlarged where its shorter side has fewer pixels than `side`."""
    shorter = min(picture.size)
    if shorter >= side:
        return picture
    width, height = (max(side, round(length * side / shorter)) for length in picture.size)
    return picture.resize((width, height))


def side_by_side(pictures: Sequence[Image], *, side: int) -> Image:
    """`pictures`, each in a square of `side` pixels a side and whole, on one canvas from left to right."""
    from PIL import Image as Pillow
    from PIL import ImageOps, ImageStat

    canvas = Pillow.new("RGB", (side * len(pictures), side))
    for index, picture in enumerate(pictures):
        mean = tuple(round(level) for level in ImageStat.Stat(picture).mean)
        canvas.paste(ImageOps.pad(picture, (side, side), Pillow.Resampling.BOX, color=mean), (index * side, 0))
    return canvas
