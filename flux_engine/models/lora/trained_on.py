"""Which model a LoRA was trained on, by the notes of its trainer.

Names and widths tell most models apart. Some share both with FLUX, such as HunyuanVideo under kohya's names, or FLUX.1
and FLUX.2-klein-4B in their first blocks: there the notes are all that tells.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from flux_engine.errors import LoraIncompatible
from flux_engine.models.lora.names import LayerNames

TRAINED_ON_NOTES: Final = ("modelspec.architecture", "ss_base_model_version", "base_model_name_or_path")
FAMILIES: Final = (  # what such a note says, and the model it means
    (r"flux[._-]?3", "FLUX.3"),
    (r"flux[._-]?2", "FLUX.2"),
    (r"flux[._-]?1|flux[._-]?(dev|schnell|kontext|krea|fill)", "FLUX.1"),
    (r"hunyuan", "HunyuanVideo"),
    (r"wan[._-]?2|\bwan\b", "Wan"),
    (r"qwen", "Qwen-Image"),
    (r"stable-diffusion-xl|sdxl", "SDXL"),
    (r"stable-diffusion|\bsd[_-]?v?[123]", "Stable Diffusion"),
    (r"chroma", "Chroma"),
    (r"z[_-]?image", "Z-Image"),
    (r"lumina", "Lumina"),
)


def trained_on(metadata: Mapping[str, str]) -> str | None:
    """The model that a file's notes name."""
    for note in TRAINED_ON_NOTES:
        text = metadata.get(note, "").lower()
        found = next((family for pattern, family in FAMILIES if re.search(pattern, text)), None)
        if found is not None:
            return found
    return None


def family(names: LayerNames) -> str | None:
    """The family of the model with these layers, where its layers tell."""
    marks = (("mode_blocks", "FLUX.3"), ("double_stream_modulation_img", "FLUX.2"), ("time_text_embed", "FLUX.1"))
    return next((name for mark, name in marks if any(layer.startswith(mark) for layer in names.shapes)), None)


def check_trained_on(metadata: Mapping[str, str], names: LayerNames) -> None:
    """Some models share names and widths with FLUX: then the notes tell them apart."""
    theirs, ours = trained_on(metadata), family(names)
    if theirs is not None and ours is not None and theirs != ours:
        raise LoraIncompatible(
            f"the LoRA's notes say that it was trained on {theirs}, and this model is a {ours}; choose the `model` "
            "that it was trained on"
        )
