"""The models that this worker serves: by which names, with which limits, from which weights.

Naming a model reads no weights and needs no torch.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final, TypeVar

from flux_engine.errors import ModelUnavailable
from flux_engine.job.base import Job
from flux_engine.job.image import ImageJob
from flux_engine.job.limits import ModelLimits
from flux_engine.models import catalog
from flux_engine.models.measure import as_in
from flux_engine.models.single_file.base import BasedFile
from flux_engine.models.single_file.model_file import ModelFile, read_model_file
from flux_engine.models.single_file.shelf import FileShelf
from flux_engine.models.spec import ModelSpec
from flux_engine.models.weights import (
    BUNDLED,
    BUNDLED_FOLDER,
    Weights,
    candidate_folders,
    find_weights,
    has_guidance,
    index_of,
    pipeline_class_of,
    revision_of,
)
from flux_engine.settings import SettingsError

HUB_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
UPSAMPLER_CONFIG: Final = "config.json"
BUNDLED_ID: Final = "flux-tiny"

AnyJob = TypeVar("AnyJob", bound=Job)


class ServedModels:
    """The default model, the catalogue, the folder, file or fine-tune that FLUX_MODEL names, and the volume's files."""

    def __init__(self, configured: str | None, *, volume: Path, has_gpu: bool) -> None:
        """`configured` is FLUX_MODEL: a catalogue name, Hugging Face id, folder or file.

        Raises SettingsError for what can never be served; a model that is not on the volume may come there yet.
        """
        self._name = configured or (catalog.DEFAULT_ON_GPU if has_gpu else BUNDLED_ID)
        self._volume = volume
        self._default = catalog.find(self._name)
        self._folder = _folder_of(self._name, volume) if self._default is None else None
        self._files = FileShelf(volume)
        self._is_file, file = self._looked_for_file()
        own = self._folder or file
        self._own_id = self._name if own is None or ":" in self._name else own.name or own.resolve().name
        if self._default is None and own is None and not self._is_file and not HUB_ID.fullmatch(self._name):
            raise SettingsError(
                "FLUX_MODEL: names no model of the catalogue, no Hugging Face id (owner/name), no folder with a "
                "model_index.json and no file; see the README's table of models"
            )
        with suppress(ModelUnavailable):
            if self._folder is not None and _kind_of(self._folder) is None:
                raise SettingsError("FLUX_MODEL: the folder holds a pipeline of a kind that this worker does not serve")

    def default(self) -> ModelSpec:
        """The model of a job that names none. Raises ModelUnavailable where its kind stands in weights that are not on
        the volume."""
        if (own := self._own_file()) is not None:
            return own.spec
        if self._default is None:
            folder = self._folder or find_weights(self._name, self._volume).folder
            kind = _kind_of(folder)
            if kind is None:
                raise ModelUnavailable(f"{self._own_id} is of a kind that this worker does not serve")
            renamed = replace(kind, limits=replace(kind.limits, id=self._own_id))
            self._default = as_in(folder, renamed)
        return self._default

    def find(self, name: str) -> ModelSpec | None:
        """The model called `name`: the one that FLUX_MODEL set, of the catalogue, or a file on the volume.

        Raises ModelUnavailable where `name` means a file that holds no model, or is not there.
        """
        if name.casefold() in (self._name.casefold(), self._own_id.casefold()):
            return self.default()
        spec = catalog.find(name)
        if spec is not None:
            return spec
        found = self._files.find(name)
        return found.spec if found is not None else None

    def named(self, name: str) -> ModelSpec:
        """As `find`, for a name that a parsed job holds. Raises ModelUnavailable."""
        spec = self.find(name)
        if spec is None:
            raise ModelUnavailable(f"{name} is not a model of this worker")
        return spec

    def ids(self) -> tuple[str, ...]:
        """What a job's `model` may say, the default first."""
        default = self._own_id if self._default is None else self._default.id
        catalogued = (spec.id for spec in catalog.CATALOG)
        return tuple(dict.fromkeys([default, *catalogued, *self._files.names()]))

    def find_limits(self, name: str) -> ModelLimits | None:
        spec = self.find(name)
        return spec.limits if spec is not None else None

    def has_weights(self, spec: ModelSpec) -> bool:
        """Whether the weights of `spec` are here; a few `stat` calls."""
        if spec.id in BUNDLED or spec.is_single_file or (self._folder is not None and spec.id == self._own_id):
            return True
        return any(index_of(folder) is not None for folder in candidate_folders(spec.id, self._volume))

    def weights(self, spec: ModelSpec) -> Weights:
        """Where the weights of `spec` are; of a single file, its base's. Raises ModelUnavailable.

        For a single file it may take as long as reading it whole; see `knows_weights`.
        """
        if (based := self._based(spec)) is not None:
            return Weights(based.folder, self._files.revision(based))
        if self._folder is not None and spec.id == self._own_id:
            return Weights(self._folder, revision_of(self._folder))
        return find_weights(spec.id, self._volume, bundled=spec.id in BUNDLED)

    def look(self, spec: ModelSpec) -> None:
        """That the weights of `spec` are here; reads no file whole. Raises ModelUnavailable."""
        if self._based(spec) is None:
            self.weights(spec)

    def file(self, spec: ModelSpec) -> ModelFile | None:
        """The single file that `spec` is made of, as it is now. Raises ModelUnavailable."""
        based = self._based(spec)
        return based.file if based is not None else None

    def knows_weights(self, spec: ModelSpec) -> bool:
        """Whether `weights` answers at once, without reading a whole file. Raises ModelUnavailable."""
        based = self._based(spec)
        return based is None or self._files.knows_revision(based)

    def _looked_for_file(self) -> tuple[bool, Path | None]:
        """Whether FLUX_MODEL means a file, and the file if it is there.

        Raises SettingsError for one that is something else, or an address; one that is missing may come yet.
        """
        if self._default is not None or self._folder is not None:
            return False, None
        try:
            path = self._files.place(self._name)
        except ModelUnavailable as fault:
            if "://" in self._name:
                raise SettingsError(f"FLUX_MODEL: {fault.message}") from fault
            return True, None
        try:
            if path is not None:
                read_model_file(path, name=path.name)
        except ModelUnavailable as fault:
            raise SettingsError(f"FLUX_MODEL: {fault.message}") from fault
        return path is not None, path

    def _own_file(self) -> BasedFile | None:
        """The file that FLUX_MODEL names, if it means one. Raises ModelUnavailable."""
        path = self._files.place(self._name) if self._is_file else None
        return self._files.open(path, name=self._own_id) if path is not None else None

    def _based(self, spec: ModelSpec) -> BasedFile | None:
        if not spec.is_single_file:
            return None
        found = self._own_file() if spec.id == self._own_id else self._files.find(spec.id)
        if found is None:
            raise ModelUnavailable(f"{spec.id} is gone from the volume; fetch it again")
        return found

    def upsampler_folder(self, spec: ModelSpec) -> Path | None:
        """Where the prompt upsampler of `spec` is; None where it is missing, or none of weights of its own."""
        if spec.upsampler_id is None:
            return None
        places = candidate_folders(spec.upsampler_id, self._volume)
        return next((folder for folder in places if (folder / UPSAMPLER_CONFIG).is_file()), None)

    def upsampler_revision(self, job: Job) -> str | None:
        """By what the prompt of `job` is written out, for its fingerprint; None where it is not, or by the model."""
        folder = self.upsampler_folder(self.named(job.model))
        is_used = isinstance(job, ImageJob) and job.enhance_prompt
        return revision_of(folder) if is_used and folder is not None else None

    def equipped(self, job: AnyJob) -> AnyJob:
        """`job` as it can be made here: without the upsampler where that is missing and was not asked for.

        Raises ModelUnavailable where it was.
        """
        spec = self.named(job.model)
        if not isinstance(job, ImageJob) or not job.enhance_prompt:
            return job
        if spec.upsampler_id is None or self.upsampler_folder(spec) is not None:
            return job
        missing = f"{spec.upsampler_id} is not on this endpoint's volume"
        if not job.is_enhancing_open:
            raise ModelUnavailable(
                f"`enhance_prompt` needs the prompt upsampler: {missing}; put it there with "
                f"`python builder/fetch_models.py {spec.name}`, or leave `enhance_prompt` out"
            )
        warning = f"the prompt was read as it is, which {spec.name} is not made for: its prompt upsampler {missing}"
        return replace(job, enhance_prompt=False, warnings=(*job.warnings, warning))


def _folder_of(name: str, volume: Path) -> Path | None:
    """FLUX_MODEL as a folder of its own or of the volume, if it is one."""
    places = (Path(name), volume / name)
    try:
        return next((folder for folder in places if index_of(folder) is not None), None)
    except (OSError, ValueError):  # no path at all: too long, a null character
        return None


def _kind_of(folder: Path) -> ModelSpec | None:
    """The catalogue's model whose pipeline class `folder` names, and which takes guidance or not as it does."""
    pipeline_class, takes_guidance = pipeline_class_of(folder), has_guidance(folder)
    if folder.resolve() == BUNDLED_FOLDER:
        return catalog.FLUX_TINY
    kinds = [spec for spec in catalog.CATALOG if spec.pipeline_class == pipeline_class and spec.id not in BUNDLED]
    alike = [spec for spec in kinds if (spec.limits.guidance_scale is not None) == takes_guidance]
    return next(iter([*alike, *kinds]), None)
