"""Where a model's weights are: bundled, a folder, on the volume, or in the platform's cache of Hugging Face models.

Looking costs a few `stat` calls and reads no weights. What is found has a revision, so that a result can tell which
weights made it.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flux_engine.errors import ModelUnavailable

BUNDLED_FOLDER: Final = Path(__file__).parent / "flux_tiny"
BUNDLED: Final = {"flux-tiny": BUNDLED_FOLDER, "flux-tiny-kontext": BUNDLED_FOLDER.with_name("flux_tiny_kontext")}
REVISION_FILE: Final = "revision.txt"  # written by builder/fetch_models.py
INDEX: Final = "model_index.json"
INDEXES: Final = (INDEX, "modular_model_index.json")  # the latter of pipelines that are made of blocks
SAMPLES: Final = 16  # blocks read per file, spread evenly: a merged LoRA changes every block of a transformer
SAMPLE_BYTES: Final = 64 * 1024

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Weights:
    """An ordinary diffusers folder and the revision of what is in it."""

    folder: Path
    revision: str


def find_weights(model_id: str, volume: Path, *, bundled: bool = False) -> Weights:
    """Look for `model_id` (owner/name) in every place where weights may be.

    Raises ModelUnavailable, which says how to put the model on the volume; the places go to the log.
    """
    places = [BUNDLED[model_id]] if bundled else candidate_folders(model_id, volume)
    for folder in places:
        if index_of(folder) is not None:
            return Weights(folder, revision_of(folder))
    log.error("model not found", extra={"model": model_id, "detail": ", ".join(str(place) for place in places)})
    if bundled:
        raise ModelUnavailable("the bundled model is missing from this installation; install the package again")
    raise ModelUnavailable(
        f"{model_id} is not on this endpoint's volume; put it there with "
        f"`python builder/fetch_models.py {model_id}`, or choose it under the endpoint's Model setting"
    )


def index_of(folder: Path) -> Path | None:
    """The file that says what is in a folder of diffusers'; None where it is none."""
    return next((path for name in INDEXES if (path := folder / name).is_file()), None)


def candidate_folders(model_id: str, volume: Path) -> list[Path]:
    """Where `model_id` may be, first choice first."""
    dashed = model_id.replace("/", "--")
    places = [volume / "models" / dashed, volume / "models" / model_id, volume / model_id]
    for hub in (volume / "huggingface-cache" / "hub", volume / "hub"):
        cached = hub / f"models--{dashed}"
        reference = cached / "refs" / "main"
        if reference.is_file():
            places.append(cached / "snapshots" / reference.read_text().strip())
        places += sorted((cached / "snapshots").glob("*"))
    return places


def revision_of(folder: Path) -> str:
    """The hub's commit where it is known, else a hash of what is in `folder`: names, sizes and samples of each file."""
    if (folder / REVISION_FILE).is_file():
        return (folder / REVISION_FILE).read_text().strip()
    if folder.parent.name == "snapshots":
        return folder.name
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".json", ".safetensors", ".model", ".txt")):
        digest.update(f"{path.relative_to(folder)} {path.stat().st_size}\n".encode())
        for sample in _samples(path):
            digest.update(sample)
    return digest.hexdigest()[:16]


def _samples(path: Path) -> Iterator[bytes]:
    """A small file whole; of a large one its beginning, its end, and pieces between."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= SAMPLES * SAMPLE_BYTES:
            yield file.read()
            return
        for i in range(SAMPLES):
            file.seek((size - SAMPLE_BYTES) * i // (SAMPLES - 1))
            yield file.read(SAMPLE_BYTES)


def pipeline_class_of(folder: Path) -> str:
    """The pipeline class that `folder` names. Raises ModelUnavailable where its index is not readable."""
    try:
        return str(json.loads((index_of(folder) or folder / INDEX).read_text())["_class_name"])
    except (OSError, ValueError, KeyError) as error:
        raise ModelUnavailable("the model's folder has no readable model_index.json; fetch the model again") from error


def has_guidance(folder: Path) -> bool:
    """Whether the transformer in `folder` has a guidance embedding, as guidance-distilled models do."""
    try:
        config = json.loads((folder / "transformer" / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise ModelUnavailable("the model's folder has no readable transformer; fetch the model again") from error
    return bool(config.get("guidance_embeds", False))
