"""FluxModelManager: which models are loaded, and by which plan each of them runs.

`load` and `use` run on the GPU thread, so two jobs that need one model share one load. A second model stays beside the
first where their plans fit the device together; otherwise the least recently used one goes. Where memory runs out after
all, the other models go first, then the model is loaded again by its next leaner plan, which is kept.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from flux_engine.errors import DeviceBroken, InputFetchFailed, LoraIncompatible, LoraInvalid, ModelUnavailable
from flux_engine.inputs.lora_volume import StoredLora
from flux_engine.job.fingerprint import ModelIdentity
from flux_engine.models.loading import BROKEN, Source, Tuned, folder_to_read, leaner, load_tuned, release_memory
from flux_engine.models.lora.format import PreparedLora
from flux_engine.models.lora.library import LoraLibrary
from flux_engine.models.lora.manager import MAX_RESIDENT_BYTES, LoRAManager, ScaledLora
from flux_engine.models.lora.names import layer_names, linear_shapes
from flux_engine.models.planning.device import NOT_USABLE
from flux_engine.models.planning.gpus import GpuProperties
from flux_engine.models.planning.optimizer import ModelOptimizer
from flux_engine.models.planning.plan import Plan, Preferences, fit_together
from flux_engine.models.read_ahead import ReadAhead
from flux_engine.models.served import ServedModels
from flux_engine.models.spec import ModelSpec
from flux_engine.models.tuning.apply import AppliedPlan
from flux_engine.models.tuning.compilation import cache_file
from flux_engine.models.tuning.fallback import is_out_of_memory
from flux_engine.models.warm_up import WarmUp, warm_up
from flux_engine.models.weights import Weights

Result = TypeVar("Result")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A pipeline that is ready to be called, what it is made of, and the LoRAs that it holds."""

    spec: ModelSpec
    identity: ModelIdentity
    tuned: Tuned
    lora_library: LoraLibrary
    lora_manager: LoRAManager
    phases_ms: Mapping[str, float]  # of the cold start: imports, weights, apply, warm_up

    @property
    def pipeline(self) -> Any:
        return self.tuned.pipeline

    def apply_loras(self, loras: Iterable[tuple[StoredLora, float]]) -> list[str]:
        """Make these LoRAs, each at its scale, and no others act; returns warnings about them.

        Raises LoraInvalid or LoraIncompatible with the `field` of the one at fault, or InputFetchFailed where a file
        was evicted while the job waited.
        """
        scaled = [ScaledLora(self._prepared(stored, index), scale) for index, (stored, scale) in enumerate(loras)]
        self.lora_manager.apply(self.pipeline, scaled)
        return [warning for item in scaled for warning in item.lora.warnings]

    def _prepared(self, stored: StoredLora, index: int) -> PreparedLora:
        try:
            return self.lora_library.prepare(stored.path, content_hash=stored.sha256)
        except (LoraInvalid, LoraIncompatible) as error:
            raise type(error)(error.message, field=f"loras[{index}]") from error
        except FileNotFoundError as error:
            message = "a LoRA was evicted to make room for others while the job waited; send it again"
            raise InputFetchFailed(message, field="loras", retryable=True) from error


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
    ) -> None:
        """`gpu` reads the device that plans are made for; it is called once, when a plan is first needed."""
        self.served = served
        self._gpu = gpu
        self._volume = volume
        self._preferences = preferences or Preferences()
        self._lora_max_bytes = lora_max_bytes
        self._optimizer = ModelOptimizer()
        self._device: GpuProperties | None = None
        self._plans: dict[str, Plan] = {}
        self._weights: dict[str, Weights] = {}
        self._loaded: OrderedDict[str, LoadedModel] = OrderedDict()  # by id, least recently used first
        self._reading: ReadAhead | None = None  # from the first look at a cold model until it is loaded

    def identity(self, spec: ModelSpec) -> ModelIdentity:
        """What makes results of `spec`: read from the loaded model, or from its plan without loading it.

        Raises ModelUnavailable.
        """
        loaded = self._loaded.get(spec.id)  # looked up once: the GPU thread may be changing it
        return loaded.identity if loaded is not None else self._identified(spec, self.plan(spec))

    def plan(self, spec: ModelSpec) -> Plan:
        """How `spec` runs on this machine's device; a leaner plan once memory has run out."""
        if self._device is None:
            self._device = self._gpu()
        if spec.id not in self._plans:
            self._plans[spec.id] = self._optimizer.plan(self._device, spec, self._preferences)
        return self._plans[spec.id]

    def picture_seconds(self, spec: ModelSpec, *, steps: int) -> float | None:
        """What the plan's arithmetic expects of one picture of the model's own size; None for a card of unknown
        rates."""
        self.plan(spec)
        assert self._device is not None  # noqa: S101 - read for the plan
        wishes = replace(self._preferences, num_inference_steps=steps)
        return self._optimizer.plan(self._device, spec, wishes).seconds

    def is_warm(self, spec: ModelSpec) -> bool:
        return spec.id in self._loaded

    def load(self, spec: ModelSpec) -> LoadedModel:
        """The loaded model of `spec`, loading it where it is not.

        Raises ModelUnavailable, and torch.OutOfMemoryError where its plan does not hold.
        """
        if spec.id not in self._loaded:
            self._make_room_for(spec)
            self._loaded[spec.id] = self._load(spec)
        self._loaded.move_to_end(spec.id)
        return self._loaded[spec.id]

    def use(self, spec: ModelSpec, work: Callable[[LoadedModel], Result]) -> Result:
        """The result of `work` with the model of `spec`; where memory runs out, `work` runs again by each leaner plan.

        Raises OutOfMemory where the leanest one does not fit either, and DeviceBroken where the device stops answering.
        """
        if not self.is_warm(spec):
            self._begin_to_read(spec)  # while torch is imported
        import torch

        while True:
            try:
                return work(self.load(spec))
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    if isinstance(error, torch.AcceleratorError):
                        message = "the GPU stopped answering; another worker can take the job: send it again"
                        raise DeviceBroken(message) from error
                    raise
                log.warning("out of memory", extra={"model": spec.id, "detail": self.plan(spec).line()})
            self._free_memory_for(spec)  # outside `except`: its traceback keeps the half-loaded pipeline alive

    def unload(self) -> None:
        """Let every loaded model go and give its memory back."""
        self._loaded.clear()
        release_memory()

    def _make_room_for(self, spec: ModelSpec) -> None:
        """Let the least recently used models go until the rest fits beside `spec`."""
        before = len(self._loaded)
        while not fit_together([*(self.plan(model.spec) for model in self._loaded.values()), self.plan(spec)]):
            self._loaded.popitem(last=False)
        if len(self._loaded) < before:
            release_memory()

    def _free_memory_for(self, spec: ModelSpec) -> None:
        """After memory ran out: unload the other models, or where there are none, step down to the next leaner plan.

        Raises OutOfMemory at the end of the ladder.
        """
        is_alone = not (self._loaded.keys() - {spec.id})
        self.unload()
        if is_alone:
            self._plans[spec.id] = leaner(self.plan(spec))

    def _identified(self, spec: ModelSpec, run_by: Plan | AppliedPlan) -> ModelIdentity:
        revision = self._weights_of(spec).revision
        return ModelIdentity(id=spec.id, revision=revision, precision=run_by.precision, way=run_by.pixel_way)

    def _weights_of(self, spec: ModelSpec) -> Weights:
        if spec.id not in self._weights:
            self._weights[spec.id] = self.served.weights(spec)
        return self._weights[spec.id]

    def _source(self, spec: ModelSpec) -> Source:
        weights = self._weights_of(spec)
        return Source(folder=weights.folder, revision=weights.revision, volume=self._volume)

    def _begin_to_read(self, spec: ModelSpec) -> ReadAhead:
        if self._reading is None:
            self._reading = ReadAhead(folder_to_read(spec, self._source(spec), self.plan(spec))).start()
        return self._reading

    def _load(self, spec: ModelSpec) -> LoadedModel:
        """Load, then warm up; where compiled code does not run here, load once more without compilation."""
        began = time.perf_counter()
        model = self._opened(spec)
        warmed = self._warm_up(model)
        if warmed.failure is not None:
            log.warning("compiled code cannot be run here", extra={"model": spec.id, "detail": warmed.failure})
            self._plans[spec.id] = self.plan(spec).uncompiled(warmed.failure)
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
        plan, tuned = self.plan(spec), self._tuned(spec)
        loras = LoRAManager(
            mode="slot" if tuned.applied.is_compiled else "adapters",
            max_resident_bytes=min(MAX_RESIDENT_BYTES, max(0, plan.limit_bytes - plan.peak_bytes)),
        )
        loras.reserve(tuned.pipeline)  # before the first call compiles
        names = layer_names(linear_shapes(tuned.pipeline.transformer))
        return LoadedModel(
            spec=spec,
            identity=self._identified(spec, tuned.applied),
            tuned=tuned,
            phases_ms=tuned.phases_ms(),
            lora_library=LoraLibrary(names, max_file_bytes=self._lora_max_bytes),
            lora_manager=loras,
        )

    def _tuned(self, spec: ModelSpec) -> Tuned:
        reading = self._begin_to_read(spec)
        import torch

        device = "cpu" if self._device is None or self._device.is_cpu else "cuda"
        try:
            if device == "cuda" and not torch.cuda.is_available():
                log.error("the driver sees a GPU and torch does not: it is too old for this image, or the GPU is lost")
                raise DeviceBroken(NOT_USABLE)
            return load_tuned(spec, self._source(spec), self.plan(spec), device=device)
        except torch.AcceleratorError:
            raise  # the device is at fault, not the model: `use` reports it
        except BROKEN as error:
            if is_out_of_memory(error):
                raise
            log.exception("model broken", extra={"model": spec.id})
            raise ModelUnavailable(
                f"{spec.id} is on the volume but cannot be loaded; fetch it again with "
                f"`python builder/fetch_models.py {spec.id} --force`"
            ) from error
        finally:
            reading.stop()
            self._reading = None

    def _warm_up(self, model: LoadedModel) -> WarmUp:
        capability = self._device.compute_capability if self._device is not None else None
        file = cache_file(self._volume, model.tuned.applied.plan, compute_capability=capability)
        return warm_up(model.spec, model.tuned, file)
