"""Pictures with an embedded profile: their colours as a viewer shows them."""

from __future__ import annotations

import io
import struct
from typing import Any

import pytest
from PIL import Image, ImageCms

from flux_engine.media.colour import MAX_PROFILE_BYTES
from flux_engine.media.decode import decode_picture

# Primaries as XYZ under D50, as profiles hold them (ICC.1:2022 and the specifications of the spaces).
DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
D50 = (0.9642, 1.0, 0.8249)


def s15(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def profile(primaries: tuple[tuple[float, float, float], ...], *, gamma: float, name: str, more: int = 0) -> bytes:
    """A matrix profile of version 2, of these primaries and one gamma."""
    xyz = [b"XYZ \0\0\0\0" + b"".join(map(s15, value)) for value in (*primaries, D50)]
    curve = b"curv\0\0\0\0" + struct.pack(">IHxx", 1, round(gamma * 256))
    text = name.encode() + b"\0"
    description = b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(79)
    parts = dict(zip((b"rXYZ", b"gXYZ", b"bXYZ", b"wtpt"), xyz, strict=True))
    parts |= {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve, b"desc": description, b"cprt": b"text\0\0\0\0-\0"}
    if more:
        parts[b"more"] = b"text\0\0\0\0" + bytes(more)
    table, body = struct.pack(">I", len(parts)), b""
    for tag, data in parts.items():
        table += tag + struct.pack(">II", 128 + 4 + 12 * len(parts) + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s", 0, b"lcms", 0x02100000, b"mntr", b"RGB ", b"XYZ ") + bytes(12) + b"acsp"
    head += bytes(28) + b"".join(map(s15, D50)) + bytes(48)
    whole = head[:128] + table + body
    return struct.pack(">I", len(whole)) + whole[4:]


P3 = profile(DISPLAY_P3, gamma=2.2, name="Display P3")
ADOBE = profile(ADOBE_RGB, gamma=2.2, name="Adobe RGB (1998)")
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


EXACT: dict[str, dict[str, Any]] = {
    "PNG": {},
    "JPEG": {"quality": 100, "subsampling": 0},
    "WEBP": {"lossless": True},
}


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def seen(data: bytes) -> tuple[int, ...]:
    pixel = decode_picture(data, "image").picture.getpixel((4, 4))
    assert isinstance(pixel, tuple)
    return tuple(int(part) for part in pixel)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize(
    ("icc", "stored", "shown"),
    [
        (P3, (234, 51, 35), (255, 0, 0)),  # sRGB's red in Display P3
        (P3, (117, 251, 76), (0, 255, 0)),
        (ADOBE, (219, 0, 0), (255, 0, 0)),  # sRGB's red in Adobe RGB
        (ADOBE, (128, 128, 128), (128, 128, 128)),
    ],
)
def test_colours_are_those_that_a_viewer_shows(
    kind: str, icc: bytes, stored: tuple[int, int, int], shown: tuple[int, int, int]
) -> None:
    data = encoded(Image.new("RGB", (16, 16), stored), kind, icc_profile=icc, **EXACT[kind])
    assert all(abs(a - b) <= 12 for a, b in zip(seen(data), shown, strict=True)), seen(data)
    assert (decode_picture(data, "image").way, decode_picture(data, "image").warnings) == ("+srgb", ())


@pytest.mark.parametrize("mode", ["RGBA", "P", "LA", "L", "1"])
def test_every_mode_survives_its_profile(mode: str) -> None:
    picture = Image.new("RGB", (16, 16), (200, 30, 30)).convert(mode)
    if mode == "RGBA":
        picture.putpixel((4, 4), (0, 0, 0, 0))
    decoded = decode_picture(encoded(picture, "PNG", icc_profile=P3), "image").picture
    assert decoded.mode == "RGB"
    if mode == "RGBA":
        assert decoded.getpixel((4, 4)) == (255, 255, 255)


def test_pictures_in_srgb_stay_as_they_are() -> None:
    picture = Image.effect_noise((32, 32), 90).convert("RGB")
    plain, tagged = (decode_picture(encoded(picture, "PNG", **o), "image") for o in ({}, {"icc_profile": SRGB}))
    assert plain.picture.tobytes() == tagged.picture.tobytes() == picture.tobytes()
    assert plain.way == tagged.way == ""
    assert plain.warnings == tagged.warnings == ()


@pytest.mark.parametrize(
    "icc",
    [
        *(b"profile" * 9, b"\0" * 500, P3[:200], P3[:128] + b"\xff" * 400, P3.replace(b"RGB ", b"CMYK"), b""),
        profile(DISPLAY_P3, gamma=2.2, name="P3", more=MAX_PROFILE_BYTES),
        P3.replace(b"RGB ", b"GRAY"),
    ],
    ids=["text", "zeros", "cut off", "no table", "cmyk", "empty", "over 1 MB", "grey"],
)
def test_a_profile_that_cannot_be_used_costs_no_picture(icc: bytes) -> None:
    data = encoded(Image.new("RGB", (16, 16), (234, 51, 35)), "PNG", icc_profile=icc)
    assert seen(data) == (234, 51, 35)
    said = [each for each in decode_picture(data, "image").warnings if "`image` has a colour profile" in each]
    assert len(said) == (1 if icc else 0)
