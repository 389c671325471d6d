"""What changes along a video: keyframes, schedules of numbers, and motion, from the forms that a client may write.

A schedule is a number, or a list of `[frame, value]`. Every refusal is InvalidInput and names the field.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, TypeGuard

from flux_engine.errors import InvalidInput
from flux_engine.job.fields import MAX_SEED
from flux_engine.job.validation import shown, validated
from flux_engine.job.video_fields import (
    MAX_KEYFRAMES,
    MAX_SCHEDULE_POINTS,
    SCHEDULE_BOUNDS,
    KeyframeFields,
    MotionFields,
    VideoFields,
)

Schedule = tuple[tuple[int, float], ...]  # (frame, value), frames increasing; linear between, constant outside

DEFAULT_STRENGTH: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyframe:
    """From `frame` on, the video shows `prompt`, made from the noise of `seed`."""

    frame: int
    prompt: str
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Motion:
    """How the picture moves from one frame to the next (see MotionFields)."""

    zoom: Schedule = ((0, 1.0),)
    pan_x: Schedule = ((0, 0.0),)
    pan_y: Schedule = ((0, 0.0),)
    rotate: Schedule = ((0, 0.0),)


def value_at(schedule: Schedule, position: float) -> float:
    """Linear between the schedule's frames, constant before the first and after the last."""
    index = bisect_right(schedule, position, key=lambda point: point[0])
    if index in (0, len(schedule)):
        return schedule[max(0, index - 1)][1]
    (start, low), (end, high) = schedule[index - 1], schedule[index]
    return low + (high - low) * (position - start) / (end - start)


# ---------------------------------------------------------------------------------------------- keyframes


def written_keyframes(name: str, value: object) -> tuple[KeyframeFields, ...]:
    """Parse `keyframes` or an alias of it: a list of objects, or an object of prompts by frame. Raises InvalidInput."""
    items = _items_of_object(name, value) if isinstance(value, Mapping) else value
    if not isinstance(items, list) or not 1 <= len(items) <= MAX_KEYFRAMES:
        got = f"{len(items)} of them" if isinstance(items, list) else shown(value)
        raise InvalidInput(
            f"`{name}` must be a list of 1 to {MAX_KEYFRAMES} {{frame, prompt, seed?}}, or an object of prompts by "
            f"frame; got {got}",
            field=name,
        )
    keyframes = tuple(_keyframe(f"{name}[{i}]", item) for i, item in enumerate(items))
    if keyframes[0].frame != 0:
        raise InvalidInput(f"the first of `{name}` must be frame 0; got {keyframes[0].frame}", field=name)
    if any(after.frame <= before.frame for before, after in pairwise(keyframes)):
        raise InvalidInput(f"the frames of `{name}` must increase from one to the next", field=name)
    return keyframes


def _keyframe(place: str, item: object) -> KeyframeFields:
    if not isinstance(item, Mapping):
        names = ", ".join(KeyframeFields.model_fields)
        raise InvalidInput(f"`{place}` must be an object of {names}; got {shown(item)}", field=place)
    return validated(KeyframeFields, {k: v for k, v in item.items() if v is not None}, place=place)


def _items_of_object(name: str, value: Mapping[Any, Any]) -> list[dict[str, object]]:
    items = []
    for frame, prompt in value.items():
        if not (isinstance(frame, str) and frame.isascii() and frame.isdigit() and len(frame) <= 4):
            raise InvalidInput(
                f'the names in `{name}` must be frames such as "0" and "24"; got {shown(frame)}', field=name
            )
        items.append({"frame": int(frame), "prompt": prompt})
    return sorted(items, key=lambda item: int(str(item["frame"])))


