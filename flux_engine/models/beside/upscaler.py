"""An upscaler from the volume, run in tiles that fit a given memory.

The networks are spandrel's, which tells their architecture from their weights. A .pth file is a pickle from a stranger:
only its tensors are read.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
from PIL import Image

from flux_engine.errors import ModelUnavailable
from flux_engine.media.mosaic import Mosaic, tiles_of

OVERLAP: Final = 32  # pixels of the given picture
TILE_SIDES: Final = (32, 512)
VALUES_OF_PIXEL: Final = (
    320  # held at once for each pixel of a result: of 64 channels an input, an output, three between
)
LEFT_OUT: Final = {  # what spandrel imports of torchvision, for networks that are no upscalers
    "torchvision": (),
    "torchvision.transforms": (),
    "torchvision.transforms.functional": ("InterpolationMode", "rotate", "normalize"),
}


@dataclass(frozen=True, slots=True)
class LoadedUpscaler:
    """A network on `device`; `scale` is how many times it enlarges."""

    network: Any  # spandrel's ImageModelDescriptor
    device: str

    @property
    def scale(self) -> int:
        return int(self.network.scale)

    def enlarged(self, picture: Image.Image, factor: int, *, max_bytes: int) -> Image.Image:
        """`picture` (RGB) `factor` times as large. The network and a tile take about `max_bytes`, and no whole picture
        is larger than the one that is asked for."""
        done, whole = 1, picture
        while done < factor:
            done = min(done * self.scale, factor)
            whole = self._once(whole, (picture.width * done, picture.height * done), max_bytes - self._weight_bytes)
        return whole

    @property
    def _weight_bytes(self) -> int:
        return sum(weight.nbytes for weight in self.network.model.parameters())

    def _once(self, picture: Image.Image, size: tuple[int, int], max_bytes: int) -> Image.Image:
        """`picture` at `size`, up to `scale` times as large: of a larger factor each tile is scaled down."""
        bytes_of_pixel = VALUES_OF_PIXEL * self.scale**2 * self.network.dtype.itemsize
        side = min(max(int((max(max_bytes, 0) / bytes_of_pixel) ** 0.5), TILE_SIDES[0]), TILE_SIDES[1])
        factor = size[0] / picture.width
        mosaic = Mosaic(Image.new("RGB", size), keeps_colours=False)
        for box in tiles_of(picture.size, side=side, overlap=min(OVERLAP, side // 2)):
            left, top, right, bottom = (round(edge * factor) for edge in box)
            mosaic.add(self._tile(picture.crop(box)), (left, top, right, bottom))
        return mosaic.picture()

    def _tile(self, tile: Image.Image) -> Image.Image:
        import torch

        values = torch.from_numpy(np.array(tile)).permute(2, 0, 1)[None]
        with torch.inference_mode():
            made = self.network(values.to(self.device, self.network.dtype) / 255)
        rounded = (made[0].float().clamp(0, 1) * 255).round().to(torch.uint8)
        return Image.fromarray(rounded.permute(1, 2, 0).cpu().numpy())


def load_upscaler(path: Path, *, device: str) -> LoadedUpscaler:
    """Raises ModelUnavailable for a file that is none, or of a network that takes and gives no RGB picture."""
    import torch

    spandrel = import_spandrel()
    broken = f"the upscaler {path.name} cannot be loaded; put another one on the volume, or fetch it again"
    try:
        loader = spandrel.ModelLoader(device=device)
        network = loader.load_from_state_dict(_weights(path))
    except torch.OutOfMemoryError:
        raise
    except (
        Exception
    ) as error:  # spandrel's errors, torch's for a pickle that holds more than tensors, and any of a network
        raise ModelUnavailable(broken) from error
    is_picture_to_picture = isinstance(network, spandrel.ImageModelDescriptor)
    if not is_picture_to_picture or network.input_channels != 3 or network.output_channels != 3 or network.scale < 2:
        raise ModelUnavailable(f"{path.name} does not enlarge colour pictures; put an upscaler on the volume")
    if device != "cpu" and network.supports_half:
        network.half()
    network.eval()
    return LoadedUpscaler(network, device)


def _weights(path: Path) -> dict[str, Any]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return dict(load_file(path))
    import torch

    held: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return held


def import_spandrel() -> Any:
    """spandrel without torchvision, one of another build than torch breaks the import of diffusers' classes."""
    standing = {name: _stand_in(name) for name in LEFT_OUT if name not in sys.modules}
    sys.modules |= standing
    try:
        import spandrel
    finally:
        for name in standing:
            del sys.modules[name]
    return spandrel


def _stand_in(name: str) -> ModuleType:
    module = ModuleType(name)
    for attribute in LEFT_OUT[name]:
        setattr(module, attribute, None)
    return module
