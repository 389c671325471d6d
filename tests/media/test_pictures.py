"""Pictures that a client sends: what is taken is seen as it is meant, the rest is refused by name."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flux_engine.errors import FluxError, InputFetchFailed
from flux_engine.media.pictures import MAX_PIXELS, as_mask, decode_picture, fitted


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def halves(left: Any, right: Any, *, mode: str = "RGB", size: tuple[int, int] = (40, 20)) -> Image.Image:
    picture = Image.new(mode, size, right)
    picture.paste(left, (0, 0, size[0] // 2, size[1]))
    return picture


RED_BLUE = halves("red", "blue")


def turned() -> bytes:
    """The halves as a camera held sideways stores them: upright only by their EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(RED_BLUE.rotate(90, expand=True), "JPEG", quality=95, exif=exif)


def animated() -> bytes:
    return encoded(RED_BLUE, "WEBP", save_all=True, append_images=[halves("green", "green")], lossless=True)


@pytest.mark.parametrize(
    ("data", "left"),
    [
        (encoded(RED_BLUE), (255, 0, 0)),
        (encoded(RED_BLUE, "JPEG", quality=95), (255, 0, 0)),
        (encoded(RED_BLUE, "WEBP", lossless=True), (255, 0, 0)),
        (turned(), (255, 0, 0)),
        (animated(), (255, 0, 0)),
        (encoded(RED_BLUE.quantize(4)), (255, 0, 0)),
        (encoded(RED_BLUE.convert("CMYK"), "JPEG", quality=95), (255, 0, 0)),
        (encoded(halves((255, 0, 0, 255), (0, 0, 0, 0), mode="RGBA")), (255, 0, 0)),
        (encoded(halves((255, 0, 0, 0), (0, 0, 255, 255), mode="RGBA")), (255, 255, 255)),
        (encoded(halves(200, 10, mode="L")), (200, 200, 200)),
        (encoded(halves(0, 255, mode="1")), (0, 0, 0)),
        (encoded(Image.fromarray(np.full((20, 40), 200 * 256, np.uint16))), (200, 200, 200)),
    ],
    ids=["png", "jpeg", "webp", "turned", "animated", "palette", "cmyk", "rgba", "clear", "grey", "bits", "16-bit"],
)
def test_a_picture_is_seen_as_it_is_meant(data: bytes, left: tuple[int, int, int]) -> None:
    picture = decode_picture(data, "image")
    assert (picture.mode, picture.size) == ("RGB", (40, 20))
    seen = picture.getpixel((5, 10))
    assert isinstance(seen, tuple)
    assert all(abs(a - b) <= 6 for a, b in zip(seen, left, strict=True))


def png_claiming(width: int, height: int) -> bytes:
    """A whole PNG header of that size with next to no pixels behind it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


NOISE = Image.effect_noise((64, 64), 80).convert("RGB")
BAD = {
    "nothing": (b"", "invalid_input"),
    "a letter": (b"a", "invalid_input"),
    "text": (b"a red sun on the left", "invalid_input"),
    "html": (b"<!doctype html><html><body>not found</body></html>", "invalid_input"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>', "invalid_input"),
    "pdf": (b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n", "invalid_input"),
    "zip": (b"PK\x03\x04" + bytes(64), "invalid_input"),
    "gif": (encoded(RED_BLUE, "GIF"), "invalid_input"),
    "bmp": (encoded(RED_BLUE, "BMP"), "invalid_input"),
    "tiff": (encoded(RED_BLUE, "TIFF"), "invalid_input"),
    "ico": (encoded(RED_BLUE, "ICO"), "invalid_input"),
    "ppm": (encoded(RED_BLUE, "PPM"), "invalid_input"),
    "eps": (encoded(RED_BLUE, "EPS"), "invalid_input"),
    "png magic only": (b"\x89PNG\r\n\x1a\n", "invalid_input"),
    "jpeg magic only": (b"\xff\xd8\xff", "invalid_input"),
    "webp magic only": (b"RIFF\x10\0\0\0WEBPVP8 ", "invalid_input"),
    "png cut off": (encoded(NOISE)[:3000], "invalid_input"),
    "jpeg cut off": (encoded(NOISE, "JPEG")[:900], "invalid_input"),
    "webp cut off": (encoded(NOISE, "WEBP")[:500], "invalid_input"),
    "png damaged": (encoded(NOISE)[:200] + bytes(400) + encoded(NOISE)[600:], "invalid_input"),
    "png without pixels": (png_claiming(64, 64), "invalid_input"),
    "png without a side": (png_claiming(0, 64), "invalid_input"),
    "a bomb of 3 gigapixels": (png_claiming(60_000, 50_000), "input_fetch_failed"),
    "17 megapixels": (png_claiming(4250, 4000), "input_fetch_failed"),
    "a long strip": (png_claiming(1, MAX_PIXELS + 1), "input_fetch_failed"),
    "raw noise": (bytes(range(256)) * 40, "invalid_input"),
}


@pytest.mark.parametrize(("data", "code"), BAD.values(), ids=BAD.keys())
def test_what_is_no_picture_is_refused(data: bytes, code: str) -> None:
    with pytest.raises(FluxError) as refused:
        decode_picture(data, "mask")
    assert (refused.value.code, refused.value.field) == (code, "mask")
    assert "`mask`" in refused.value.message


@pytest.mark.parametrize(
    ("size", "said"),
    [((4001, 4000), "16,004,000 pixels; this worker takes up to 16,000,000"), ((20_000, 20_000), "16 megapixels")],
)
def test_a_picture_that_is_too_large_says_so(size: tuple[int, int], said: str) -> None:
    with pytest.raises(InputFetchFailed, match=said):
        decode_picture(png_claiming(*size), "image")


def test_fitting_crops_about_the_centre_and_keeps_the_shape() -> None:
    circle = Image.radial_gradient("L").convert("RGB").resize((400, 200))
    assert fitted(circle, width=64, height=64).size == (64, 64)
    assert fitted(RED_BLUE, width=20, height=20).getpixel((9, 10)) == (255, 0, 0)
    assert fitted(RED_BLUE, width=20, height=20).getpixel((10, 10)) == (0, 0, 255)


def test_a_mask_takes_the_size_of_its_image() -> None:
    mask = as_mask(halves("white", "black"), size=(400, 100))
    assert (mask.mode, mask.size) == ("L", (400, 100))
    assert (mask.getpixel((10, 50)), mask.getpixel((390, 50))) == (255, 0)
