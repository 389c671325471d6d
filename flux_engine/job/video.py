"""What a client may ask of a video: keyframes, schedules and motion, and the VideoJob that comes of them.

Every refusal is InvalidInput and names the field. What an `image` names is not fetched here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final, Literal, TypeGuard

from flux_engine.errors import InvalidInput
from flux_engine.job.base import Job, JsonObject, Parsing, shared_values
from flux_engine.job.fields import MAX_SEED
from flux_engine.job.limits import PIXELS_PER_MEGAPIXEL
from flux_engine.job.validation import shown, validated
from flux_engine.job.video_fields import (
    MAX_FRAMES,
    MAX_SCHEDULE_POINTS,
    SCHEDULE_BOUNDS,
    KeyframeFields,
    Mode,
    MotionFields,
    VideoFields,
)

VideoOutputFormat = Literal["mp4", "webm", "gif", "webp"]
Schedule = tuple[tuple[int, float], ...]  # (frame, value), frames increasing; linear between, constant outside

DEFAULT_FRAMES: Final = 48
DEFAULT_STRENGTH: Final = 0.5
GIF_MAX_FPS: Final = 50.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyframe:
    """From `frame` on the video shows `prompt`, made of the noise of `seed`."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoJob(Job):
    """A valid video job; every field holds its effective value.

    In `interpolate` there are two keyframes or more. `image` is the first frame.
    """

    num_frames: int
    fps: float
    generated_fps: float
    frames_made: int  # by the model; the rest are interpolated by motion
    keyframes: tuple[Keyframe, ...]
    mode: Mode
    motion: Motion | None
    strength: Schedule | None
    loop: bool
    output_format: VideoOutputFormat

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.num_frames / self.fps

    def positions(self) -> list[float]:
        """Where the frames that are made stand among the frames that are played: evenly, from the first to the
        last, or in a loop to where the first comes round again."""
        return spread(self.frames_made, self.num_frames, is_loop=self.loop)

    def parameters(self) -> JsonObject:
        """The effective parameters as they are echoed to the client."""
        echoed = {name: value for name, value in self.echoed().items() if name != "frames_made"}
        keyframes = [{"frame": k.frame, "prompt": k.prompt, "seed": k.seed} for k in self.keyframes]
        motion = self.motion and {f.name: getattr(self.motion, f.name) for f in fields(self.motion)}
        return {"type": "video"} | echoed | {"duration": self.duration, "keyframes": keyframes, "motion": motion}


def spread(count: int, num_frames: int, *, is_loop: bool) -> list[float]:
    """`count` places spread evenly over `num_frames` frames."""
    spacing = num_frames / count if is_loop else (num_frames - 1) / (count - 1)
    return [i * spacing for i in range(count)]


def video_job(parsing: Parsing) -> VideoJob:
    """The job that was written. Raises InvalidInput."""
    given = _as_one_way_to_say_it(parsing.written.values)
    for name in given:
        if name not in VideoFields.model_fields:
            raise InvalidInput(f"`{name}` belongs to an image job; leave it out of a video", field=name)
    written = parsing.fields(VideoFields, given)
    keyframes: tuple[KeyframeFields, ...] = written.keyframes or ()
    if keyframes and written.prompt != keyframes[0].prompt:
        parsing.warnings.append("`prompt` has no effect where `keyframes` are given")
        written = written.model_copy(update={"prompt": keyframes[0].prompt})
    fps = _fps(written, parsing.warnings)
    num_frames = _num_frames(written, fps)
    _check_mode(written)
    shared = shared_values(written, parsing)
    generated_fps, frames_made = _frames_made(written, fps, num_frames)
    job = VideoJob(
        num_frames=num_frames,
        fps=fps,
        generated_fps=generated_fps,
        frames_made=frames_made,
        keyframes=_seeded_keyframes(keyframes, written, shared["seed"], num_frames),
        mode=written.mode,
        motion=_motion(written.motion, num_frames),
        strength=_strength(written, num_frames),
        loop=written.loop,
        output_format=written.output_format or "mp4",
        is_format_open=written.output_format is None,
        **shared,
        warnings=tuple(parsing.warnings),
    )
    _check_work(job, parsing.context.max_video_work)
    return job


def _as_one_way_to_say_it(values: Mapping[str, object]) -> dict[str, object]:
    """`values` with what follows from others: the prompt of the first keyframe, the mode that an image means, and
    without the `duration` that `num_frames` and `fps` say too, as the echo of an earlier job does."""
    given = dict(values)
    keyframes = given.get("keyframes")
    if isinstance(keyframes, tuple):
        given.setdefault("prompt", keyframes[0].prompt)
    if "image" in given:
        given.setdefault("mode", "feedback")
    duration, fps, frames = given.get("duration"), given.get("fps"), given.get("num_frames")
    if _is_number(duration) and _is_number(fps) and _is_number(frames) and round(duration * fps) == frames:
        del given["duration"]
    return given


# ------------------------------------------------------------------------------------------------- frames


