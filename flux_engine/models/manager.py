"""FluxModelManager: which models this worker serves, and the one that is loaded.

Naming a model reads no weights; `load` does, once, on the GPU thread, so that two jobs that wait for one model wait
for one load. Loading another model lets the one before it go.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from flux_engine.errors import InputFetchFailed, ModelUnavailable, OutOfMemory
from flux_engine.job import ModelLimits
from flux_engine.models import catalog
from flux_engine.models.catalog import ModelSpec
from flux_engine.models.libraries import import_diffusers
from flux_engine.models.lora import LoRAManager, ScaledLora
from flux_engine.models.lora_format import PreparedLora
from flux_engine.models.lora_library import LoraLibrary
from flux_engine.models.lora_names import layer_names, linear_shapes
from flux_engine.models.weights import INDEX, Weights, find_weights, has_guidance, pipeline_class_of, revision_of
from flux_engine.settings import Settings
from flux_engine.storage.fingerprint import ModelIdentity
from flux_engine.storage.loras import StoredLora

BUNDLED_ID: Final = "flux-tiny"
PRECISION: Final = "bfloat16"
DEFAULT_ON_GPU: Final = "black-forest-labs/FLUX.1-schnell"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A pipeline that is ready to be called, and what it is made of."""

    spec: ModelSpec
    identity: ModelIdentity
    pipeline: Any
    load_ms: float
    lora_library: LoraLibrary
    lora_manager: LoRAManager

    def apply_loras(self, loras: Iterable[tuple[StoredLora, float]]) -> list[str]:
        """Make these LoRAs, each at its scale, and no others act; returns what is to be said of them.

        Raises LoraInvalid, LoraIncompatible, or InputFetchFailed where a file went while the job waited.
        """
        scaled = [ScaledLora(self._prepared(stored), scale) for stored, scale in loras]
        self.lora_manager.apply(self.pipeline, scaled)
        return [warning for item in scaled for warning in item.lora.warnings]

    def _prepared(self, stored: StoredLora) -> PreparedLora:
        try:
            return self.lora_library.prepare(stored.path, content_hash=stored.sha256)
        except FileNotFoundError as error:
            message = "a LoRA had to make room for others while the job waited; send it again"
            raise InputFetchFailed(message, field="loras", retryable=True) from error


