"""Values and places along a video."""

from __future__ import annotations

import pytest

from flux_engine.generate.video.schedule import Place, eased, place_at
from flux_engine.job.timeline import Keyframe, Schedule, value_at

RISING: Schedule = ((4, 1.0), (8, 3.0), (10, 2.0))
KEYFRAMES = tuple(Keyframe(frame=frame, prompt="x", seed=0) for frame in (0, 10, 40))


@pytest.mark.parametrize(
    ("position", "value"),
    [(0, 1.0), (4, 1.0), (5, 1.5), (6.5, 2.25), (8, 3.0), (9, 2.5), (10, 2.0), (10.5, 2.0), (400, 2.0)],
)
def test_a_schedule_is_linear_between_its_frames_and_constant_outside(position: float, value: float) -> None:
    assert value_at(RISING, position) == pytest.approx(value)
    assert value_at(((0, 7.0),), position) == 7.0


@pytest.mark.parametrize(
    ("position", "is_loop", "place"),
    [
        (0, False, Place(0, 1, 0.0)),
        (2.5, False, Place(0, 1, 0.25)),
        (10, False, Place(1, 2, 0.0)),
        (25, False, Place(1, 2, 0.5)),
        (40, False, Place(2, 2, 0.0)),
        (47, False, Place(2, 2, 0.0)),
        (40, True, Place(2, 0, 0.0)),
        (46, True, Place(2, 0, 0.75)),
    ],
)
def test_a_frame_knows_its_keyframes(position: float, is_loop: bool, place: Place) -> None:
    assert place_at(KEYFRAMES, position, num_frames=48, is_loop=is_loop) == place


def test_easing_begins_and_ends_level() -> None:
    assert [eased(share) for share in (0, 0.5, 1)] == [0, 0.5, 1]
    assert eased(0.01) < 0.001
    assert 1 - eased(0.99) < 0.001
    assert eased(0.25) == pytest.approx(1 - eased(0.75))