def _fps(given: VideoFields, warnings: list[str]) -> float:
    if given.output_format == "gif" and given.fps > GIF_MAX_FPS:
        warnings.append(f"`fps` lowered from {given.fps:g} to {GIF_MAX_FPS:g}: gif counts hundredths of a second")
        return GIF_MAX_FPS
    return given.fps


def _num_frames(given: VideoFields, fps: float) -> int:
    if given.duration is None:
        return given.num_frames or DEFAULT_FRAMES
    if given.num_frames is not None:
        raise InvalidInput("`duration` excludes `num_frames`; send one or the other", field="duration")
    frames = round(given.duration * fps)
    if not 2 <= frames <= MAX_FRAMES:
        raise InvalidInput(f"`duration` x `fps` is {frames} frames; a video has 2 to {MAX_FRAMES}", field="duration")
    return frames


def _frames_made(given: VideoFields, fps: float, num_frames: int) -> tuple[float, int]:
    """The effective `generated_fps`, and how many frames the model makes."""
    if given.generated_fps is None:
        return fps, num_frames
    if given.generated_fps > given.fps:
        raise InvalidInput(
            f"`generated_fps` must be at most `fps`, {given.fps:g}; got {given.generated_fps:g}", field="generated_fps"
        )
    share = min(given.generated_fps, fps) / fps
    made = num_frames * share if given.loop else (num_frames - 1) * share + 1
    return min(given.generated_fps, fps), max(2, math.floor(made + 0.5))


def _check_mode(given: VideoFields) -> None:
    if given.mode == "feedback":
        return
    for name in ("motion", "strength", "image"):
        if getattr(given, name) is not None:
            raise InvalidInput(f"`{name}` needs `mode` `feedback`; send it or leave `{name}` out", field=name)


def _check_work(job: VideoJob, bound: float) -> None:
    anchors = len(job.keyframes) - 1 if job.mode == "feedback" else 0
    frames = job.frames_made + anchors
    megapixels = job.width * job.height / PIXELS_PER_MEGAPIXEL
    work = frames * job.num_inference_steps * megapixels
    if work > bound:
        raise InvalidInput(
            f"this video is {frames} frames x {job.num_inference_steps} steps x {megapixels:.3g} megapixels = "
            f"{work:.6g}, and this worker's bound is {bound:g}; lower one of them, or `generated_fps`",
            field="num_frames",
        )


# ---------------------------------------------------------------------------------------------- keyframes


def _seeded_keyframes(
    written: tuple[KeyframeFields, ...], given: VideoFields, seed: int, num_frames: int
) -> tuple[Keyframe, ...]:
    """The keyframes with their seeds.

    From a single one nothing would move in `interpolate`, so there keyframes with the same prompt and the seeds that
    follow are added: one at the last frame, or for a loop two on the way around.
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
    travelled = (
        Keyframe(frame=frame, prompt=only.prompt, seed=(only.seed + i) % (MAX_SEED + 1))
        for i, frame in enumerate(stops, start=1)
    )
    return (only, *travelled)


# ---------------------------------------------------------------------------------------------- schedules


def _motion(value: object, num_frames: int) -> Motion | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        names = ", ".join(MotionFields.model_fields)
        raise InvalidInput(f"`motion` must be an object of {names}; got {shown(value)}", field="motion")
    written = validated(MotionFields, {k: v for k, v in value.items() if v is not None}, place="motion")
    given = {name: getattr(written, name) for name in MotionFields.model_fields}
    return Motion(
        **{n: _schedule(f"motion.{n}", v, SCHEDULE_BOUNDS[n], num_frames) for n, v in given.items() if v is not None}
    )


def _strength(given: VideoFields, num_frames: int) -> Schedule | None:
    if given.mode != "feedback":
        return None
    value = DEFAULT_STRENGTH if given.strength is None else given.strength
    schedule = _schedule("strength", value, SCHEDULE_BOUNDS["strength"], num_frames)
    if min(value for _, value in schedule) <= 0:
        raise InvalidInput("`strength` must be above 0 and up to 1; got 0", field="strength")
    return schedule


def _schedule(name: str, value: object, bounds: tuple[float, float], num_frames: int) -> Schedule:
    """A number, or a list of `[frame, value]` with increasing frames."""
    low, high = bounds
    takes = f"`{name}` must be a number from {low:g} to {high:g}, or a list of [frame, number] with increasing frames"
    if not isinstance(value, list) and not _is_number(value):
        raise InvalidInput(f"{takes}; got {shown(value)}", field=name)
    points = value if isinstance(value, list) else [[0, value]]
    if not 1 <= len(points) <= MAX_SCHEDULE_POINTS:
        raise InvalidInput(f"{takes}, 1 to {MAX_SCHEDULE_POINTS} of them; got {len(points)}", field=name)
    last = -1
    schedule = []
    for point in points:
        numbers = [part for part in point if _is_number(part)] if isinstance(point, list) else []
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


def _is_number(value: object) -> TypeGuard[float]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= MAX_SEED and math.isfinite(value)
