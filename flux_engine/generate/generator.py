"""From a job and its inputs to pictures or a film: behind one call the model, its LoRAs, the GPU thread, cancellation.

    with generator.turn() as turn:                        # first, so that no later job passes this one
        identity = await generator.identity(job)          # what the result will be made by, without loading it
        made = await generator.make(job, inputs, progress=progress, clock=clock, turn=turn)

A cancelled call ends once the device is free. Files, stores and the platform are unknown here.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from contextvars import copy_context
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from flux_engine.generate.control import ControlParts
from flux_engine.generate.gpu import Cancellation, GpuThread
from flux_engine.generate.image import Generated, ImageGenerator, can_preview
from flux_engine.generate.interruption import interruptible
from flux_engine.generate.screening import NO_PREVIEW as NO_PREVIEW_BESIDE_FILTER
from flux_engine.generate.screening import Screened, screened
from flux_engine.generate.turns import Turn
from flux_engine.generate.video.film import Film, film
from flux_engine.generate.video.generator import VideoGenerator, check_model
from flux_engine.inputs.fetcher import JobInputs
from flux_engine.job.base import JsonObject
from flux_engine.job.fingerprint import ModelIdentity
from flux_engine.job.image import ImageJob
from flux_engine.job.video import VideoJob
from flux_engine.models.beside.content_filter import ContentFilter
from flux_engine.models.beside.controlnets import ControlNets
from flux_engine.models.beside.depth import DepthModels
from flux_engine.models.loaded import LoadedModel
from flux_engine.models.manager import NO_DEMAND, FluxModelManager
from flux_engine.models.planning.estimate import reference_pixels
from flux_engine.models.spec import ModelSpec
from flux_engine.models.steps import Demand
from flux_engine.progress import Progress
from flux_engine.results.entry import Withheld
from flux_engine.timings import Clock

if TYPE_CHECKING:
    from PIL.Image import Image

NO_PREVIEW: Final = "`preview` has no effect: this GPU would move the model out and in again for each one"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a job was made into, and by what: `pictures` in the order of their `seeds`, or an encoded `video`.

    `withheld` is said of pictures that the content filter kept back. `plan` is the plan as it took effect. `warnings`
    are about the pixels, whoever gets them; `notes` about this job.
    """

    identity: ModelIdentity
    plan: dict[str, Any]
    pictures: tuple[Image, ...] = ()
    seeds: tuple[int, ...] = ()
    withheld: tuple[Withheld, ...] = ()
    video: bytes = b""
    thumbnail: bytes = b""  # WebP
    enhanced_prompt: str | None = None
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Generator:
    """Makes what jobs ask for, one at a time, in the order of their turns."""

    def __init__(
        self, models: FluxModelManager, gpu: GpuThread, *, controlnets: ControlNets, depths: DepthModels
    ) -> None:
        self._models = models
        self._controlnets = controlnets
        self._depths = depths
        self._gpu = gpu
        self._looking = ThreadPoolExecutor(max_workers=1, thread_name_prefix="look")  # one at a time; begins when used
        self._looked_at: set[str] = set()  # models whose identity needs no look at the GPU or the volume any more
        self._images = ImageGenerator()
        self._videos = VideoGenerator()

    def turn(self) -> AbstractContextManager[Turn]:
        """A job's turn on the device; see turns.py."""
        return self._gpu.turn()

    async def identity(self, job: ImageJob | VideoJob) -> ModelIdentity:
        """What results of `job` are made by; a leaner plan may turn out to make it where memory runs out.

        Raises ModelUnavailable, and InvalidInput for a video of a model that makes none. The first look at the GPU
        takes seconds: it has a thread of its own, since on the GPU thread a hit would wait for another job.
        """
        spec = self._models.served.named(job.model)
        if isinstance(job, VideoJob):
            check_model(spec)
        demand = _demand(spec, job, beside=self._control(job, spec))
        if spec.id in self._looked_at and self._models.can_identify(spec):
            return self._models.identity(spec, demand)
        identity = await self._looked(spec, demand)
        self._looked_at.add(spec.id)
        return identity

    async def make(
        self, job: ImageJob | VideoJob, inputs: JobInputs, *, progress: Progress, clock: Clock, turn: Turn
    ) -> Made:
        """Load the model if it is cold, apply the job's LoRAs and generate, when its turn comes.

        Raises ModelUnavailable, OutOfMemory, LoraInvalid, LoraIncompatible, InputFetchFailed and DeviceBroken.
        """

        def on_gpu_thread(cancellation: Cancellation) -> Made:
            with clock.holding_gpu():
                return self._loaded_and_made(_Order(job, inputs, progress, clock, cancellation))

        return await self._gpu.run(on_gpu_thread, turn=turn)

    def content(self, job: ImageJob | VideoJob) -> JsonObject:
        """What of the volume makes the result of `job` beside the model, for its fingerprint. Raises as `identity`."""
        found = self._control(job, self._models.served.named(job.model))
        return {} if found is None else found.content()

    async def warm(self) -> ModelIdentity:
        """Load the default model before the first job asks for it; by what its results will be made. Raises as
        `make`."""
        spec = self._models.served.default()
        await self._looked(spec)
        return await self._gpu.run(lambda _: self._models.use(spec, lambda model: model.identity))

    def close(self) -> None:
        """The GPU thread is its owner's to end."""
        self._looking.shutdown(wait=False)

    async def _looked(self, spec: ModelSpec, demand: Demand = NO_DEMAND) -> ModelIdentity:
        loop, context = asyncio.get_running_loop(), copy_context()
        return await loop.run_in_executor(self._looking, context.run, self._models.identity, spec, demand)

    def _loaded_and_made(self, order: _Order) -> Made:
        """The model itself stays here: a job that is still being uploaded would keep it from being unloaded."""
        began = time.perf_counter()
        spec = self._models.served.named(order.job.model)
        is_cold = not self._models.is_warm(spec)
        if is_cold:
            order.progress.stage("loading")

        def with_model(model: LoadedModel) -> Made:
            order.clock.spent_ms["load"] = (time.perf_counter() - began) * 1000
            if is_cold:
                order.clock.cold_start_ms |= model.phases_ms
            return self._made_by(model, order)

        beside = self._control(order.job, spec)
        return self._models.use(spec, with_model, demand=_demand(spec, order.job, order.inputs, beside=beside))

    def _made_by(self, model: LoadedModel, order: _Order) -> Made:
        job, content_filter = order.job, self._models.content_filter
        notes = _preview_notes(model, job, content_filter)
        if content_filter is not None and job.preview:
            job = replace(job, preview=False)
        with order.clock.measure("lora"):
            scales = (lora.scale for lora in job.loras)
            warnings = model.apply_loras(zip(order.inputs.loras, scales, strict=True))
        with interruptible(model, order.cancellation):
            made = self._film(model, job, order) if isinstance(job, VideoJob) else self._pictures(model, job, order)
        if isinstance(made, Generated) and isinstance(job, ImageJob):
            shown = screened(made.images, job, content_filter)
        else:
            shown = Screened((), ())
        order.clock.spent_ms |= made.spent_ms()
        read = made.prompt if isinstance(made, Generated) else None
        return Made(
            identity=model.identity,
            plan=model.tuned.applied.to_dict(),
            pictures=shown.pictures,
            seeds=shown.seeds,
            withheld=shown.withheld,
            video=made.data if isinstance(made, Film) else b"",
            thumbnail=made.thumbnail if isinstance(made, Film) else b"",
            enhanced_prompt=read.enhanced if read is not None else None,
            warnings=(*warnings, *made.warnings, *shown.warnings()),
            notes=notes,
        )

    def _pictures(self, model: LoadedModel, job: ImageJob, order: _Order) -> Generated:
        found = self._control(job, model.spec)
        return self._images.generate(model, job, order.progress, order.cancellation, inputs=order.inputs, control=found)

    def _control(self, job: ImageJob | VideoJob, spec: ModelSpec) -> ControlParts | None:
        """What `job` needs for its `control`. Raises ModelUnavailable where no ControlNet is on the volume."""
        if not isinstance(job, ImageJob) or not job.control:
            return None
        has_depth = any(control.type == "depth" for control in job.control)
        return ControlParts(network=self._controlnets.needed(spec), depth=self._depths.find() if has_depth else None)

    def _film(self, model: LoadedModel, job: VideoJob, order: _Order) -> Film:
        first_frame = order.inputs.pictures.image
        return film(
            self._videos,
            model,
            job,
            order.progress,
            order.cancellation,
            first_frame=first_frame,
            content_filter=self._models.content_filter,
        )


