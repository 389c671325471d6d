"""Embedded colour profiles -> sRGB, which is what the models were trained on.

A phone's Display P3, a camera's Adobe RGB and a printer's CMYK look washed out or wrong where their numbers are taken
for sRGB. A profile is bytes from a stranger: at most 1 MB of it is parsed, and one that cannot be used leaves the
picture as it is, which the client is told.
"""

from __future__ import annotations

import io
from typing import Final

from PIL import Image, ImageCms

MAX_PROFILE_BYTES: Final = 1_000_000

_SPACES: Final = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
_UNUSABLE: Final = (ImageCms.PyCMSError, OSError, ValueError, TypeError, MemoryError)


class ProfileUnusable(Exception):
    """The picture has a profile by which its colours cannot be read."""


def as_srgb(picture: Image.Image) -> Image.Image | None:
    """`picture` in RGB or RGBA by its profile; None without one, or where that is sRGB itself.

    Raises ProfileUnusable.
    """
    data = picture.info.get("icc_profile")
    if not data:
        return None
    if not isinstance(data, bytes) or not 128 <= len(data) <= MAX_PROFILE_BYTES:
        raise ProfileUnusable
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        if "srgb" in (profile.profile.profile_description or "").lower():
            return None
        return _converted(picture, profile, _SPACES.get(profile.profile.xcolor_space))
    except _UNUSABLE as error:
        raise ProfileUnusable from error


def _converted(picture: Image.Image, profile: ImageCms.ImageCmsProfile, space: str | None) -> Image.Image | None:
    is_grey = picture.mode in ("1", "L", "LA")
    if space is None or (space == "CMYK") != (picture.mode == "CMYK") or (space == "L" and not is_grey):
        raise ProfileUnusable  # it describes other numbers than these
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
