"""The input contract of videos: both forms of keyframes, schedules, what is reckoned, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from flux_engine.errors import InvalidInput
from flux_engine.job.base import ParseContext, derived_seed
from flux_engine.job.fields import MAX_SEED
from flux_engine.job.parse import Request, parse_job
from flux_engine.job.timeline import Keyframe
from flux_engine.job.video import VideoJob, spread

PLAIN = {"prompt": "a red sun", "num_frames": 48}


def parse(context: ParseContext, **fields: Any) -> VideoJob:
    job = parse_job(Request(id="job-1", input={**PLAIN, **fields}), context)
    assert isinstance(job, VideoJob)
    return job


def test_defaults(context: ParseContext) -> None:
    job = parse(context, num_frames=None, type="video", seed=7)
    assert (job.num_frames, job.fps, job.duration, job.generated_fps, job.frames_made) == (48, 24.0, 2.0, 24.0, 48)
    assert (job.mode, job.motion, job.strength, job.loop, job.output_format) == (
        "interpolate",
        None,
        None,
        False,
        "mp4",
    )
    assert (job.width, job.height, job.num_inference_steps) == (256, 256, 16)
    assert job.warnings == ()
    echoed = json.loads(json.dumps(job.parameters(), allow_nan=False))
    assert echoed["type"] == "video"
    assert echoed["keyframes"] == [
        {"frame": 0, "prompt": "a red sun", "seed": 7},
        {"frame": 47, "prompt": "a red sun", "seed": 8},
    ]


@pytest.mark.parametrize(
    ("written", "field", "value"),
    [
        ({"max_frames": 48}, "num_frames", 48),
        ({"frames_per_second": 12}, "fps", 12.0),
        ({"video_format": "webm"}, "output_format", "webm"),
        ({"format": "gif"}, "output_format", "gif"),
        ({"task": "video"}, "type", "video"),
        ({"num_frames": None, "duration": 1.5, "fps": 10}, "num_frames", 15),
        ({"num_frames": None, "duration": 0.25, "fps": 10}, "num_frames", 2),
        ({"duration": 4, "fps": 12}, "num_frames", 48),
        ({"image": "QUFB"}, "mode", "feedback"),
        ({"image": "QUFB", "strength": 0.3}, "strength", ((0, 0.3),)),
        ({"mode": "feedback\n", "motion": {"zoom": [[0, 1], [24.0, 1.1]]}}, "mode", "feedback"),
        ({"mode": "feedback"}, "strength", ((0, 0.5),)),
        ({"mode": "feedback", "prompt_strength": 0.3}, "strength", ((0, 0.3),)),
        ({"mode": "feedback", "strength_schedule": [[0, 0.3], [24, 0.5]]}, "strength", ((0, 0.3), (24, 0.5))),
        ({"generated_fps": 24}, "generated_fps", 24.0),
        ({"fps": 60, "output_format": "gif"}, "fps", 50.0),
        ({"loop": True, "seed": 5, "num_frames": 3}, "loop", True),
    ],
)
def test_aliases_and_forms(context: ParseContext, written: dict[str, Any], field: str, value: object) -> None:
    assert parse(context, **written).parameters()[field] == value


@pytest.mark.parametrize("name", ["keyframes", "animation_prompts"])
@pytest.mark.parametrize(
    "keyframes",
    [
        [{"frame": 0, "prompt": "dawn"}, {"frame": 24, "prompt": "  dusk\n", "seed": 9}],
        [{"frame": 0.0, "prompt": "dawn", "seed": None}, {"frame": 24, "prompt": "dusk", "seed": 9}],
        [{"frame": 0, "prompt": "dawn", "seed": -1}, {"frame": 24, "prompt": "dusk", "seed": 9}],
    ],
)
def test_keyframes_as_a_list(context: ParseContext, name: str, keyframes: object) -> None:
    job = parse(context, prompt=None, seed=3, **{name: keyframes})
    assert job.keyframes == (Keyframe(frame=0, prompt="dawn", seed=3), Keyframe(frame=24, prompt="dusk", seed=9))
    assert job.prompt == "dawn"


def test_keyframes_as_an_object_in_any_order(context: ParseContext) -> None:
    job = parse(context, keyframes={"24": "dusk", "0": "dawn"})
    assert [(k.frame, k.prompt) for k in job.keyframes] == [(0, "dawn"), (24, "dusk")]
    assert {k.seed for k in job.keyframes} == {derived_seed("job-1")}
    assert job.warnings == ("`prompt` has no effect where `keyframes` are given",)


@pytest.mark.parametrize("prompt", ["dawn", " dawn\n"])
def test_a_prompt_that_says_what_the_first_keyframe_does_is_no_warning(context: ParseContext, prompt: str) -> None:
    listed = [{"frame": 0, "prompt": "dawn"}, {"frame": 24.0, "prompt": "dusk ", "seed": None}]
    job = parse(context, prompt=prompt, keyframes={"0": "dawn ", "24": "dusk"}, animation_prompts=listed)
    assert [(k.frame, k.prompt) for k in job.keyframes] == [(0, "dawn"), (24, "dusk")]
    assert job.warnings == ()


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "video"},
        {"num_frames": 480, "fps": 1, "steps": 1},
        {"num_frames": 7, "fps": 23.976, "generated_fps": 12},
        {"loop": True, "seed": 5, "fps": 60, "output_format": "gif"},
        {"keyframes": {"0": "dawn", "24": "dusk"}, "aspect_ratio": "16:9"},
        {"mode": "feedback", "motion": {"zoom": 1.1, "pan_x": [[0, 0], [9, 0.1]]}, "strength": [[0, 0.3], [9, 0.5]]},
    ],
)
def test_echoed_parameters_are_a_job_again(context: ParseContext, fields: dict[str, Any]) -> None:
    echoed = parse(context, **fields).parameters()
    again = parse_job(Request(id="job-2", input=json.loads(json.dumps(echoed))), context)
    assert again.parameters() == echoed
    assert again.warnings == ()


@pytest.mark.parametrize(
    ("fields", "seeds"),
    [
        ({"seed": 5}, [(0, 5), (47, 6)]),
        ({"seed": MAX_SEED}, [(0, MAX_SEED), (47, 0)]),
        ({"seed": 5, "loop": True}, [(0, 5), (16, 6), (32, 7)]),
        ({"seed": 5, "loop": True, "num_frames": 2}, [(0, 5), (1, 6)]),
        ({"seed": 5, "keyframes": {"0": "x"}}, [(0, 5), (47, 6)]),
        ({"seed": 5, "mode": "feedback"}, [(0, 5)]),
    ],
)
def test_one_prompt_travels_between_seeds(
    context: ParseContext, fields: dict[str, Any], seeds: list[tuple[int, int]]
) -> None:
    assert [(k.frame, k.seed) for k in parse(context, **fields).keyframes] == seeds


@pytest.mark.parametrize(
    ("num_frames", "fps", "generated_fps", "is_loop", "made"),
    [
        (48, 24, 24, False, 48),
        (48, 24, 6, False, 13),
        (49, 24, 6, False, 13),
        (48, 24, 6, True, 12),
        (2, 24, 1, False, 2),
        (48, 24, 0.1, True, 2),
    ],
)
def test_frames_made_lie_evenly_from_the_first_to_the_last(
    context: ParseContext, num_frames: int, fps: float, generated_fps: float, is_loop: bool, made: int
) -> None:
    job = parse(context, num_frames=num_frames, fps=fps, generated_fps=generated_fps, loop=is_loop)
    positions = job.positions()
    assert job.frames_made == len(positions) == made
    assert positions[0] == 0
    assert positions[-1] == pytest.approx(num_frames - num_frames / made if is_loop else num_frames - 1)
    assert spread(2, 10, is_loop=False) == [0, 9]


def test_work_is_bounded_with_the_figure_and_the_bound(context: ParseContext) -> None:
    small = replace(context, max_video_work=48 * 16 * 0.0625)
    assert parse(small).num_frames == 48
    with pytest.raises(InvalidInput) as refusal:
        parse(small, num_frames=49)
    assert refusal.value.field == "num_frames"
    assert "49 frames x 16 steps x 0.0625 megapixels = 49" in refusal.value.message
    assert "bound is 48" in refusal.value.message
    assert parse(small, num_frames=94, generated_fps=12).frames_made == 48
    with pytest.raises(InvalidInput, match="49 frames"):
        parse(small, mode="feedback", keyframes={"0": "a", "24": "b"})


TOO_MANY = {str(i): "x" for i in range(33)}
BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"num_frames": 1}, "num_frames", "2 to 480"),
    ({"num_frames": 481}, "num_frames", "2 to 480"),
    ({"num_frames": True}, "num_frames", "integer"),
    ({"num_frames": 2.5}, "num_frames", "integer"),
    ({"fps": 0.5}, "fps", "from 1"),
    ({"fps": 61}, "fps", "60"),
    ({"fps": float("nan")}, "fps", "number"),
    ({"duration": 2}, "duration", "excludes `num_frames`"),
    ({"num_frames": None, "duration": 21}, "duration", "20"),
    ({"num_frames": None, "duration": 0}, "duration", "above 0"),
    ({"num_frames": None, "duration": 0.01}, "duration", "2 to 480"),
    ({"num_frames": None, "duration": 20, "fps": 60}, "duration", "1200 frames"),
    ({"mode": "zoom"}, "mode", "interpolate, feedback"),
    ({"output_format": "png"}, "output_format", "mp4, webm, gif, webp"),
    ({"loop": 1}, "loop", "true or false"),
    ({"generated_fps": 25}, "generated_fps", "at most `fps`"),
    ({"generated_fps": 0}, "generated_fps", "above 0"),
    ({"type": "image"}, "num_frames", "belongs to a video job"),
    ({"type": "film"}, "type", "`video`"),
    ({"num_images": 2}, "num_images", "belongs to an image job"),
    ({"prompt": None}, "prompt", "required"),
    ({"motion": {"zoom": 1.1}}, "motion", "needs `mode` `feedback`"),
    ({"strength": 0.5}, "strength", "needs `mode` `feedback`"),
    ({"image": "QUFB", "mode": "interpolate"}, "image", "needs `mode` `feedback`"),
    ({"image": "QUFB", "mask": "QUFB"}, "mask", "belongs to an image job"),
    ({"prompt": 5, "keyframes": {"0": "dawn"}}, "prompt", "a string"),
    ({"prompt": "x" * 4001, "keyframes": {"0": "dawn"}}, "prompt", "1 to 4000"),
    ({"prompt": " ", "keyframes": {"0": "dawn"}}, "prompt", "1 to 4000"),
    ({"duration": 2, "fps": 25}, "duration", "excludes `num_frames`"),
    ({"keyframes": {"0": "a"}, "animation_prompts": {"0": "b"}}, "animation_prompts", "different values"),
    ({"keyframes": "0: dawn"}, "keyframes", 'got "0: dawn"'),
    ({"mode": "feedback", "strength": "0.5"}, "strength", 'got "0.5"'),
    ({"mode": "feedback", "motion": {"zoom": True}}, "motion.zoom", "got true"),
    ({"mode": "feedback", "motion": {"\ud800": 1}}, "motion", "no `?`"),
    ({"mode": "feedback", "motion": {"": 1}}, "motion", "no ``"),
    ({"image": 7, "mode": "feedback"}, "image", "string"),
    ({"keyframes": []}, "keyframes", "1 to 32"),
    ({"keyframes": TOO_MANY}, "keyframes", "1 to 32"),
    ({"keyframes": "0: dawn"}, "keyframes", "list"),
    ({"keyframes": {"1": "dawn"}}, "keyframes", "must be frame 0"),
    ({"keyframes": {"0": "dawn", "x": "dusk"}}, "keyframes", '"24"'),
    ({"keyframes": {"0": "dawn", "00": "dusk"}}, "keyframes", "increase"),
    ({"keyframes": {"0": "dawn", "48": "dusk"}}, "keyframes", "last frame is 47"),
    ({"keyframes": {"0": "  "}}, "keyframes[0].prompt", "1 to 4000"),
    ({"keyframes": [{"frame": 0}]}, "keyframes[0].prompt", "required"),
    ({"keyframes": [{"frame": 0, "prompt": "a"}, {"frame": 0, "prompt": "b"}]}, "keyframes", "increase"),
    ({"keyframes": [{"frame": 0, "prompt": "a", "seed": MAX_SEED + 1}]}, "keyframes[0].seed", "integer"),
    ({"keyframes": [{"frame": 0, "prompt": "a", "sed": 1}]}, "keyframes[0]", "no `sed`"),
    ({"keyframes": [7]}, "keyframes[0]", "object of frame, prompt, seed"),
    ({"mode": "feedback", "motion": 1.1}, "motion", "object of zoom"),
    ({"mode": "feedback", "motion": {"tilt": 1}}, "motion", "no `tilt`"),
    ({"mode": "feedback", "motion": {"zoom": 0}}, "motion.zoom", "0.5 to 2"),
    ({"mode": "feedback", "motion": {"zoom": True}}, "motion.zoom", "number"),
    ({"mode": "feedback", "motion": {"zoom": "0:(1.02)"}}, "motion.zoom", "list of [frame, number]"),
    ({"mode": "feedback", "motion": {"pan_x": [[0, 0], [0, 0.1]]}}, "motion.pan_x", "increasing"),
    ({"mode": "feedback", "motion": {"pan_y": [[0, 0, 0]]}}, "motion.pan_y", "[frame, number]"),
    ({"mode": "feedback", "motion": {"rotate": [[0, float("inf")]]}}, "motion.rotate", "number"),
    ({"mode": "feedback", "motion": {"rotate": [[0.5, 1]]}}, "motion.rotate", "frame"),
    ({"mode": "feedback", "motion": {"rotate": [[48, 1]]}}, "motion.rotate", "0 to 47"),
    ({"mode": "feedback", "motion": {"rotate": [[i, 1] for i in range(65)]}}, "motion.rotate", "64"),
    ({"mode": "feedback", "strength": 0}, "strength", "above 0"),
    ({"mode": "feedback", "strength": [[0, 0.5], [10, 1.5]]}, "strength", "0 to 1"),
    ({"mode": "feedback", "strength": []}, "strength", "1 to 64"),
    ({"mode": "feedback", "strength": 10**400}, "strength", "number"),
    ({"num_frames": 480, "width": 512, "height": 512, "steps": 50}, "num_frames", "6000"),
]


@pytest.mark.parametrize(("fields", "field", "said"), BAD)
def test_refused(context: ParseContext, fields: dict[str, Any], field: str, said: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse(context, **fields)
    assert refusal.value.field == field
    assert said in refusal.value.message
    json.loads(refusal.value.to_json("job-1"))
