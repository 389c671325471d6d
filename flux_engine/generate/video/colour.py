"""Colours of one picture given to another, in CIE L*a*b* under D65, where distances are near what eyes see.

A chain of redrawn frames drifts in brightness and tint; matching mean and spread of each channel to the keyframe's
holds it (Reinhard et al., Color Transfer between Images, 2001).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import Tensor

# sRGB to XYZ, IEC 61966-2-1, each row divided by the white point
_TO_XYZ: Final = (
    (0.4124564 / 0.95047, 0.3575761 / 0.95047, 0.1804375 / 0.95047),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339 / 1.08883, 0.1191920 / 1.08883, 0.9503041 / 1.08883),
)
_DELTA: Final = 6 / 29
MAX_SPREAD: Final = 2.0  # how far a nearly flat picture may be stretched, or its inverse


@dataclass(frozen=True, slots=True)
class Palette:
    """Mean and standard deviation of L*, a* and b*, each (3, 1, 1)."""

    mean: Tensor
    deviation: Tensor

    def towards(self, other: Palette, share: float) -> Palette:
        return Palette(self.mean.lerp(other.mean, share), self.deviation.lerp(other.deviation, share))


def palette_of(picture: Tensor) -> Palette:
    """The palette of `picture` (3, height, width) in 0 to 1."""
    lab = to_lab(picture)
    return Palette(lab.mean(dim=(1, 2), keepdim=True), lab.std(dim=(1, 2), keepdim=True))


def matched(picture: Tensor, palette: Palette) -> Tensor:
    """`picture` (3, height, width) in 0 to 1 with the mean and spread of `palette`."""
    lab = to_lab(picture)
    mean, deviation = lab.mean(dim=(1, 2), keepdim=True), lab.std(dim=(1, 2), keepdim=True)
    spread = (palette.deviation / deviation.clamp(min=1e-3)).clamp(1 / MAX_SPREAD, MAX_SPREAD)
    return from_lab((lab - mean) * spread + palette.mean)


def to_lab(picture: Tensor) -> Tensor:
    """sRGB (3, height, width) in 0 to 1 as L* (0 to 100), a* and b*."""
    import torch

    rgb = picture.float()
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055).clamp(min=0) ** 2.4)
    xyz = torch.einsum("ij,jhw->ihw", torch.tensor(_TO_XYZ, device=rgb.device), linear)
    root = torch.where(xyz > _DELTA**3, xyz.clamp(min=1e-9) ** (1 / 3), xyz / (3 * _DELTA**2) + 4 / 29)
    x, y, z = root
    return torch.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)))


def from_lab(lab: Tensor) -> Tensor:
    """The inverse of `to_lab`; what lies outside sRGB is clipped to 0 to 1."""
    import torch

    y = (lab[0] + 16) / 116
    root = torch.stack((y + lab[1] / 500, y, y - lab[2] / 200))
    xyz = torch.where(root > _DELTA, root**3, 3 * _DELTA**2 * (root - 4 / 29))
    linear = torch.einsum("ij,jhw->ihw", torch.linalg.inv(torch.tensor(_TO_XYZ, device=lab.device)), xyz).clamp(0, 1)
    return torch.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear.clamp(min=1e-9) ** (1 / 2.4) - 0.055)
