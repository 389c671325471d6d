"""OpenAI's masks are turned about: what is transparent there is white here."""

from __future__ import annotations

import base64
import io

import pytest
from PIL import Image

from flux_engine.errors import InvalidInput
from flux_engine.openai.mask import NO_ALPHA, white_where_transparent


def encoded(picture: Image.Image, kind: str = "PNG") -> str:
    data = io.BytesIO()
    picture.save(data, kind, lossless=True)
    return base64.b64encode(data.getvalue()).decode()


def half_transparent(size: tuple[int, int] = (8, 4)) -> Image.Image:
    picture = Image.new("RGBA", size, (10, 200, 30, 255))
    picture.paste((10, 200, 30, 0), (0, 0, size[0] // 2, size[1]))
    return picture


def opened(source: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
def test_the_transparent_half_is_repainted(kind: str, prefix: str) -> None:
    warnings: list[str] = []
    mask = opened(white_where_transparent(prefix + encoded(half_transparent(), kind), warnings))
    assert (mask.mode, mask.size) == ("L", (8, 4))
    assert [mask.getpixel((0, 0)), mask.getpixel((7, 3))] == [255, 0]
    assert warnings == []


def test_transparency_of_a_palette_counts() -> None:
    palette = half_transparent().convert("P")
    palette.info["transparency"] = palette.getpixel((0, 0))
    mask = opened(white_where_transparent(encoded(palette), []))
    assert mask.getpixel((0, 0)) == 255


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA"])
def test_a_mask_without_transparency_is_a_jobs_own(mode: str) -> None:
    source, warnings = encoded(Image.new(mode, (8, 8), "white")), list[str]()
    assert white_where_transparent(source, warnings) == source
    assert warnings == [NO_ALPHA]


@pytest.mark.parametrize(
    "source",
    [
        encoded(half_transparent())[:-40],
        encoded(Image.new("RGB", (8, 8)), "JPEG"),
        encoded(Image.new("LA", (4001, 4000))),
        "https://example.com/mask.png",
        "%%%",
        "",
    ],
)
def test_what_is_no_mask_is_refused(source: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        white_where_transparent(source, [])
    assert refused.value.field == "mask"
