"""What every picture of a job starts from: the pipeline, its arguments, and where its drawing is put back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flux_engine.generate.references import looked_at, reference_arguments
from flux_engine.generate.sampling import sibling
from flux_engine.job.image import ImageJob
from flux_engine.job.shape import drawn_region
from flux_engine.job.work import steps_run
from flux_engine.media.decode import Pictures, fitted
from flux_engine.media.patch import Patch, laid_on, mask_on

if TYPE_CHECKING:
    from PIL.Image import Image

    from flux_engine.models.loaded import LoadedModel
    from flux_engine.models.spec import ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """The pipeline of a job's pictures, its arguments, and how many steps run."""

    pipeline: Any
    arguments: dict[str, Any]
    num_steps: int
    patch: Patch | None = None  # what is made belongs there; None: it is the whole picture

    def size_of(self, job: ImageJob) -> tuple[int, int]:
        """Width and height of the job's pictures."""
        return (job.width, job.height) if self.patch is None else self.patch.canvas.size

    def finished(self, made: Image) -> Image:
        """`made` as the job's picture: outside a mask the given picture's own pixels, which the VAE would change."""
        return made if self.patch is None else self.patch.put_back(made)


def start_of(model: LoadedModel, job: ImageJob, pictures: Pictures) -> Start:
    """How the pictures of `job` begin; `pictures` are those that it brings, of any size."""
    spec = model.spec
    arguments: dict[str, Any] = {}
    if spec.pipeline_class.startswith("FluxKontext"):
        arguments["max_area"] = job.width * job.height  # otherwise Kontext makes a megapixel
    patch = _patch(job, pictures)
    redrawing = spec.image_to_image_class or spec.pipeline_class
    references = looked_at(spec, pictures) if patch is None else ()
    if references:
        arguments |= reference_arguments(spec, job, references)
        pipeline = sibling(model.pipeline, redrawing)
        return Start(pipeline=pipeline, arguments=arguments, num_steps=job.num_inference_steps)
    if pictures.image is None:
        return Start(pipeline=model.pipeline, arguments=arguments, num_steps=job.num_inference_steps)
    strength = 1.0 if job.strength is None else job.strength
    arguments["strength"] = strength
    num_steps = steps_run(job.num_inference_steps, strength)
    if patch is None:
        arguments["image"] = fitted(pictures.image, width=job.width, height=job.height)
        return Start(pipeline=sibling(model.pipeline, redrawing), arguments=arguments, num_steps=num_steps)
    if "max_area" in arguments:
        arguments["_auto_resize"] = False  # otherwise Kontext inpainting overrides the requested size
    image, mask = patch.cut(job.width, job.height, cell=_cell_of(spec))
    return Start(
        pipeline=sibling(model.pipeline, spec.inpaint_class or spec.pipeline_class),
        arguments=arguments | {"image": image, "mask_image": mask},
        num_steps=num_steps,
        patch=patch,
    )


def _patch(job: ImageJob, pictures: Pictures) -> Patch | None:
    """What is drawn of the job's picture and put back; None where it has neither mask nor room to be filled."""
    image, mask, feather = pictures.image, pictures.mask, job.mask_feather or 0
    if image is None:
        return None
    region = drawn_region(job, image.size, pictures.painted)
    if region is not None:
        canvas, at = region.canvas, region.at
        box = region.shaped(job.width, job.height).box
        if canvas == image.size and mask is not None:
            return Patch(canvas=image, mask=mask, box=box, feather=feather)
        kept = (*at, at[0] + image.width, at[1] + image.height)
        painted = mask_on(mask, image.size, canvas, at)
        return Patch(canvas=laid_on(image, canvas, at), mask=painted, box=box, feather=feather, kept=kept)
    if mask is None:
        return None
    size = {"width": job.width, "height": job.height}
    box = (0, 0, job.width, job.height)
    return Patch(canvas=fitted(image, **size), mask=fitted(mask, **size), box=box, feather=feather)


def _cell_of(spec: ModelSpec) -> int:
    """Pixels of the cells in which the pipeline reads a mask."""
    return 16 if spec.pipeline_class.startswith("Flux2") else 8
