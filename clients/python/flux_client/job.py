"""The jobs that an endpoint takes. Made from the worker's schemas of jobs by `python -m builder.docs`; do not edit."""

from __future__ import annotations

from typing import Any, Literal, Required, TypedDict


class Lora(TypedDict, total=False):
    path: Required[str]
    """Where the LoRA comes from"""
    scale: float
    """Strength"""


class Expand(TypedDict, total=False):
    left: int
    """Pixels added on the left"""
    right: int
    """Pixels added on the right"""
    top: int
    """Pixels added above"""
    bottom: int
    """Pixels added below"""


class Control(TypedDict, total=False):
    type: Required[Literal["canny", "depth", "pose", "tile"]]
    """What the picture shows"""
    image: Required[str]
    """The map itself; for canny any picture. Https URL, data URI or base64"""
    strength: float
    """How closely it is followed"""
    end: float
    """Share of the steps that follow it"""


class Box(TypedDict, total=False):
    prompt: Required[str]
    """What stands there"""
    x: Required[float]
    """Left edge, a share of the width"""
    y: Required[float]
    """Upper edge, a share of the height"""
    width: Required[float]
    """A share of the width"""
    height: Required[float]
    """A share of the height"""


class Keyframe(TypedDict, total=False):
    frame: Required[int]
    """Frame, from 0"""
    prompt: Required[str]
    """What that frame shows"""
    seed: int
    """By default the job's"""


class Motion(TypedDict, total=False):
    zoom: float | list[tuple[int, float]]
    pan_x: float | list[tuple[int, float]]
    pan_y: float | list[tuple[int, float]]
    rotate: float | list[tuple[int, float]]


class ImageJob(TypedDict, total=False):
    """A job that makes one to four pictures."""

    prompt: Required[str]
    """What the picture shows"""
    negative_prompt: str
    """What it does not show; needs `true_cfg_scale` > 1"""
    true_cfg_scale: float
    """Classifier-free guidance"""
    model: str
    """A model of this worker"""
    width: int
    """Pixels, rounded to a multiple of 16"""
    height: int
    """Pixels, rounded to a multiple of 16"""
    aspect_ratio: Literal["1:1", "16:9", "21:9", "3:2", "2:3", "4:5", "5:4", "3:4", "4:3", "9:16", "9:21"]
    """In place of width and height"""
    megapixels: float
    """Area, with `aspect_ratio` only"""
    num_inference_steps: int
    """Denoising steps"""
    guidance_scale: float
    """Distilled guidance"""
    seed: int
    """-1: derived from the job id"""
    loras: list[str | Lora] | str | Lora
    """Adapters to apply"""
    lora_scale: float
    """Scale of the LoRAs without one of their own"""
    image: str
    """Https URL, data URI or base64 of a picture to start from"""
    output_quality: int
    """Quality of lossy formats"""
    response_format: Literal["url", "b64_json"]
    """A link, or the file itself"""
    max_sequence_length: int
    """Text tokens that the model reads"""
    preview: bool
    """Progress carries small preview pictures"""
    cache: bool
    """false: neither read nor write the result cache"""
    metadata: dict[str, Any]
    """Up to 4 KB of JSON, echoed"""
    type: Literal["image"]
    """Kind of job"""
    num_images: int
    """Image i has seed + i"""
    enhance_prompt: bool
    """The model's prompt upsampler writes the prompt out first"""
    mask: str
    """As `image`; white is repainted"""
    mask_feather: int
    """Pixels over which the seam is blended, inside the mask; needs `mask` or `expand`"""
    mask_crop: int
    """Cut the masked part out with this many pixels around it, draw it at the model's own size"""
    expand: Expand
    """Pixels added to each side of `image` and painted"""
    upscale: Literal[2, 4]
    """How many times the finished picture is enlarged"""
    control: Control | list[Control]
    """A map that the picture follows, or two, by a ControlNet on the volume"""
    strength: float
    """How much of `image` is redrawn"""
    output_format: Literal["png", "jpg", "webp", "jpeg"]
    """File format"""
    images: list[str]
    """References in the order of "image 1", "image 2" in the prompt; in place of `image`"""
    boxes: list[Box]
    """List of `{prompt, x, y, width, height}`, shares of the sides"""


class VideoJob(TypedDict, total=False):
    """A job that makes a video."""

    prompt: str
    """What the picture shows"""
    negative_prompt: str
    """What it does not show; needs `true_cfg_scale` > 1"""
    true_cfg_scale: float
    """Classifier-free guidance"""
    model: str
    """A model of this worker"""
    width: int
    """Pixels, rounded to a multiple of 16"""
    height: int
    """Pixels, rounded to a multiple of 16"""
    aspect_ratio: Literal["1:1", "16:9", "21:9", "3:2", "2:3", "4:5", "5:4", "3:4", "4:3", "9:16", "9:21"]
    """In place of width and height"""
    megapixels: float
    """Area, with `aspect_ratio` only"""
    num_inference_steps: int
    """Denoising steps"""
    guidance_scale: float
    """Distilled guidance"""
    seed: int
    """-1: derived from the job id"""
    loras: list[str | Lora] | str | Lora
    """Adapters to apply"""
    lora_scale: float
    """Scale of the LoRAs without one of their own"""
    image: str
    """First frame, as an image job's; means `mode` feedback"""
    output_quality: int
    """Quality of lossy formats"""
    response_format: Literal["url", "b64_json"]
    """A link, or the file itself"""
    max_sequence_length: int
    """Text tokens that the model reads"""
    preview: bool
    """Progress carries small preview pictures"""
    cache: bool
    """false: neither read nor write the result cache"""
    metadata: dict[str, Any]
    """Up to 4 KB of JSON, echoed"""
    type: Required[Literal["video"]]
    """Kind of job"""
    num_frames: int
    """Or `duration`"""
    fps: float
    """Frames per second"""
    duration: float
    """Seconds, or `num_frames`"""
    keyframes: list[Keyframe] | dict[str, str]
    """List of `{frame, prompt, seed?}`, or prompts by frame"""
    mode: Literal["interpolate", "feedback"]
    """How frames follow one another; `feedback` with `image`"""
    motion: Motion
    """`zoom`, `pan_x`, `pan_y`, `rotate`; needs `mode` feedback"""
    strength: float | list[tuple[int, float]]
    """How much of a frame is redrawn; needs `mode` feedback or `image`"""
    generated_fps: float
    """Frames per second that the model makes; the rest are motion-interpolated"""
    loop: bool
    """The last frame leads back to the first"""
    output_format: Literal["mp4", "webm", "gif", "webp"]
    """File format"""
