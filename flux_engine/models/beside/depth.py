"""Depth models of transformers' on the volume: a depth map of any picture, near in white, as ControlNets know them.

found = DepthModels(volume / PREPROCESSOR_FOLDER).find()      # reads a small config, no weights
depth_map = load_depth(found).map_of(picture, device="cuda")  # on the GPU thread
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from PIL import Image

from flux_engine.errors import ModelUnavailable
from flux_engine.models.weights import revision_of
from flux_engine.units import MIB

PREPROCESSOR_FOLDER: Final = "preprocessors"  # of the volume, a folder each
CLASSES: Final = ("DepthAnythingForDepthEstimation", "DPTForDepthEstimation")
ROOM_FOR_WORK: Final = 768 * MIB  # beside the weights: what one picture takes on its way through
MOST_OBLONG: Final = 4  # sides of what is looked at: the processor brings the shorter one to its own size


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthModel:
    """One on the volume; `bytes` of its weights as they lie."""

    folder: Path
    revision: str
    bytes: int

    @property
    def device_bytes(self) -> int:
        """What it needs of a GPU's memory while it looks at a picture."""
        return self.bytes + ROOM_FOR_WORK


class DepthModels:
    """Those under `folder`, which need not exist."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self) -> DepthModel | None:
        """The first by name."""
        try:
            folders = sorted(path for path in self._folder.iterdir() if not path.name.startswith("."))
        except OSError:
            return None
        for folder in folders:
            if set(CLASSES) & set(_architectures(folder)):
                size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
                return DepthModel(folder=folder, revision=revision_of(folder), bytes=size)
        return None


class LoadedDepth:
    """A depth model in the host's memory."""

    def __init__(self, network: Any, processor: Any) -> None:
        self._network = network
        self._processor = processor

    def map_of(self, picture: Image.Image, *, device: str) -> Image.Image:
        """The depths of `picture` (RGB) at its size, from black to white; the network is on `device` meanwhile."""
        import torch

        network = self._network
        # transformers' DPT reads its patches as a square, whatever the processor's file says.
        shape = {"keep_aspect_ratio": False} if network.config.model_type == "dpt" else {}
        values = self._processor(images=_seen(picture), return_tensors="pt", **shape)["pixel_values"]
        try:
            network.to(device)
            with torch.inference_mode():
                depths = network(values.to(device, network.dtype)).predicted_depth[0].float().cpu()
        finally:
            network.to("cpu")
        if getattr(network.config, "depth_estimation_type", None) == "metric":
            depths = -depths  # metres grow away from the eye
        low, high = depths.aminmax()
        span = (high - low).clamp(min=torch.finfo(torch.float32).tiny)
        levels = ((depths - low) / span * 255).round().to(torch.uint8)
        return Image.fromarray(levels.numpy()).resize(picture.size, Image.Resampling.BICUBIC).convert("RGB")


def load_depth(found: DepthModel) -> LoadedDepth:
    """Raises ModelUnavailable where its files are broken."""
    from safetensors import SafetensorError
    from transformers import AutoImageProcessor, AutoModelForDepthEstimation

    try:
        processor = AutoImageProcessor.from_pretrained(found.folder, backend="pil", local_files_only=True)
        network = AutoModelForDepthEstimation.from_pretrained(
            found.folder, use_safetensors=True, local_files_only=True, dtype="auto"
        )
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
        message = "the depth model on the volume cannot be loaded; fetch it again, or send a depth map as the picture"
        raise ModelUnavailable(message) from error
    return LoadedDepth(network.eval(), processor)


def _seen(picture: Image.Image) -> Image.Image:
    """`picture`, stretched where it is so oblong that the processor would make its longer side huge."""
    width, height = picture.size
    size = max(width, height // MOST_OBLONG), max(height, width // MOST_OBLONG)
    return picture if size == picture.size else picture.resize(size, Image.Resampling.BICUBIC)


def _architectures(folder: Path) -> tuple[str, ...]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return tuple(map(str, config.get("architectures") or ()))
    except (OSError, ValueError, AttributeError, TypeError):
        return ()
