"""Files of every format as the worker encodes them, and what independent tools read in them."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image, ImageSequence

from flux_engine.job.formats import ImageFormat, VideoFormat
from flux_engine.media.encode import encode_image
from flux_engine.media.marks.statement import Statement
from flux_engine.media.video import VideoEncoder, VideoSpec, thumbnail

SIDE: Final = 64
STATEMENT: Final = Statement(model='a & b "c" <d>', revision="0123abc", is_composite=False)
SAMPLES: Final = ("png", "jpg", "webp", "thumbnail.webp", "film.mp4", "film.webm", "film.gif", "film.webp")

needs_exiftool = pytest.mark.skipif(
    shutil.which("exiftool") is None, reason="exiftool is not installed: apt-get install libimage-exiftool-perl"
)
needs_ffprobe = pytest.mark.skipif(
    shutil.which("ffprobe") is None, reason="ffprobe is not installed: apt-get install ffmpeg"
)


def format_of(name: str) -> Any:
    return name.rpartition(".")[2]


def sample(name: str, side: int = SIDE) -> bytes:
    """One of SAMPLES, without marks."""
    if name == "thumbnail.webp":
        return thumbnail(frame(0, side))
    if name.startswith("film."):
        return film(format_of(name), side)
    return picture(format_of(name), side)


def frame(i: int, side: int = SIDE) -> Any:
    y, x = np.mgrid[0:side, 0:side]
    pixels = np.stack((x * 255 // side, y * 255 // side, (x + y) // 2), axis=2).astype(np.uint8)
    pixels[8 * i : 8 * i + 8] = (255, 40, 0)
    return pixels


def picture(output_format: ImageFormat, side: int = SIDE) -> bytes:
    made_from = {"prompt": "a red sun", "seed": 7, "model": {"id": "flux-tiny"}, "parameters": {"steps": 2}}
    return encode_image(Image.fromarray(frame(1, side)), output_format, quality=90, made_from=made_from)


def film(output_format: VideoFormat, side: int = SIDE) -> bytes:
    spec = VideoSpec(
        width=side, height=side, fps=8, num_frames=6, frames_made=6, output_format=output_format, title="a red sun"
    )
    with VideoEncoder(spec) as encoder:
        for i in range(6):
            encoder.write(frame(i, side))
        return encoder.finish()


def exiftool(data: bytes, name: str, folder: Path) -> dict[str, Any]:
    """What exiftool reads in a file, by group and tag."""
    path = folder / f"read.{format_of(name)}"
    path.write_bytes(data)
    said = subprocess.run(["exiftool", "-json", "-G1", "-a", path], capture_output=True, check=True)
    read: dict[str, Any] = json.loads(said.stdout)[0]
    return read


def ffprobe(data: bytes, name: str, folder: Path) -> dict[str, str]:
    """The tags of a film."""
    path = folder / f"read.{format_of(name)}"
    path.write_bytes(data)
    asked = ["ffprobe", "-v", "error", "-show_format", "-of", "json", *_xmp_too(name), str(path)]
    said = subprocess.run(asked, capture_output=True, check=True)
    return {key.upper(): value for key, value in json.loads(said.stdout)["format"]["tags"].items()}


def _xmp_too(name: str) -> tuple[str, ...]:
    return ("-export_xmp", "1") if name.endswith("mp4") else ()


def pixels(data: bytes, name: str) -> bytes:
    """Every frame, decoded."""
    if name.endswith(("mp4", "webm")):
        command = [
            imageio_ffmpeg.get_ffmpeg_exe(),
            "-v",
            "error",
            "-i",
            "pipe:0",
            "-f",
            "rawvideo",
            "-pix_fmt",
            "rgb24",
            "-",
        ]
        return subprocess.run(command, input=data, capture_output=True, check=True).stdout
    opened = Image.open(io.BytesIO(data))
    return b"".join(each.convert("RGB").tobytes() for each in ImageSequence.Iterator(opened))