def _preview_notes(
    model: LoadedModel, job: ImageJob | VideoJob, content_filter: ContentFilter | None
) -> tuple[str, ...]:
    if not job.preview:
        return ()
    if content_filter is not None:
        return (NO_PREVIEW_BESIDE_FILTER,)
    return (NO_PREVIEW,) if isinstance(job, ImageJob) and not can_preview(model) else ()


def _demand(
    spec: ModelSpec, job: ImageJob | VideoJob, inputs: JobInputs | None = None, *, beside: ControlParts | None
) -> Demand:
    """What the job needs of the device beside the model, whose plan has room for one reference. LoRAs that are gone by
    now are reported when they are read."""
    files = [lora.path for lora in inputs.loras] if inputs is not None else []
    references = len(job.images or ()) if isinstance(job, ImageJob) else 0
    return Demand(
        pixels=job.width * job.height + reference_pixels(spec, count=max(0, references - 1)),
        lora_bytes=sum(path.stat().st_size for path in files if path.is_file()),
        beside_bytes=beside.bytes if beside is not None else 0,
    )


@dataclass(frozen=True, slots=True)
class _Order:
    """One job as the GPU thread gets it."""

    job: ImageJob | VideoJob
    inputs: JobInputs
    progress: Progress
    clock: Clock
    cancellation: Cancellation
