"""The fields that only video jobs have, or have in another form, as a client may send them."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from flux_engine.job.fields import MAX_SEED, Boolean, Integer, Number, Picture, Prompt, SharedFields
from flux_engine.job.formats import VideoFormat

MAX_FRAMES: Final = 480
MAX_KEYFRAMES: Final = 32
MAX_SCHEDULE_POINTS: Final = 64

Mode = Literal["interpolate", "feedback"]


class KeyframeFields(BaseModel):
    """One item of `keyframes`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    frame: Annotated[Integer, Field(ge=0, le=MAX_FRAMES - 1)] = Field(description="Frame, from 0")
    prompt: Prompt = Field(description="What that frame shows")
    seed: Annotated[Integer, Field(ge=-1, le=MAX_SEED)] | None = Field(None, description="By default the job's")


class MotionFields(BaseModel):
    """`motion`: the change from one frame to the next; each part is a number or a list of `[frame, value]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    zoom: Any = Field(None, description="Factor per frame; above 1 zooms in")
    pan_x: Any = Field(None, description="Share of the width per frame; above 0 moves right")
    pan_y: Any = Field(None, description="Share of the height per frame; above 0 moves down")
    rotate: Any = Field(None, description="Degrees per frame; above 0 turns counterclockwise")


SCHEDULE_BOUNDS: Final[dict[str, tuple[float, float]]] = {  # the bounds of each value
    "zoom": (0.5, 2.0),
    "pan_x": (-0.5, 0.5),
    "pan_y": (-0.5, 0.5),
    "rotate": (-45.0, 45.0),
    "strength": (0.0, 1.0),  # 0 itself is refused
}


class VideoFields(SharedFields):
    """A video job as a client sends it. timeline.py parses `keyframes`, `motion` and `strength`."""

    type: Literal["video"] = Field("video", description="Kind of job")
    num_frames: Annotated[Integer, Field(ge=2, le=MAX_FRAMES)] | None = Field(None, description="Or `duration`")
    fps: Annotated[Number, Field(ge=1, le=60)] = Field(24.0, description="Frames per second")
    duration: Annotated[Number, Field(gt=0, le=20)] | None = Field(None, description="Seconds, or `num_frames`")
    keyframes: Any = Field(None, description="List of `{frame, prompt, seed?}`, or prompts by frame")
    mode: Mode = Field("interpolate", description="How frames follow one another; `feedback` with `image`")
    motion: Any = Field(None, description="`zoom`, `pan_x`, `pan_y`, `rotate`; needs `mode` feedback")
    strength: Any = Field(None, description="How much of a frame is redrawn; needs `mode` feedback or `image`")
    generated_fps: Annotated[Number, Field(gt=0, le=60)] | None = Field(
        None, description="Frames per second that the model makes; the rest are motion-interpolated"
    )
    loop: Boolean = Field(False, description="The last frame leads back to the first")
    image: Picture | None = Field(None, description="First frame, as an image job's; means `mode` feedback")
    output_format: VideoFormat | None = Field(None, description="File format")
