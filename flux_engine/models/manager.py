"""FluxModelManager: which models are loaded, and by which plan each of them runs.

`load` and `use` run on the GPU thread, so two jobs that need one model share one load. A second model stays beside the
first where their plans fit the device together; otherwise the least recently used one goes. Where memory runs out after
all, the other models go first, then the model is loaded again by its next leaner plan (steps.py).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

from flux_engine.errors import DeviceBroken, ModelUnavailable
from flux_engine.job.fingerprint import ModelIdentity
from flux_engine.models.beside.content_filter import ContentFilter
from flux_engine.models.beside.upsampler import upsampler_of
from flux_engine.models.keeper import CheckpointKeeper, is_on_a_mount
from flux_engine.models.loaded import LoadedModel
from flux_engine.models.loading import BROKEN, Source, Tuned, files_to_read, load_tuned, release_memory
from flux_engine.models.lora.library import LoraLibrary
from flux_engine.models.lora.manager import MAX_RESIDENT_BYTES, LoRAManager
from flux_engine.models.lora.names import layer_names, linear_shapes
from flux_engine.models.planning.device import NOT_USABLE
from flux_engine.models.planning.gpus import GpuProperties, Speed
from flux_engine.models.planning.optimizer import ModelOptimizer
from flux_engine.models.planning.plan import Plan, Preferences, fit_together
from flux_engine.models.read_ahead import ReadAhead
from flux_engine.models.served import ServedModels
from flux_engine.models.spec import ModelSpec
from flux_engine.models.steps import Demand, PlanSteps
from flux_engine.models.tuning.apply import AppliedPlan
from flux_engine.models.tuning.compilation import cache_file
from flux_engine.models.tuning.fallback import is_out_of_memory
from flux_engine.models.tuning.libraries import import_torch
from flux_engine.models.warm_up import WarmUp, warm_up
from flux_engine.models.weights import Weights

Result = TypeVar("Result")
NO_DEMAND: Final = Demand()

log = logging.getLogger(__name__)


class FluxModelManager:
    """Finds, loads, warms and serves pipelines, one call at a time."""

    def __init__(
        self,
        served: ServedModels,
        *,
        gpu: Callable[[], GpuProperties],
        volume: Path,
        preferences: Preferences | None = None,
        lora_max_bytes: int,
        keeps_checkpoints: bool | None = None,
        content_filter: ContentFilter | None = None,
    ) -> None:
        """`gpu` reads the device that plans are made for; it is called once, when a plan is first needed.

        Quantised checkpoints are kept on `volume` where `keeps_checkpoints`, by default where it is a mounted one.
        """
        self.served = served
        self.content_filter = content_filter
        self._gpu = gpu
        self._volume = volume
        self._preferences = preferences or Preferences()
        self._lora_max_bytes = lora_max_bytes
        self._optimizer = ModelOptimizer()
        self._device: GpuProperties | None = None
        self._steps: dict[ModelSpec, PlanSteps] = {}  # a single file that was replaced is another model
        self._planning = threading.Lock()  # questions, first looks and the GPU thread may ask at once
        self._keeps_checkpoints = is_on_a_mount(volume) if keeps_checkpoints is None else keeps_checkpoints
        self._keeper = CheckpointKeeper()
        self._offered: set[str] = set()  # models whose checkpoint was offered to the keeper
        self._weights: dict[str, Weights] = {}
        self._loaded: OrderedDict[str, LoadedModel] = OrderedDict()  # by id, least recently used first
        self._torch_ms = 0.0  # that its import took, until a load accounts for it
        self._reading: ReadAhead | None = None  # from the first look at a cold model until it is loaded

    def identity(self, spec: ModelSpec, demand: Demand = NO_DEMAND) -> ModelIdentity:
        """What will make the result of a job: read from the loaded model, or from its plan without loading it.

        Raises ModelUnavailable.
        """
        plan = self._steps_of(spec).plan_for(demand)
        loaded = self._loaded.get(spec.id)  # looked up once: the GPU thread may be changing it
        revision = self._weights_of(spec).revision
        is_at_hand = loaded is not None and loaded.plan is plan and loaded.identity.revision == revision
        return loaded.identity if loaded is not None and is_at_hand else self._identified(spec, plan)

    def plan(self, spec: ModelSpec) -> Plan:
        """How `spec` runs on this machine's device; a leaner plan where memory has run out."""
        return self._steps_of(spec).current

    def speed(self) -> Speed | None:
        """The rates of this machine's device; None where they are not known."""
        return self._card().speed

    def can_identify(self, spec: ModelSpec) -> bool:
        """Whether `identity` answers at once, once it has answered before: not where a single file was replaced."""
        return self.served.knows_weights(spec)

    def is_warm(self, spec: ModelSpec) -> bool:
        return spec.id in self._loaded

    def load(self, spec: ModelSpec) -> LoadedModel:
        """The model of `spec`, loading it where it is not loaded by its current plan.

        Raises ModelUnavailable, and torch.OutOfMemoryError where its plan does not hold.
        """
        loaded = self._loaded.get(spec.id)
        if loaded is not None and loaded.identity.revision != self._weights_of(spec).revision:
            log.info("model file changed", extra={"model": spec.id})
            del loaded
            self._let_go([spec.id])
        elif loaded is not None and loaded.plan is not self.plan(spec):
            log.info("plan changed", extra={"model": spec.id, "detail": self.plan(spec).line()})
            del loaded
            self._let_go([spec.id])
        if spec.id not in self._loaded:
            self._make_room_for(spec)
            self._loaded[spec.id] = self._load(spec)
        self._loaded.move_to_end(spec.id)
        return self._loaded[spec.id]

    def use(self, spec: ModelSpec, work: Callable[[LoadedModel], Result], *, demand: Demand = NO_DEMAND) -> Result:
        """The result of `work` with the model of `spec`; where memory runs out, `work` runs again by each leaner plan.

        A later job of less `demand` is run by the better plan again.

        Raises OutOfMemory where the leanest one does not fit either, and DeviceBroken where the device stops answering.
        """
        self._steps_of(spec).take(demand)
        try:
            if not self.is_warm(spec):
                self._begin_to_read(spec)  # while torch is imported
            self._torch_ms += import_torch()
            return self._used(spec, work, demand)
        finally:
            self._end_reading()

    def unload(self) -> None:
        """Let every loaded model go and give its memory back."""
        self._let_go(list(self._loaded))

    def wait_for_checkpoint(self) -> None:
        """Until the quantised checkpoint that is being written, if any, is there."""
        self._keeper.wait()

    def _used(self, spec: ModelSpec, work: Callable[[LoadedModel], Result], demand: Demand) -> Result:
        import torch

        while True:
            try:
                result = work(self.load(spec))
                self._offer_checkpoint(spec)
                return result
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    if isinstance(error, torch.AcceleratorError):
                        message = "the GPU stopped answering; another worker can take the job: send it again"
                        raise DeviceBroken(message) from error
                    raise
                log.warning("out of memory", extra={"model": spec.id, "detail": self.plan(spec).line()})
            self._free_memory_for(spec, demand)  # outside `except`: its traceback keeps the half-loaded pipeline alive

    def _let_go(self, ids: list[str]) -> None:
        self._keeper.stop()  # it holds weights
        for model_id in ids:
            del self._loaded[model_id]
        release_memory()

    def _offer_checkpoint(self, spec: ModelSpec) -> None:
        """After a model's first job: the job comes first, and a worker that fails at it keeps nothing."""
        tuned = self._loaded[spec.id].tuned
        if not self._keeps_checkpoints or tuned.unsaved is None or tuned.checkpoint is None:
            return
        if tuned.checkpoint.name not in self._offered:
            self._offered.add(tuned.checkpoint.name)
            self._keeper.begin(tuned.checkpoint, tuned.unsaved)

    def _steps_of(self, spec: ModelSpec) -> PlanSteps:
        if spec not in self._steps:
            card = self._card()
            with self._planning:
                if spec not in self._steps:
                    self._steps[spec] = PlanSteps(self._optimizer.plan(card, spec, self._preferences))
        return self._steps[spec]

    def _make_room_for(self, spec: ModelSpec) -> None:
        """Let the least recently used models go until the rest fits beside `spec`."""
        staying = list(self._loaded.values())
        going = []
        while not fit_together([*(model.plan for model in staying), self.plan(spec)]):
            going.append(staying.pop(0).spec.id)
        if going:
            del staying
            self._let_go(going)

    def _free_memory_for(self, spec: ModelSpec, demand: Demand) -> None:
        """After memory ran out: unload the other models, or where there are none, step down to the next leaner plan.

        Raises OutOfMemory at the end of the ladder.
        """
        is_alone = not (self._loaded.keys() - {spec.id})
        self.unload()
        if is_alone:
            self._steps_of(spec).step_down(demand)

    def _identified(self, spec: ModelSpec, run_by: Plan | AppliedPlan) -> ModelIdentity:
        revision = self._weights_of(spec).revision
        return ModelIdentity(
            id=spec.id,
            revision=revision,
            precision=run_by.precision,
            way=run_by.pixel_way,
            filter=self.content_filter.id if self.content_filter is not None else "",
        )

    def _card(self) -> GpuProperties:
        """The device that plans are made for: of a GPU, what the content filter leaves."""
        with self._planning:
            if self._device is None:
                device = self._gpu()
                if self.content_filter is not None and not device.is_cpu:
                    taken = self.content_filter.device_bytes
                    total, free = device.total_bytes - taken, device.free_bytes - taken
                    device = replace(device, total_bytes=total, free_bytes=free)
                self._device = device
            return self._device

    def _weights_of(self, spec: ModelSpec) -> Weights:
        if spec.is_single_file:  # it may be replaced while the worker runs
            return self.served.weights(spec)
        if spec.id not in self._weights:
            self._weights[spec.id] = self.served.weights(spec)
        return self._weights[spec.id]

    def _source(self, spec: ModelSpec) -> Source:
        weights = self._weights_of(spec)
        return Source(
            folder=weights.folder, revision=weights.revision, volume=self._volume, file=self.served.file(spec)
        )

    def _begin_to_read(self, spec: ModelSpec) -> ReadAhead:
        if self._reading is None:
            self._reading = ReadAhead(files_to_read(spec, self._source(spec), self.plan(spec))).start()
        return self._reading

    def _end_reading(self) -> None:
        if self._reading is not None:
            self._reading.stop()
            self._reading = None

    def _load(self, spec: ModelSpec) -> LoadedModel:
        """Load, then warm up; where compiled code does not run here, load once more without compilation."""
        began = time.perf_counter()
        model = self._opened(spec)
        warmed = self._warm_up(model)
        if warmed.failure is not None:
            log.warning("compiled code cannot be run here", extra={"model": spec.id, "detail": warmed.failure})
            self._steps_of(spec).give_up_compiling(warmed.failure)
            del model
            release_memory()
            model = self._opened(spec)
        model = replace(model, phases_ms={**model.phases_ms, "warm_up": warmed.ms})
        phases = ", ".join(f"{name} {ms:.0f}" for name, ms in model.phases_ms.items())
        took = {"model": spec.id, "ms": round((time.perf_counter() - began) * 1000)}
        log.info("model loaded", extra={**took, "detail": f"{self.plan(spec).line()}; ms: {phases}"})
        log.info("plan applied", extra={"model": spec.id, "plan": model.tuned.applied.to_dict()})
        return model

    def _opened(self, spec: ModelSpec) -> LoadedModel:
        """The weights with the plan applied, and what holds LoRAs. Raises ModelUnavailable and DeviceBroken."""
        plan, source = self.plan(spec), self._source(spec)
        tuned = self._tuned(spec, source)
        if self._weights_of(spec).revision != source.revision:
            raise ModelUnavailable(f"{spec.id} was replaced while it was loaded; send the job again")
        loras = LoRAManager(
            mode="slot" if tuned.applied.is_compiled else "adapters",
            slot_room_bytes=max(0, plan.limit_bytes - plan.peak_bytes) + plan.lora_bytes,
            max_resident_bytes=min(MAX_RESIDENT_BYTES, max(0, plan.limit_bytes - plan.peak_bytes)),
        )
        loras.reserve(tuned.pipeline)  # before the first call compiles
        names = layer_names(linear_shapes(tuned.pipeline.transformer))
        torch_ms, self._torch_ms = self._torch_ms, 0.0
        return LoadedModel(
            spec=spec,
            identity=self._identified(spec, tuned.applied),
            tuned=tuned,
            phases_ms=tuned.phases_ms(import_ms=torch_ms),
            lora_library=LoraLibrary(names, max_file_bytes=self._lora_max_bytes),
            lora_manager=loras,
            upsampler=upsampler_of(spec, tuned.pipeline, self.served.upsampler_folder(spec)),
        )

    def _tuned(self, spec: ModelSpec, source: Source) -> Tuned:
        reading = self._begin_to_read(spec)
        import torch

        device = "cpu" if self._device is None or self._device.is_cpu else "cuda"
        try:
            if device == "cuda" and not torch.cuda.is_available():
                log.error("the driver sees a GPU and torch does not: it is too old for this image, or the GPU is lost")
                raise DeviceBroken(NOT_USABLE)
            return load_tuned(spec, source, self.plan(spec), device=device, on_loaded=reading.consumed)
        except torch.AcceleratorError:
            raise  # the device is at fault, not the model: `use` reports it
        except BROKEN as error:
            if is_out_of_memory(error):
                raise
            log.exception("model broken", extra={"model": spec.id})
            again = "" if spec.is_single_file else f" with `python builder/fetch_models.py {spec.id} --force`"
            raise ModelUnavailable(f"{spec.id} is on the volume but cannot be loaded; fetch it again{again}") from error
        finally:
            self._end_reading()

    def _warm_up(self, model: LoadedModel) -> WarmUp:
        capability = self._device.compute_capability if self._device is not None else None
        file = cache_file(self._volume, model.tuned.applied.plan, compute_capability=capability)
        return warm_up(model.spec, model.tuned, model.lora_manager, file)