def seeded_keyframes(
    written: tuple[KeyframeFields, ...], given: VideoFields, *, seed: int, num_frames: int
) -> tuple[Keyframe, ...]:
    """The keyframes with their seeds. Raises InvalidInput for one behind the last frame.

    `interpolate` needs two keyframes to move between. Where one is written, keyframes with its prompt and the seeds
    that follow are added: one at the last frame, or for a loop two on the way round.
    """
    if written and written[-1].frame >= num_frames:
        raise InvalidInput(
            f"`keyframes` reach frame {written[-1].frame} and the last frame is {num_frames - 1}; raise `num_frames`",
            field="keyframes",
        )
    keyframes = tuple(
        Keyframe(frame=k.frame, prompt=k.prompt, seed=seed if k.seed in (None, -1) else k.seed) for k in written
    ) or (Keyframe(frame=0, prompt=given.prompt, seed=seed),)
    if len(keyframes) > 1 or given.mode == "feedback":
        return keyframes
    stops = (num_frames // 3, num_frames * 2 // 3) if given.loop and num_frames > 3 else (num_frames - 1,)
    only = keyframes[0]
    added = (
        Keyframe(frame=frame, prompt=only.prompt, seed=(only.seed + i) % (MAX_SEED + 1))
        for i, frame in enumerate(stops, start=1)
    )
    return (only, *added)


# ---------------------------------------------------------------------------------------------- schedules


def motion_of(given: VideoFields, *, num_frames: int) -> Motion | None:
    """`motion` with a schedule for each of its parts. Raises InvalidInput."""
    value = given.motion
    if value is None:
        return None
    if not isinstance(value, Mapping):
        names = ", ".join(MotionFields.model_fields)
        raise InvalidInput(f"`motion` must be an object of {names}; got {shown(value)}", field="motion")
    written = validated(MotionFields, {k: v for k, v in value.items() if v is not None}, place="motion")
    parts = {name: getattr(written, name) for name in MotionFields.model_fields}
    return Motion(
        **{n: _schedule(f"motion.{n}", v, SCHEDULE_BOUNDS[n], num_frames) for n, v in parts.items() if v is not None}
    )


def strength_of(given: VideoFields, *, num_frames: int) -> Schedule | None:
    """`strength` as a schedule; None where the mode redraws nothing. Raises InvalidInput."""
    if given.mode != "feedback":
        return None
    value = DEFAULT_STRENGTH if given.strength is None else given.strength
    schedule = _schedule("strength", value, SCHEDULE_BOUNDS["strength"], num_frames)
    if min(value for _, value in schedule) <= 0:
        raise InvalidInput("`strength` must be above 0 and up to 1; got 0", field="strength")
    return schedule


def _schedule(name: str, value: object, bounds: tuple[float, float], num_frames: int) -> Schedule:
    low, high = bounds
    takes = f"`{name}` must be a number from {low:g} to {high:g}, or a list of [frame, number] with increasing frames"
    if not isinstance(value, list) and not is_number(value):
        raise InvalidInput(f"{takes}; got {shown(value)}", field=name)
    points = value if isinstance(value, list) else [[0, value]]
    if not 1 <= len(points) <= MAX_SCHEDULE_POINTS:
        raise InvalidInput(f"{takes}, 1 to {MAX_SCHEDULE_POINTS} of them; got {len(points)}", field=name)
    last = -1
    schedule = []
    for point in points:
        numbers = [part for part in point if is_number(part)] if isinstance(point, list) else []
        if len(numbers) != 2 or len(point) != 2:
            raise InvalidInput(f"{takes}; got {shown(point)}", field=name)
        frame, number = numbers
        if frame != int(frame) or not last < frame < num_frames:
            raise InvalidInput(f"{takes}, from 0 to {num_frames - 1}; got frame {shown(frame)}", field=name)
        if not low <= number <= high:
            raise InvalidInput(f"{takes}; got {shown(number)}", field=name)
        last = int(frame)
        schedule.append((last, float(number)))
    return tuple(schedule)


def is_number(value: object) -> TypeGuard[float]:
    """Whether `value` is a finite number that a job may hold; true and false are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= MAX_SEED and math.isfinite(value)
