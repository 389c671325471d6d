"""The models that this worker serves: by which names, with which limits, from which weights.

Naming a model reads no weights and needs no torch.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from flux_engine.errors import ModelUnavailable
from flux_engine.limits import ModelLimits
from flux_engine.models import catalog
from flux_engine.models.spec import ModelSpec
from flux_engine.models.weights import INDEX, Weights, find_weights, has_guidance, pipeline_class_of, revision_of

BUNDLED_ID: Final = "flux-tiny"
DEFAULT_ON_GPU: Final = "black-forest-labs/FLUX.1-schnell"


class ServedModels:
    """The default model, the catalogue, and the folder or fine-tune that FLUX_MODEL names."""

    def __init__(self, configured: str | None, *, volume: Path, has_gpu: bool) -> None:
        """`configured` is FLUX_MODEL: a catalogue name, Hugging Face id or folder."""
        self._configured = configured
        self._volume = volume
        self._has_gpu = has_gpu

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
        if spec is not None and not _is_servable(spec):
            return None
        if spec is None and self._configured is not None and name in (self._configured, self._configured_id()):
            return self._configured_spec()
        return spec

    def named(self, name: str) -> ModelSpec:
        """As `find`, for a name that a parsed job holds. Raises ModelUnavailable."""
        spec = self.find(name)
        if spec is None:
            raise ModelUnavailable(f"{name} is not a model of this worker")
        return spec

    def ids(self) -> tuple[str, ...]:
        """What a job's `model` may say, the default first."""
        return tuple(dict.fromkeys([self.default().id, *(spec.id for spec in catalog.CATALOG if _is_servable(spec))]))

    def find_limits(self, name: str) -> ModelLimits | None:
        spec = self.find(name)
        return spec.limits if spec is not None else None

    def weights(self, spec: ModelSpec) -> Weights:
        """Where the weights of `spec` are. Raises ModelUnavailable."""
        folder = self._configured_folder()
        if folder is not None and spec.id == self._configured_id():
            return Weights(folder, revision_of(folder))
        return find_weights(spec.id, self._volume, bundled=spec.id == BUNDLED_ID)

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


def _is_servable(spec: ModelSpec) -> bool:
    """Not those without a callback at each step: they could neither report progress nor be cancelled."""
    return not spec.is_modular


def _kind_of(folder: Path) -> ModelSpec | None:
    """The catalogue's model whose pipeline class `folder` names, and which takes guidance or not as it does."""
    pipeline_class, takes_guidance = pipeline_class_of(folder), has_guidance(folder)
    kinds = [spec for spec in catalog.CATALOG if spec.pipeline_class == pipeline_class and spec.id != BUNDLED_ID]
    alike = [spec for spec in kinds if (spec.limits.guidance_scale is not None) == takes_guidance]
    return next(iter([*alike, *kinds]), None)
