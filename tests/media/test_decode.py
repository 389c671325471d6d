"""Pictures that a client sends: what is taken is seen as it is meant, the rest is refused by name."""

from __future__ import annotations

import base64
import io
import struct
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from flux_engine.errors import FluxError, InputFetchFailed
from flux_engine.media.decode import MAX_PIXELS, fitted
from flux_engine.media.decode import decode_picture as decode
from flux_engine.media.mask import decode_mask


def decode_picture(data: bytes, field: str) -> Image.Image:
    return decode(data, field).picture


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
        (encoded(RED_BLUE, "GIF"), (255, 0, 0)),
        (encoded(RED_BLUE, "GIF", save_all=True, append_images=[halves("green", "green")]), (255, 0, 0)),
        (encoded(RED_BLUE.quantize(4)), (255, 0, 0)),
        (encoded(RED_BLUE.convert("CMYK"), "JPEG", quality=95), (255, 0, 0)),
        (encoded(halves((255, 0, 0, 255), (0, 0, 0, 0), mode="RGBA")), (255, 0, 0)),
        (encoded(halves((255, 0, 0, 0), (0, 0, 255, 255), mode="RGBA")), (255, 255, 255)),
        (encoded(halves(200, 10, mode="L")), (200, 200, 200)),
        (encoded(halves(0, 255, mode="1")), (0, 0, 0)),
        (encoded(Image.fromarray(np.full((20, 40), 200 * 256, np.uint16))), (200, 200, 200)),
    ],
    ids=[
        "png",
        "jpeg",
        "webp",
        "turned",
        "animated",
        "gif",
        "gif film",
        "palette",
        "cmyk",
        "rgba",
        "clear",
        "grey",
        "bits",
        "16-bit",
    ],
)
def test_a_picture_is_seen_as_it_is_meant(data: bytes, left: tuple[int, int, int]) -> None:
    picture = decode_picture(data, "image")
    assert (picture.mode, picture.size) == ("RGB", (40, 20))
    seen = picture.getpixel((5, 10))
    assert isinstance(seen, tuple)
    assert all(abs(a - b) <= 6 for a, b in zip(seen, left, strict=True))


def noted(text: str) -> bytes:
    notes = PngImagePlugin.PngInfo()
    notes.add_itxt("workflow", text, zip=True)
    notes.add_text("parameters", text, zip=True)
    return encoded(RED_BLUE, pnginfo=notes)


def test_megabytes_of_notes_cost_no_picture() -> None:
    assert decode_picture(noted("x" * 3_000_000), "image").getpixel((5, 10)) == (255, 0, 0)


def test_a_profile_of_megabytes_costs_no_picture() -> None:
    decoded = decode(encoded(RED_BLUE, icc_profile=bytes(2_000_000)), "image")
    assert decoded.picture.getpixel((5, 10)) == (255, 0, 0)
    assert [said for said in decoded.warnings if "colour profile" in said]


def film(kind: str) -> bytes:
    return encoded(RED_BLUE, kind, save_all=True, append_images=[halves("green", "green")])


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_of_an_animation_it_is_said_that_the_first_frame_alone_is_used(kind: str) -> None:
    assert decode(film(kind), "images[1]").warnings == ("`images[1]` is animated: only its first frame is used",)
    assert decode_mask(film(kind), "mask").warnings[0] == "`mask` is animated: only its first frame is used"
    assert decode(encoded(RED_BLUE, kind), "image").warnings == ()


def test_the_second_picture_of_a_phones_jpeg_is_no_animation() -> None:
    data = encoded(RED_BLUE, "MPO", save_all=True, append_images=[halves("green", "green")])
    assert decode(data, "image").warnings == ()


