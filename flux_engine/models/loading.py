"""A pipeline loaded by a plan, component by component."""

from __future__ import annotations

import gc
import importlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError

from flux_engine.models.alignment import align
from flux_engine.models.checkpoint import Snapshot, checkpoint_folder, mark_used
from flux_engine.models.modular import component_class, modular_flux
from flux_engine.models.planning.plan import Plan
from flux_engine.models.read_ahead import WeightFiles, weight_files
from flux_engine.models.single_file.components import load_component, suit_scheduler
from flux_engine.models.single_file.model_file import ModelFile
from flux_engine.models.spec import ModelSpec
from flux_engine.models.tuning.apply import AppliedPlan, apply
from flux_engine.models.tuning.fallback import is_out_of_memory
from flux_engine.models.tuning.libraries import import_diffusers
from flux_engine.models.tuning.quantisation import Loading, loading
from flux_engine.models.weights import INDEX, has_guidance

# What a broken folder makes loading raise; safetensors' own error is none of Python's.
BROKEN: Final = (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where weights come from: a diffusers folder of a known revision, and the volume that keeps what is made of it.

    With a `file`, its components come from there and the rest from `folder`, its base. `volume` None: quantised
    checkpoints are neither read nor written.
    """

    folder: Path
    revision: str
    volume: Path | None = None
    file: ModelFile | None = None

    def checkpoint(self, spec: ModelSpec, plan: Plan) -> Path | None:
        """Where the quantised checkpoint of `plan` is, or belongs; None where nothing is quantised or kept."""
        if self.volume is None or not plan.is_quantised or plan.offload == "balanced":
            return None
        schemes = {part.component: part.quantisation for part in plan.parts}
        return checkpoint_folder(
            self.volume,
            model_id=spec.id,
            revision=self.revision,
            dtype=plan.dtype,
            quantisations=schemes,
            is_compiled=plan.compile,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """A pipeline and what took effect of its plan."""

    pipeline: Any
    applied: AppliedPlan
    checkpoint: Path | None  # its quantised components: loaded from there, or to be written there
    unsaved: Snapshot | None  # those components, where they were quantised here
    import_ms: float
    load_ms: float
    apply_ms: float

    @property
    def is_from_checkpoint(self) -> bool:
        return self.checkpoint is not None and self.unsaved is None

    def phases_ms(self, *, import_ms: float = 0.0) -> dict[str, float]:
        """How long each phase took, by its name in a result; `import_ms` of it before."""
        return {"imports": import_ms + self.import_ms, "weights": self.load_ms, "apply": self.apply_ms}


def load_tuned(
    spec: ModelSpec,
    source: Source,
    plan: Plan,
    *,
    device: str,
    on_loaded: Callable[[str], None] = lambda component: None,
) -> Tuned:
    """The pipeline of `plan`, loaded and with the plan applied; `on_loaded` is called for each component.

    What `from_pretrained` raises for a broken folder passes through, and so does torch.OutOfMemoryError: whoever steps
    down to a leaner plan has to let go of the error first, whose traceback holds the half-loaded pipeline.
    """
    began = time.perf_counter()
    pipeline_class = getattr(import_diffusers(), spec.pipeline_class)
    imported = time.perf_counter()
    how = loading(plan, device=device)
    loaded: dict[str, Any] = {}
    checkpoint = _checkpoint(spec, source, plan, how)
    is_from_checkpoint = False
    if plan.offload != "balanced":
        one_by_one = _OneByOne(spec, source, plan, how, device, on_loaded)
        from_checkpoint = _from_checkpoint(one_by_one, checkpoint)
        is_from_checkpoint = from_checkpoint is not None
        loaded = from_checkpoint if from_checkpoint is not None else one_by_one.load()
    if spec.is_modular:
        pipeline = modular_flux(spec.pipeline_class, source.folder, loaded)
    else:
        pipeline = pipeline_class.from_pretrained(source.folder, use_safetensors=True, **_rest(how, loaded), **loaded)
    if source.file is not None:
        suit_scheduler(pipeline, source.file, base_has_guidance=has_guidance(source.folder))
    at_hand = time.perf_counter()
    applied = apply(pipeline, plan, device=device, fallbacks=how.fallbacks)
    pipeline.set_progress_bar_config(disable=True)
    return Tuned(
        pipeline=pipeline,
        applied=applied,
        checkpoint=checkpoint,
        unsaved=_snapshot(how, loaded) if checkpoint is not None and not is_from_checkpoint else None,
        import_ms=(imported - began) * 1000,
        load_ms=(at_hand - imported) * 1000,
        apply_ms=(time.perf_counter() - at_hand) * 1000,
    )


def loading_order(spec: ModelSpec) -> tuple[str, ...]:
    """Components as they are loaded: a text encoder that leaves the device makes room before the transformer comes."""
    encoders = sorted(spec.text_encoders, key=lambda encoder: -encoder.parameters)
    return (*(encoder.name for encoder in encoders), spec.transformer.name, spec.vae.name)


def files_to_read(spec: ModelSpec, source: Source, plan: Plan) -> list[WeightFiles]:
    """What `load_tuned` will open, in its order, without torch."""
    checkpoint = source.checkpoint(spec, plan)
    made = checkpoint if checkpoint is not None and checkpoint.is_dir() else None
    return [
        _files_of(name, source, made if plan.quantisation_of(name) != "none" else None) for name in loading_order(spec)
    ]


def _files_of(name: str, source: Source, checkpoint: Path | None) -> WeightFiles:
    """A single file is read ahead with its transformer, which is most of it."""
    if checkpoint is None and source.file is not None and name in source.file.parts:
        return WeightFiles(name, (source.file.path,) if name == "transformer" else ())
    return weight_files(checkpoint or source.folder, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a component's weights are read to (and quantised), and where they rest."""

    load_on: str
    rest_on: str


def placement(plan: Plan, component: str, *, device: str, is_quantised_yet: bool = False) -> Placement:
    """Weights go straight to where they rest, but those that are still to be quantised go by the GPU where it holds
    them: on a CPU it takes 28 ns a weight and thread, 8 minutes for FLUX.1."""
    if device == "cpu":
        return Placement(load_on="cpu", rest_on="cpu")
    encoders = [part for part in plan.parts if part.component.startswith("text_encoder")]
    is_streamed = component == max(encoders, key=lambda part: part.bytes).component
    stays = plan.offload == "none" or (plan.offload == "text" and not is_streamed)
    rest_on = device if stays else "cpu"
    part = next(part for part in plan.parts if part.component == component)
    is_to_quantise = part.quantisation != "none" and not is_quantised_yet
    fits = part.bytes <= plan.limit_bytes
    return Placement(load_on=device if is_to_quantise and fits else rest_on, rest_on=rest_on)


def release_memory() -> None:
    """Give freed device memory back, once no reference to the pipeline is left."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch._C._host_emptyCache()  # the pinned host memory of offloaded blocks, which torch keeps otherwise


@dataclass(frozen=True, slots=True)
class _OneByOne:
    """Loads the components of one pipeline."""

    spec: ModelSpec
    source: Source
    plan: Plan
    how: Loading
    device: str
    on_loaded: Callable[[str], None]

    def load(self, checkpoint: Path | None = None) -> dict[str, Any]:
        """All components by name, the quantised ones from `checkpoint` where one is given."""
        loaded = {}
        for name in loading_order(self.spec):
            loaded[name] = self._component(name, checkpoint)
            self.on_loaded(name)
        return loaded

    def _component(self, name: str, checkpoint: Path | None) -> Any:
        from torch import nn

        config = self.how.configs.get(name)
        is_quantised_yet = config is not None and checkpoint is not None
        where = placement(self.plan, name, device=self.device, is_quantised_yet=is_quantised_yet)
        arguments: dict[str, Any] = {"dtype": self.how.arguments["dtype"], "use_safetensors": True}
        if config is not None and not is_quantised_yet:
            arguments["quantization_config"] = config
        of_class, folder, file = _class_of(self.spec, self.source.folder, name), self.source.folder, self.source.file
        if file is not None and name in file.parts and not is_quantised_yet:
            component = load_component(file, name, of_class, folder=folder, device=where.load_on, arguments=arguments)
        else:
            if where.load_on != "cpu":
                arguments["device_map"] = where.load_on
            place = checkpoint if is_quantised_yet and checkpoint is not None else folder
            component = of_class.from_pretrained(place / name, **arguments)
        if where.rest_on != where.load_on:
            nn.Module.to(component, where.rest_on)  # the libraries' own `to` rejects some quantised components
        if self.device == "cpu":
            align(component)
        return component


def _class_of(spec: ModelSpec, folder: Path, component: str) -> Any:
    """The class that the folder's index names. Raises KeyError or ValueError for an index that names none."""
    if spec.is_modular:
        return component_class(spec.pipeline_class, component)
    library, name = json.loads((folder / INDEX).read_text())[component]
    if library not in ("diffusers", "transformers"):
        raise ValueError(f"{component} is of a class outside of diffusers and transformers")
    return getattr(importlib.import_module(library), name)


def _rest(how: Loading, loaded: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `from_pretrained` for a pipeline of which `loaded` is there already."""
    return {"dtype": how.arguments["dtype"]} if loaded else how.arguments


def _checkpoint(spec: ModelSpec, source: Source, plan: Plan, how: Loading) -> Path | None:
    """As Source.checkpoint, by what is quantised in the end: a scheme that cannot run here has fallen back."""
    if source.checkpoint(spec, plan) is None or source.volume is None or not how.configs:
        return None
    return checkpoint_folder(
        source.volume,
        model_id=spec.id,
        revision=source.revision,
        dtype=plan.dtype,
        quantisations=how.quantisations,
        is_compiled=plan.compile,
    )


def _from_checkpoint(one_by_one: _OneByOne, folder: Path | None) -> dict[str, Any] | None:
    """The components; a checkpoint that cannot be read is removed, and None says to make it again."""
    import torch

    if folder is None or not folder.is_dir():
        return None
    try:
        loaded = one_by_one.load(folder)
    except torch.AcceleratorError:
        raise
    except BROKEN as error:
        if is_out_of_memory(error):
            raise
        log.warning("a quantised checkpoint could not be read and is made again", exc_info=True)
        shutil.rmtree(folder, ignore_errors=True)
        return None
    mark_used(folder)
    return loaded


def _snapshot(how: Loading, loaded: Mapping[str, Any]) -> Snapshot:
    return Snapshot.of({name: loaded[name] for name in how.configs})
