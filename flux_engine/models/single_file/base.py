"""The base model of a file: the diffusers folder that what the file lacks comes from, and what kind of model it is.

A transformer fits the text encoders that it was trained with, so a folder fits where its own transformer takes the same
embeddings. Of those that fit, the most similar is taken: FLUX.1-schnell's folder serves a FLUX.1-dev file where nothing
nearer is there. Only headers and configurations are read.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from flux_engine.errors import ModelUnavailable
from flux_engine.models import catalog
from flux_engine.models.measure import component_of, folder_shapes, shape_of, vae_channels_of
from flux_engine.models.single_file.model_file import ModelFile
from flux_engine.models.single_file.names import Part
from flux_engine.models.spec import Component, ModelSpec
from flux_engine.models.weights import BUNDLED_FOLDER, INDEX, candidate_folders, pipeline_class_of

CLASSES: Final = {"FLUX.1": "FluxTransformer2DModel", "FLUX.2": "Flux2Transformer2DModel"}
SAME: Final = ("joint_attention_dim", "pooled_projection_dim", "attention_head_dim")  # what the text encoders determine
KLEIN: Final = {7680: catalog.FLUX_2_KLEIN_4B, 12288: catalog.FLUX_2_KLEIN_9B}  # by the width of its text embeddings
ONLY_HERE: Final = (".position_ids", ".embed_tokens.weight")  # a buffer, and a second name of `shared`

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class BasedFile:
    """A model's file with its base: `file.parts` are what is used of it, all else comes from `folder`."""

    spec: ModelSpec
    file: ModelFile
    folder: Path


def based(file: ModelFile, *, volume: Path) -> BasedFile:
    """`file` with the base model that fits it best. Raises ModelUnavailable where the volume has none."""
    folders = [(config, folder) for folder in _folders(volume) if _fits(config := _config(folder), file)]
    if not folders:
        raise ModelUnavailable(
            f"`{file.name}` brings a {file.family} transformer, and its base model is not on this endpoint's volume; "
            f"put it there with `python builder/fetch_models.py {_usual_base(file).id}`"
        )
    _, folder = max(folders, key=lambda found: _likeness(found[0], file))  # the first of those that are as near
    shapes = {component: folder_shapes(folder, component) for component in ("text_encoder", "text_encoder_2", "vae")}
    used = {"transformer": file.parts["transformer"]} | {
        component: part
        for component in file.parts
        if component != "transformer" and (part := _usable(file, component, shapes[component])) is not None
    }
    file = replace(file, parts=used)
    return BasedFile(spec=_spec(file, folder, shapes), file=file, folder=folder)


# --------------------------------------------------------------------------------------------------- which folder


def _folders(volume: Path) -> Iterator[Path]:
    """Every diffusers folder that may be a base: of the catalogue, of the volume, and the bundled model."""
    own = [
        folder
        for spec in catalog.CATALOG
        if spec.id != catalog.FLUX_TINY.id
        for folder in candidate_folders(spec.id, volume)
    ]
    others = sorted((volume / "models").glob("*")) if (volume / "models").is_dir() else []
    for folder in dict.fromkeys((*own, *others, BUNDLED_FOLDER)):
        if (folder / INDEX).is_file():
            yield folder


def _config(folder: Path) -> Mapping[str, Any]:
    try:
        found = json.loads((folder / "transformer" / "config.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _fits(config: Mapping[str, Any], file: ModelFile) -> bool:
    is_same = all(config.get(field) == file.config[field] for field in SAME if field in file.config)
    return is_same and config.get("_class_name") == CLASSES[file.family]


def _likeness(config: Mapping[str, Any], file: ModelFile) -> int:
    return sum(config.get(field) == value for field, value in file.config.items())


# ------------------------------------------------------------------------------------------------- what is used


def _usable(file: ModelFile, component: str, wanted: Mapping[str, tuple[int, ...]]) -> Part | None:
    """The file's own component, if it has every tensor of the base's in its shape: a vision tower may be left out."""
    shapes = file.shapes(component)
    needed = {name: shape for name, shape in wanted.items() if not name.endswith(ONLY_HERE) or name in shapes}
    lacking = [name for name, shape in needed.items() if shapes.get(name) != shape]
    if lacking or not needed:
        log.warning("a component of the file is not used", extra={"model": file.name, "detail": component})
        return None
    return {name: file.parts[component][name] for name in needed}


# ---------------------------------------------------------------------------------------------------- what it is


def _spec(file: ModelFile, folder: Path, shapes: Mapping[str, Mapping[str, tuple[int, ...]]]) -> ModelSpec:
    """The catalogue's model of its kind, with the file's name and the figures of its own tensors."""
    kind = _kind(file, folder)

    def measured(component: Component) -> Component:
        name = component.name
        return component_of(name, file.shapes(name) if name in file.parts else shapes[name])

    return replace(
        kind,
        name=file.name,
        aliases=(),
        is_single_file=True,
        limits=replace(kind.limits, id=file.name),
        transformer=measured(kind.transformer),
        text_encoders=tuple(measured(encoder) for encoder in kind.text_encoders),
        vae=measured(kind.vae),
        vae_channels=vae_channels_of(shapes["vae"], kind),
        shape=shape_of(file.shapes("transformer"), file.config, kind.shape),
    )


def _kind(file: ModelFile, folder: Path) -> ModelSpec:
    """Where tensors cannot tell (Kontext and Krea have dev's), what the file calls itself decides."""
    if folder == BUNDLED_FOLDER:
        return catalog.FLUX_TINY
    if file.family == "FLUX.2" and pipeline_class_of(folder) == catalog.FLUX_2_DEV.pipeline_class:
        return catalog.FLUX_2_DEV
    return _usual_base(file)


def _usual_base(file: ModelFile) -> ModelSpec:
    config = file.config
    if file.family == "FLUX.2":
        is_dev = config["guidance_embeds"]
        return catalog.FLUX_2_DEV if is_dev else KLEIN.get(config["joint_attention_dim"], catalog.FLUX_2_KLEIN_4B)
    if config["out_channels"] is not None:
        return catalog.FLUX_1_FILL_DEV
    if "kontext" in file.calls_itself:
        return catalog.FLUX_1_KONTEXT_DEV
    if not config["guidance_embeds"]:
        return catalog.FLUX_1_SCHNELL
    return catalog.FLUX_1_KREA_DEV if "krea" in file.calls_itself else catalog.FLUX_1_DEV
