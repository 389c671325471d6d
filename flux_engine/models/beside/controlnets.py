"""ControlNets for FLUX.1 on the volume: a folder each, in diffusers' form. Looking reads a small config, no weights."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from flux_engine.errors import ModelUnavailable
from flux_engine.models.spec import ModelSpec
from flux_engine.models.weights import revision_of

CONTROLNET_FOLDER: Final = "controlnets"  # of the volume
CLASS_NAME: Final = "FluxControlNetModel"
MODES: Final = {"canny": 0, "tile": 1, "depth": 2, "pose": 4}  # of the Union models, as their authors number them


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlNet:
    """One ControlNet on the volume. `is_union`: it is told the type of a map; `bytes` of its weights as they lie."""

    folder: Path
    revision: str
    is_union: bool
    bytes: int

    def mode(self, control_type: str) -> int | None:
        return MODES[control_type] if self.is_union else None


class ControlNets:
    """Those under `folder`, which need not exist."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, spec: ModelSpec) -> ControlNet | None:
        """The first by name that is as wide as `spec`'s transformer."""
        try:
            folders = sorted(path for path in self._folder.iterdir() if not path.name.startswith("."))
        except OSError:
            return None
        for folder in folders:
            config = _config(folder)
            if config is None or config.get("_class_name") != CLASS_NAME:
                continue
            if config.get("num_attention_heads", 24) * config.get("attention_head_dim", 128) == spec.shape.width:
                return ControlNet(
                    folder=folder,
                    revision=revision_of(folder),
                    is_union=config.get("num_mode") is not None,
                    bytes=sum(path.stat().st_size for path in folder.glob("*.safetensors")),
                )
        return None

    def needed(self, spec: ModelSpec) -> ControlNet:
        """As `find`. Raises ModelUnavailable, which says how to put one there."""
        found = self.find(spec)
        if found is None:
            raise ModelUnavailable(
                f"no ControlNet for {spec.name} is on this endpoint's volume; put one there with "
                "`python builder/fetch_models.py FLUX.1-ControlNet-Union-Pro`, or leave `control` out"
            )
        return found


def load_controlnet(found: ControlNet, *, dtype: Any) -> Any:
    """diffusers' model, in the host's memory. Raises ModelUnavailable where its files are broken."""
    from diffusers import FluxControlNetModel
    from safetensors import SafetensorError

    ignore_diffusers_warning()
    try:
        return FluxControlNetModel.from_pretrained(found.folder, dtype=dtype, use_safetensors=True).eval()
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        message = "the ControlNet on the volume cannot be loaded; fetch it again, or leave `control` out"
        raise ModelUnavailable(message) from error


def ignore_diffusers_warning() -> None:
    """diffusers' ControlNet imports a class from a place that diffusers itself calls outdated."""
    warnings.filterwarnings("ignore", message="`FluxPosEmbed` is deprecated", category=FutureWarning)


def _config(folder: Path) -> dict[str, Any] | None:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return config if isinstance(config, dict) else None
