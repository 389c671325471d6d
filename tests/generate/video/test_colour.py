"""CIE L*a*b* against its published values, and colours given from one picture to another."""

from __future__ import annotations

import pytest
import torch

from flux_engine.generate.video.colour import from_lab, matched, palette_of, to_lab


def picture(seed: int, *, tint: tuple[float, float, float] = (1, 1, 1)) -> torch.Tensor:
    noise = torch.rand((3, 32, 48), generator=torch.Generator().manual_seed(seed))
    return (0.2 + 0.5 * noise) * torch.tensor(tint)[:, None, None]


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        ((1, 1, 1), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((1, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 1, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 1), (32.30, 79.19, -107.86)),
        ((0.5, 0.5, 0.5), (53.39, 0, 0)),
    ],
)
def test_lab_of_known_colours(rgb: tuple[float, float, float], lab: tuple[float, float, float]) -> None:
    found = to_lab(torch.tensor(rgb, dtype=torch.float32)[:, None, None])[:, 0, 0]
    assert found.tolist() == pytest.approx(lab, abs=0.05)


def test_lab_and_back() -> None:
    torch.testing.assert_close(from_lab(to_lab(picture(1))), picture(1), atol=1e-4, rtol=0)


def test_a_tinted_picture_gets_the_colours_of_its_keyframe() -> None:
    keyframe, tinted = palette_of(picture(1)), picture(2, tint=(1.1, 0.7, 0.5))
    after = palette_of(matched(tinted, keyframe))
    assert float((palette_of(tinted).mean - keyframe.mean).abs().max()) > 10
    torch.testing.assert_close(after.mean, keyframe.mean, atol=2.0, rtol=0)
    torch.testing.assert_close(after.deviation, keyframe.deviation, atol=2.0, rtol=0)


def test_a_picture_matched_to_itself_and_a_flat_one_stay() -> None:
    torch.testing.assert_close(matched(picture(1), palette_of(picture(1))), picture(1), atol=1e-3, rtol=0)
    flat = torch.full((3, 8, 8), 0.5)
    assert float(matched(flat, palette_of(picture(1))).std()) < 0.1


def test_palettes_ease_from_one_to_the_next() -> None:
    one, other = palette_of(picture(1)), palette_of(picture(2, tint=(1, 0.5, 0.5)))
    torch.testing.assert_close(one.towards(other, 0.0).mean, one.mean)
    torch.testing.assert_close(one.towards(other, 1.0).deviation, other.deviation)
