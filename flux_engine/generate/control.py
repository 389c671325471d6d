"""Maps that a picture follows: a ControlNet beside the transformer, on the device while a job needs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from flux_engine.errors import InvalidInput
from flux_engine.generate.sampling import sibling
from flux_engine.generate.start import Start
from flux_engine.job.base import CONTROL, JsonObject
from flux_engine.job.edits.control import Control
from flux_engine.job.image import ImageJob
from flux_engine.job.work import steps_run
from flux_engine.media.canny import edge_map
from flux_engine.media.decode import Pictures, fitted
from flux_engine.media.maps import is_depth_map, is_pose_map
from flux_engine.models.beside.controlnets import ControlNet, load_controlnet
from flux_engine.models.beside.depth import DepthModel, LoadedDepth, load_depth

if TYPE_CHECKING:
    from PIL.Image import Image

    from flux_engine.models.loaded import LoadedModel

PIPELINE_CLASS: Final = "FluxControlNetPipeline"
REDRAWING_CLASS: Final = "FluxControlNetImg2ImgPipeline"


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlParts:
    """What of the volume serves a job's `control`; `depth` makes depth maps of pictures that are none."""

    network: ControlNet
    depth: DepthModel | None = None  # for jobs of that type alone

    @property
    def bytes(self) -> int:
        """Of the device beside the model, at the peak: the depth model has gone when the ControlNet comes."""
        return max(self.network.bytes, self.depth.device_bytes if self.depth is not None else 0)

    def content(self) -> JsonObject:
        """Their revisions, for the fingerprint."""
        made_by = {"depth": self.depth.revision} if self.depth is not None else {}
        return {"controlnet": self.network.revision} | made_by


class Controls:
    """Keeps the ControlNet and the depth model that were used last in the host's memory."""

    def __init__(self) -> None:
        self._last: tuple[tuple[str, str, str], Any] | None = None  # folder, revision and dtype
        self._last_depth: tuple[DepthModel, LoadedDepth] | None = None

    @contextmanager
    def start(
        self, model: LoadedModel, job: ImageJob, pictures: Pictures, found: ControlParts | None
    ) -> Iterator[Start | None]:
        """Within, how the results of `job` begin that follow the maps of `pictures`, from noise or from its image; None
        where it follows none.

        Raises InvalidInput for a picture that is no map, and ModelUnavailable for networks whose files are broken.
        """
        if not job.control or found is None:
            yield None
            return
        maps = tuple(
            fitted(self._map(model, control, picture, found, f"{CONTROL}[{index}].image"), **_size(job))
            for index, (control, picture) in enumerate(zip(job.control, pictures.maps, strict=True))
        )
        network = self._loaded(model, found.network)
        network.to(model.device)
        try:
            yield _start(model, job, replace(pictures, maps=maps), found.network, network)
        finally:
            network.to("cpu")

    def _map(self, model: LoadedModel, control: Control, picture: Image, found: ControlParts, name: str) -> Image:
        """`picture` as the map that `control` means: as it is, or made of it."""
        if control.type == "canny":
            return edge_map(picture)
        if control.type == "depth" and not is_depth_map(picture):
            if found.depth is None:
                raise InvalidInput(
                    f"`{name}` is in colour, so no depth map, and no depth model is on the volume to make it; send a "
                    "map, or put one there with `python builder/fetch_models.py Depth-Anything-V2-Small`",
                    field=name,
                )
            return self._loaded_depth(found.depth).map_of(picture, device=model.device)
        if control.type == "pose" and not is_pose_map(picture):
            raise InvalidInput(
                f"`{name}` is no pose map, a skeleton on black; poses are not found here, so send what OpenPose or "
                "DWPose draws",
                field=name,
            )
        return picture

    def _loaded(self, model: LoadedModel, found: ControlNet) -> Any:
        dtype = model.pipeline.transformer.dtype
        key = (str(found.folder), found.revision, str(dtype))
        if self._last is None or self._last[0] != key:
            self._last = None  # the old one goes before the new one comes
            self._last = (key, load_controlnet(found, dtype=dtype))
        return self._last[1]

    def _loaded_depth(self, found: DepthModel) -> LoadedDepth:
        if self._last_depth is None or self._last_depth[0] != found:
            self._last_depth = None
            self._last_depth = (found, load_depth(found))
        return self._last_depth[1]


def _start(model: LoadedModel, job: ImageJob, pictures: Pictures, found: ControlNet, network: Any) -> Start:
    """`pictures` with the maps themselves, at the job's size."""
    from diffusers import FluxMultiControlNetModel

    controls, image = job.control or (), pictures.image
    class_name, num_steps, redrawn = PIPELINE_CLASS, job.num_inference_steps, dict[str, Any]()
    if image is not None and job.strength is not None:
        class_name, num_steps = REDRAWING_CLASS, steps_run(num_steps, job.strength)
        redrawn = {"image": fitted(image, **_size(job)), "strength": job.strength}
    # One network takes several maps as a list of networks does that has one of them alone.
    pipeline = sibling(model.pipeline, class_name, controlnet=FluxMultiControlNetModel([network]))
    arguments = redrawn | {
        "control_image": list(pictures.maps),
        "control_mode": [found.mode(control.type) for control in controls],
        "controlnet_conditioning_scale": [control.strength for control in controls],
        "control_guidance_start": [0.0] * len(controls),
        "control_guidance_end": [control.end for control in controls],
    }
    return Start(pipeline=pipeline, arguments=arguments, num_steps=num_steps)


def _size(job: ImageJob) -> dict[str, int]:
    return {"width": job.width, "height": job.height}
