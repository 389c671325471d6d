"""Embedded colour profiles -> sRGB, which is what the models were trained on.

A phone's Display P3, a camera's Adobe RGB and a printer's CMYK look washed out or wrong where their numbers are taken
for sRGB. A profile is bytes from a stranger: at most 1 MB of it is parsed, and one that cannot be used leaves the
picture as it is.
"""

from __future__ import annotations

import io
from typing import Final

from PIL import Image, ImageCms

MAX_PROFILE_BYTES: Final = 1_000_000

_SPACES: Final = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
_UNUSABLE: Final = (ImageCms.PyCMSError, OSError, ValueError, TypeError, MemoryError)


def as_srgb(picture: Image.Image) -> Image.Image | None:
    """`picture` in RGB or RGBA by its profile; None without a usable profile other than sRGB itself."""
    data = picture.info.get("icc_profile")
    if not isinstance(data, bytes) or not 128 <= len(data) <= MAX_PROFILE_BYTES:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        space = _SPACES.get(profile.profile.xcolor_space)
        if space is None or "srgb" in (profile.profile.profile_description or "").lower():
            return None
        return _converted(picture, profile, space)
    except _UNUSABLE:
        return None


def _converted(picture: Image.Image, profile: ImageCms.ImageCmsProfile, space: str) -> Image.Image | None:
    is_grey = picture.mode in ("1", "L", "LA")
    if (space == "CMYK") != (picture.mode == "CMYK") or (space == "L" and not is_grey):
        return None  # the profile describes other numbers than these
    alpha = picture.convert("RGBA").getchannel("A") if has_transparency(picture) else None
    source = picture if picture.mode == space else picture.convert("RGB").convert(space)
    converted = ImageCms.profileToProfile(
        source,
        profile,
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    if converted is not None and alpha is not None:
        converted.putalpha(alpha)
    return converted


def has_transparency(picture: Image.Image) -> bool:
    """Whether some pixels may be transparent: by an alpha channel, or by one colour that stands for it."""
    return picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info