def png_claiming(width: int, height: int) -> bytes:
    """A whole PNG header of that size with next to no pixels behind it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def gif_claiming(width: int, height: int) -> bytes:
    """A GIF whose only frame is that large, on a screen of 40x20."""
    data = bytearray(encoded(RED_BLUE, "GIF"))
    frame = data.index(b",\0\0\0\0")
    data[frame + 5 : frame + 9] = struct.pack("<HH", width, height)
    return bytes(data)


def jpeg_of_scans(scans: int, *, side: int = 64) -> bytes:
    """A progressive JPEG whose every scan after the first has a few bytes and goes over the whole picture."""

    def segment(kind: int, body: bytes) -> bytes:
        return bytes([0xFF, kind]) + struct.pack(">H", len(body) + 2) + body

    blocks = (side // 8) ** 2
    one_code = bytes([1] + [0] * 15)
    head = segment(0xDB, b"\0" + b"\1" * 64) + segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + b"\1\x11\0")
    tables = segment(0xC4, b"\x00" + one_code + b"\0") + segment(0xC4, b"\x10" + one_code + b"\xe0")
    first = segment(0xDA, b"\1\1\0\0\0\0") + b"\0" * -(-blocks // 8)
    again = segment(0xDA, b"\1\1\0\1\x3f\0") + b"\x7f\xff\0"
    return b"\xff\xd8" + head + tables + first + again * (scans - 1) + b"\xff\xd9"


def exif_of(entries: bytes) -> bytes:
    """A JPEG of the halves whose EXIF is `entries`, each of 12 bytes."""
    tiff = b"MM\0*\0\0\0\x08" + struct.pack(">H", len(entries) // 12) + entries + bytes(4)
    return encoded(RED_BLUE, "JPEG", quality=95, exif=b"Exif\0\0" + tiff)


NOISE = Image.effect_noise((64, 64), 80).convert("RGB")
BAD = {
    "nothing": (b"", "invalid_input"),
    "a letter": (b"a", "invalid_input"),
    "text": (b"a red sun on the left", "invalid_input"),
    "html": (b"<!doctype html><html><body>not found</body></html>", "invalid_input"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>', "invalid_input"),
    "pdf": (b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n", "invalid_input"),
    "zip": (b"PK\x03\x04" + bytes(64), "invalid_input"),
    "gif cut off": (encoded(NOISE, "GIF")[:1500], "invalid_input"),
    "gif of 3 gigapixels": (gif_claiming(60_000, 50_000), "input_fetch_failed"),
    "gif of 25 megapixels": (gif_claiming(5000, 5000), "input_fetch_failed"),
    "avif": (encoded(RED_BLUE, "AVIF"), "invalid_input"),
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
    "a JPEG of 201 scans": (jpeg_of_scans(201), "invalid_input"),
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


def test_a_jpeg_of_many_scans_is_taken_up_to_the_bound_and_what_only_looks_like_one_is_not_counted() -> None:
    assert decode_picture(jpeg_of_scans(200), "image").size == (64, 64)
    usual = encoded(NOISE, "JPEG", progressive=True, comment=b"\xff\xda" * 500) + b"\xff\xda" * 500
    assert decode_picture(usual, "image").size == (64, 64)


@pytest.mark.parametrize("many", [20_000, 300_000])
def test_a_jpeg_of_tiny_scans_is_refused_before_it_is_decoded(many: int) -> None:
    data = jpeg_of_scans(many, side=2048)
    began = time.process_time()
    with pytest.raises(FluxError, match="scans"):
        decode_picture(data, "image")
    assert time.process_time() - began < 10  # decoding it takes minutes


@pytest.mark.parametrize(
    ("kind", "count", "value"),
    [
        (3, 1, b"\0\x06\0\0"),
        (2, 2, b"6\0\0\0"),
        (4, 1, b"\xff\xff\xff\xff"),
        (5, 1, bytes(4)),
        (99, 1, bytes(4)),
        (3, 9, b"\xff" * 4),
    ],
    ids=["turned", "text", "large", "rational", "unknown", "outside"],
)
def test_odd_metadata_costs_no_picture(kind: int, count: int, value: bytes) -> None:
    picture = decode_picture(exif_of(struct.pack(">HHI", 0x0112, kind, count) + value), "image")
    assert picture.size == ((20, 40) if kind == 3 and count == 1 else (40, 20))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_pillow_turns_it(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(halves("red", "blue", size=(30, 20)), "PNG", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert decode_picture(data, "image").tobytes() == expected.tobytes()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_nothing_of_the_files_own_metadata_goes_on(kind: str) -> None:
    exif = Image.Exif()
    exif[0x010E] = "at home"
    options: dict[str, Any] = {"comment": b"a secret street"} if kind == "JPEG" else {}
    picture = decode_picture(encoded(RED_BLUE, kind, exif=exif, icc_profile=b"profile" * 9, **options), "image")
    assert picture.info == {}
    again = encoded(Image.composite(picture, RED_BLUE, RED_BLUE.convert("L")), "JPEG")
    assert b"secret" not in again
    assert b"profile" not in again


def test_the_filters_of_warnings_stay_as_they_are_while_threads_decode() -> None:
    data = encoded(NOISE)
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: decode_picture(data, "image"), range(200)))
    assert list(warnings.filters) == before


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


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\0\0\0\x18ftypheic" + bytes(40), "HEIC"),
        (b"\0\0\0\x18ftypmif1" + bytes(40), "HEIC"),
        (encoded(RED_BLUE, "AVIF"), "AVIF"),
        (encoded(RED_BLUE, "TIFF"), "TIFF"),
        (encoded(RED_BLUE, "BMP"), "BMP"),
        (encoded(RED_BLUE, "JPEG2000"), "JPEG 2000"),
        (b"\xff\x0a" + bytes(40), "JPEG XL"),
        (b"8BPS" + bytes(40), "Photoshop"),
        (base64.b64encode(encoded(RED_BLUE)), "encoded once more"),
        (base64.b64encode(encoded(RED_BLUE, "JPEG")), "encoded once more"),
        (b"data:image/png;base64," + base64.b64encode(encoded(RED_BLUE)), "encoded once more"),
        (bytes(40), "known format"),
    ],
)
def test_a_format_that_is_not_read_is_named_with_what_to_send(data: bytes, said: str) -> None:
    with pytest.raises(FluxError, match="send PNG, JPEG, WebP or GIF") as refused:
        decode_picture(data, "image")
    assert said in refused.value.message
