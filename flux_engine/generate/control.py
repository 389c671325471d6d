"""Maps that a picture follows: a ControlNet beside the transformer, on the device while a job needs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from flux_engine.generate.sampling import sibling
from flux_engine.generate.start import Start
from flux_engine.job.image import ImageJob
from flux_engine.job.work import steps_run
from flux_engine.media.canny import edge_map
from flux_engine.media.decode import Pictures, fitted
from flux_engine.models.beside.controlnets import ControlNet, load_controlnet

if TYPE_CHECKING:
    from flux_engine.models.loaded import LoadedModel

PIPELINE_CLASS: Final = "FluxControlNetPipeline"
REDRAWING_CLASS: Final = "FluxControlNetImg2ImgPipeline"


class Controls:
    """Keeps the ControlNet that was used last in the host's memory."""

    def __init__(self) -> None:
        self._last: tuple[tuple[str, str, str], Any] | None = None  # folder, revision and dtype

    @contextmanager
    def start(
        self, model: LoadedModel, job: ImageJob, pictures: Pictures, found: ControlNet | None
    ) -> Iterator[Start | None]:
        """Within, how the results of `job` begin that follow the maps of `pictures`, from noise or from its image; None
        where it follows none.

        Raises ModelUnavailable for a ControlNet whose files are broken.
        """
        if not job.control or found is None:
            yield None
            return
        network = self._loaded(model, found)
        network.to(model.device)
        try:
            yield _start(model, job, pictures, found, network)
        finally:
            network.to("cpu")

    def _loaded(self, model: LoadedModel, found: ControlNet) -> Any:
        dtype = model.pipeline.transformer.dtype
        key = (str(found.folder), found.revision, str(dtype))
        if self._last is None or self._last[0] != key:
            self._last = None  # the old one goes before the new one comes
            self._last = (key, load_controlnet(found, dtype=dtype))
        return self._last[1]


def _start(model: LoadedModel, job: ImageJob, pictures: Pictures, found: ControlNet, network: Any) -> Start:
    from diffusers import FluxMultiControlNetModel

    controls = job.control or ()
    maps = [
        fitted(edge_map(picture) if control.type == "canny" else picture, width=job.width, height=job.height)
        for control, picture in zip(controls, pictures.maps, strict=True)
    ]
    class_name, num_steps, redrawn = PIPELINE_CLASS, job.num_inference_steps, {}
    if pictures.image is not None and job.strength is not None:
        class_name, num_steps = REDRAWING_CLASS, steps_run(num_steps, job.strength)
        image = fitted(pictures.image, width=job.width, height=job.height)
        redrawn = {"image": image, "strength": job.strength}
    # One network takes several maps as a list of networks does that has one of them alone.
    pipeline = sibling(model.pipeline, class_name, controlnet=FluxMultiControlNetModel([network]))
    arguments = redrawn | {
        "control_image": maps,
        "control_mode": [found.mode(control.type) for control in controls],
        "controlnet_conditioning_scale": [control.strength for control in controls],
        "control_guidance_start": [0.0] * len(controls),
        "control_guidance_end": [control.end for control in controls],
    }
    return Start(pipeline=pipeline, arguments=arguments, num_steps=num_steps)
