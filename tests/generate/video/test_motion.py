"""Which way a picture goes, by how much, and that it comes back whole."""

from __future__ import annotations

import pytest
import torch

from flux_engine.generate.video.motion import Move, move_between, warped
from flux_engine.job.timeline import Motion

HEIGHT, WIDTH = 96, 160


def spot(x: float, y: float) -> torch.Tensor:
    """A soft white spot at (x, y), pixels from the centre, on black."""
    down, across = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    distance = (across - WIDTH / 2 - x) ** 2 + (down - HEIGHT / 2 - y) ** 2
    return torch.exp(-distance / 18).expand(3, -1, -1).clone()


def centre(picture: torch.Tensor) -> tuple[float, float]:
    light = picture[0].clamp(min=0.05) - 0.05
    down, across = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    x, y = (light * across).sum() / light.sum() - WIDTH / 2, (light * down).sum() / light.sum() - HEIGHT / 2
    return float(x), float(y)


@pytest.mark.parametrize(
    ("move", "start", "end"),
    [
        (Move(zoom=1.5), (20, 10), (30, 15)),
        (Move(zoom=0.8), (20, 10), (16, 8)),
        (Move(pan_x=0.1), (0, 0), (16, 0)),
        (Move(pan_x=-0.1), (0, 0), (-16, 0)),
        (Move(pan_y=0.125), (0, 0), (0, 12)),
        (Move(pan_x=1 / 640), (0, 0), (0.25, 0)),
        (Move(rotate=90), (30, 0), (0, -30)),
        (Move(rotate=-90), (30, 0), (0, 30)),
        (Move(rotate=30), (0, -20), (-10, -17.32)),
        (Move(zoom=2, pan_x=0.1), (10, 0), (36, 0)),
        (Move(), (5, 5), (5, 5)),
    ],
)
def test_a_spot_goes_where_the_move_takes_it(move: Move, start: tuple[float, float], end: tuple[float, float]) -> None:
    assert centre(warped(spot(*start), move)) == pytest.approx(end, abs=0.15)


def test_a_turned_disc_stays_round_in_a_wide_picture() -> None:
    turned = warped(spot(0, 0), Move(rotate=37))
    torch.testing.assert_close(turned, spot(0, 0), atol=0.03, rtol=0)


def test_what_comes_in_at_a_border_is_a_reflection() -> None:
    picture = torch.linspace(0, 1, WIDTH).expand(3, HEIGHT, WIDTH).clone()
    moved = warped(picture, Move(pan_x=0.25))
    shift = WIDTH // 4
    torch.testing.assert_close(moved[:, :, shift:], picture[:, :, :-shift], atol=0.01, rtol=0)
    torch.testing.assert_close(moved[:, :, :shift], picture[:, :, :shift].flip(2), atol=0.01, rtol=0)


def test_there_and_back_gives_the_picture_again() -> None:
    picture = spot(12, -8)
    back = warped(warped(picture, Move(zoom=1.1, rotate=5)), Move(zoom=1 / 1.1, rotate=-5))
    assert float((back - picture).abs().max()) < 0.06


def test_motion_is_given_a_played_frame_and_adds_up() -> None:
    motion = Motion(zoom=((0, 1.02),), rotate=((0, 0.0), (10, 2.0)), pan_x=((0, 0.01),))
    assert move_between(motion, 0, 4) == Move(zoom=1.02**4, pan_x=0.04, pan_y=0.0, rotate=0.8 * 4)
