"""VideoJob: a valid video job with every parameter at its effective value, and how it is parsed.

Every refusal is InvalidInput and names the field. What an `image` names is not fetched here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final

from flux_engine.errors import InvalidInput
from flux_engine.job.base import Job, JsonObject, Parsing, shared_values
from flux_engine.job.formats import GIF_MAX_FPS, VideoFormat
from flux_engine.job.limits import PIXELS_PER_MEGAPIXEL
from flux_engine.job.timeline import (
    Keyframe,
    Motion,
    Schedule,
    is_number,
    motion_of,
    seeded_keyframes,
    strength_of,
)
from flux_engine.job.video_fields import MAX_FRAMES, KeyframeFields, Mode, VideoFields
from flux_engine.job.written.prompt_syntax import syntax_warnings

DEFAULT_FRAMES: Final = 48
DEFAULT_FORMAT: Final[VideoFormat] = "mp4"


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoJob(Job):
    """A valid video job; every field holds its effective value.

    `interpolate` has at least two keyframes. `image` is the first frame.
    """

    num_frames: int
    fps: float
    generated_fps: float
    frames_made: int  # by the model; the rest are motion-interpolated
    keyframes: tuple[Keyframe, ...]
    mode: Mode
    motion: Motion | None
    strength: Schedule | None
    loop: bool
    output_format: VideoFormat

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.num_frames / self.fps

    @property
    def frames_generated(self) -> int:
        """Frames that the model makes, with those that `feedback` makes from a keyframe's prompt alone."""
        anchors = len(self.keyframes) - 1 if self.mode == "feedback" else 0
        return self.frames_made + anchors

    def positions(self) -> list[float]:
        """The positions of the generated frames among the played ones: evenly spaced, from the first to the last, or
        in a loop up to the point where the first comes round again."""
        return spread(self.frames_made, self.num_frames, is_loop=self.loop)

    def parameters(self) -> JsonObject:
        """The effective parameters as they are echoed to the client."""
        echoed = {name: value for name, value in self.echoed().items() if name != "frames_made"}
        keyframes = [{"frame": k.frame, "prompt": k.prompt, "seed": k.seed} for k in self.keyframes]
        motion = self.motion and {f.name: getattr(self.motion, f.name) for f in fields(self.motion)}
        return {"type": "video"} | echoed | {"duration": self.duration, "keyframes": keyframes, "motion": motion}


def spread(count: int, num_frames: int, *, is_loop: bool) -> list[float]:
    """`count` positions, evenly spaced over `num_frames` frames."""
    spacing = num_frames / count if is_loop else (num_frames - 1) / (count - 1)
    return [i * spacing for i in range(count)]


def video_job(parsing: Parsing) -> VideoJob:
    """Parse a video job. Raises InvalidInput."""
    given = _without_repetition(parsing.written.values)
    for name in given:
        if name not in VideoFields.model_fields:
            raise InvalidInput(f"`{name}` belongs to an image job; leave it out of a video", field=name)
    written = parsing.fields(VideoFields, given)
    keyframes: tuple[KeyframeFields, ...] = written.keyframes or ()
    if keyframes and written.prompt != keyframes[0].prompt:
        parsing.warnings.append("`prompt` has no effect where `keyframes` are given")
        written = written.model_copy(update={"prompt": keyframes[0].prompt})
    for i, keyframe in enumerate(keyframes[1:], start=1):
        parsing.warnings.extend(syntax_warnings(f"keyframes[{i}].prompt", keyframe.prompt))
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
        keyframes=seeded_keyframes(keyframes, written, seed=shared["seed"], num_frames=num_frames),
        mode=written.mode,
        motion=motion_of(written, num_frames=num_frames),
        strength=strength_of(written, num_frames=num_frames),
        loop=written.loop,
        output_format=written.output_format or DEFAULT_FORMAT,
        is_format_open=written.output_format is None,
        **shared,
        warnings=tuple(parsing.warnings),
    )
    _check_work(job, parsing.context.max_video_work)
    return job


def _without_repetition(values: Mapping[str, object]) -> dict[str, object]:
    """`values` with the prompt that the first keyframe implies and the mode that an image implies, and without a
    `duration` that repeats `num_frames` and `fps`, as the echo of an earlier job does."""
    given = dict(values)
    keyframes = given.get("keyframes")
    if isinstance(keyframes, tuple):
        given.setdefault("prompt", keyframes[0].prompt)
    if "image" in given:
        given.setdefault("mode", "feedback")
    duration, fps, frames = given.get("duration"), given.get("fps"), given.get("num_frames")
    if is_number(duration) and is_number(fps) and is_number(frames) and round(duration * fps) == frames:
        del given["duration"]
    return given


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
        raise InvalidInput(
            f"`duration` x `fps` is {frames} frames; a video has 2 to {MAX_FRAMES}: change one of them",
            field="duration",
        )
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
    frames = job.frames_generated
    megapixels = job.width * job.height / PIXELS_PER_MEGAPIXEL
    work = frames * job.num_inference_steps * megapixels
    if work > bound:
        raise InvalidInput(
            f"this video is {frames} frames x {job.num_inference_steps} steps x {megapixels:.3g} megapixels = "
            f"{work:.6g}, and this worker's bound is {bound:g}; lower one of them, or `generated_fps`",
            field="num_frames",
        )
