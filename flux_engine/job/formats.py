"""The file formats of results: their names in a job, their content types, and what sets GIF apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, get_args

ImageFormat = Literal["png", "jpg", "webp"]
VideoFormat = Literal["mp4", "webm", "gif", "webp"]

IMAGE_FORMATS: Final[tuple[ImageFormat, ...]] = get_args(ImageFormat)
VIDEO_FORMATS: Final[tuple[VideoFormat, ...]] = get_args(VideoFormat)
ONLY_OF_VIDEOS: Final = tuple(name for name in VIDEO_FORMATS if name not in IMAGE_FORMATS)
SPELLINGS: Final[Mapping[str, ImageFormat]] = {"jpeg": "jpg"}  # other names that clients use
CONTENT_TYPES: Final[Mapping[ImageFormat | VideoFormat, str]] = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "webp": "image/webp",
    "mp4": "video/mp4",
    "webm": "video/webm",
    "gif": "image/gif",
}
GIF_MAX_FPS: Final = 50.0  # GIF counts hundredths of a second, and players slow down frames shorter than two of them