class FluxModelManager:
    """Serves the default model and every model of the catalogue that is on the volume."""

    def __init__(self, settings: Settings, *, has_gpu: bool) -> None:
        self._volume = settings.model_volume
        self._configured = settings.flux_model
        self._lora_max_bytes = settings.lora_max_bytes
        self._has_gpu = has_gpu
        self._loaded: LoadedModel | None = None
        self._identities: dict[str, ModelIdentity] = {}

    # ---------------------------------------------------------------------------------------- naming

    def default(self) -> ModelSpec:
        """The model of a job that names none. Raises ModelUnavailable where FLUX_MODEL names nothing known."""
        name = self._configured or (DEFAULT_ON_GPU if self._has_gpu else BUNDLED_ID)
        spec = self.find(name)
        if spec is None:
            raise ModelUnavailable(
                "FLUX_MODEL names neither a model of the catalogue nor a diffusers folder; see the README's table"
            )
        return spec

    def find(self, name: str) -> ModelSpec | None:
        """The model called `name`: of the catalogue, or the one that FLUX_MODEL set."""
        spec = catalog.find(name)
        if spec is None and self._configured is not None and name in (self._configured, self._configured_id()):
            return self._configured_spec()
        return spec

    def named(self, name: str) -> ModelSpec:
        """As `find`, for a name that a parsed job holds. Raises ModelUnavailable."""
        spec = self.find(name)
        if spec is None:
            raise ModelUnavailable(f"{name} is not a model of this worker")
        return spec

    def served(self) -> tuple[str, ...]:
        """The models that a job may name, the default first."""
        ids = [self.default().id, *(spec.id for spec in catalog.CATALOG)]
        return tuple(dict.fromkeys(ids))

    def find_limits(self, name: str) -> ModelLimits | None:
        spec = self.find(name)
        return spec.limits if spec is not None else None

    def weights(self, spec: ModelSpec) -> Weights:
        """Where the weights of `spec` are. Raises ModelUnavailable."""
        folder = self._configured_folder()
        if folder is not None and spec.id == self._configured_id():
            return Weights(folder, revision_of(folder))
        return find_weights(spec.id, self._volume, bundled=spec.id == BUNDLED_ID)

    def identity(self, spec: ModelSpec) -> ModelIdentity:
        """What results of `spec` are made by, told without loading it. Raises ModelUnavailable."""
        if spec.id not in self._identities:
            self._identities[spec.id] = ModelIdentity(
                id=spec.id, revision=self.weights(spec).revision, precision=PRECISION
            )
        return self._identities[spec.id]

    def _configured_id(self) -> str | None:
        folder = self._configured_folder()
        return folder.name if folder is not None else self._configured

    def _configured_folder(self) -> Path | None:
        """FLUX_MODEL as a folder of its own or of the volume, if it is one."""
        if self._configured is None:
            return None
        for folder in (Path(self._configured), self._volume / self._configured):
            if (folder / INDEX).is_file():
                return folder
        return None

    def _configured_spec(self) -> ModelSpec | None:
        """A fine-tune or a folder: its own name, with the defaults of the catalogue's model of its kind."""
        name = self._configured_id()
        if name is None:
            return None
        folder = self._configured_folder() or find_weights(name, self._volume).folder
        kind = _kind_of(folder)
        return replace(kind, id=name, limits=replace(kind.limits, id=name)) if kind is not None else None

    # --------------------------------------------------------------------------------------- loading

    def load(self, spec: ModelSpec) -> LoadedModel:
        """The loaded model of `spec`, loading it where it is not. On the GPU thread only.

        Raises ModelUnavailable or OutOfMemory.
        """
        if self._loaded is not None and self._loaded.spec.id == spec.id:
            return self._loaded
        weights = self.weights(spec)
        self.unload()
        self._loaded = _load(spec, weights, self.identity(spec), lora_max_bytes=self._lora_max_bytes)
        log.info("model loaded", extra={"model": spec.id, "ms": round(self._loaded.load_ms)})
        return self._loaded

    def is_warm(self, spec: ModelSpec) -> bool:
        return self._loaded is not None and self._loaded.spec.id == spec.id

    def unload(self) -> None:
        """Let the loaded model go and give its memory back."""
        if self._loaded is None:
            return
        import torch

        self._loaded = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _kind_of(folder: Path) -> ModelSpec | None:
    """The catalogue's model whose pipeline class `folder` names, and which takes guidance or not as it does."""
    pipeline_class, takes_guidance = pipeline_class_of(folder), has_guidance(folder)
    kinds = [spec for spec in catalog.CATALOG if spec.pipeline_class == pipeline_class and spec.id != BUNDLED_ID]
    alike = [spec for spec in kinds if (spec.limits.guidance_scale is not None) == takes_guidance]
    return next(iter([*alike, *kinds]), None)


def _load(spec: ModelSpec, weights: Weights, identity: ModelIdentity, *, lora_max_bytes: int) -> LoadedModel:
    began = time.perf_counter()
    diffusers = import_diffusers()
    import torch

    pipeline_class = getattr(diffusers, spec.pipeline_class)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        pipeline = pipeline_class.from_pretrained(weights.folder, dtype=torch.bfloat16, use_safetensors=True)
        pipeline.to(device)
    except torch.OutOfMemoryError as error:
        raise OutOfMemory(f"{spec.id} does not fit this GPU; choose a larger one or a smaller model") from error
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        log.exception("model broken", extra={"model": spec.id})
        raise ModelUnavailable(
            f"{spec.id} is on the volume but cannot be loaded; fetch it again with "
            f"`python builder/fetch_models.py {spec.id} --force`"
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    names = layer_names(linear_shapes(pipeline.transformer))
    return LoadedModel(
        spec=spec,
        identity=identity,
        pipeline=pipeline,
        load_ms=(time.perf_counter() - began) * 1000,
        lora_library=LoraLibrary(names, max_file_bytes=lora_max_bytes),
        lora_manager=LoRAManager(),
    )
