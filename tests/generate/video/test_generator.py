"""Streams of frames: with random weights what holds for any model, with the bundled model what a viewer sees."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from builder.flux_tiny.score import disc
from flux_engine.build import build_models
from flux_engine.errors import InvalidInput, JobCancelled
from flux_engine.generate.gpu import Cancellation
from flux_engine.generate.image import ImageGenerator
from flux_engine.generate.sampling import Spent, sibling
from flux_engine.generate.video.frames import Frame
from flux_engine.generate.video.generator import VideoGenerator, check_model, frames_at_once
from flux_engine.job.base import ParseContext
from flux_engine.job.image import ImageJob
from flux_engine.job.parse import Request, parse_job
from flux_engine.job.video import VideoJob
from flux_engine.job.work import steps_run
from flux_engine.models import catalog
from flux_engine.models.catalog import FLUX_1_SCHNELL
from flux_engine.models.loaded import LoadedModel
from flux_engine.models.planning.gpus import CARDS
from flux_engine.models.planning.optimizer import ModelOptimizer
from flux_engine.progress import Progress, Update
from flux_engine.settings import Settings

SMALL = {"prompt": "a red sun", "width": 64, "height": 64, "num_inference_steps": 3, "seed": 5}


@pytest.fixture(scope="module")
def tiny_model() -> LoadedModel:
    models = build_models(Settings.from_environment({}))
    return models.load(models.served.default())


@pytest.fixture
def pace() -> Iterator[None]:
    """One thread: the cores of a test machine are busy (docs/facts.md)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def video(context: ParseContext, **fields: Any) -> VideoJob:
    job = parse_job(Request(id="job-1", input={**SMALL, "type": "video", "num_frames": 5, **fields}), context)
    assert isinstance(job, VideoJob)
    return job


async def frames_of(
    model: LoadedModel, job: VideoJob, *, first_frame: Image.Image | None = None
) -> list[NDArray[np.int16]]:
    """Signed, so that they can be subtracted."""
    return [frame.astype(np.int16) for frame in stream(model, job, first_frame=first_frame)]


def stream(
    model: LoadedModel,
    job: VideoJob,
    *,
    cancellation: Cancellation | None = None,
    first_frame: Image.Image | None = None,
) -> Iterator[Frame]:
    generator = VideoGenerator()
    told = cancellation or Cancellation()
    return generator.frames(model, job, Progress(None), told, spent=Spent(), first_frame=first_frame)


def difference(one: NDArray[np.int16], other: NDArray[np.int16]) -> float:
    return float(np.abs(one - other).mean())


def mean_step(frames: list[NDArray[np.int16]]) -> float:
    return float(np.mean([difference(a, b) for a, b in pairwise(frames)]))


# ------------------------------------------------------------------------------------------ of any model


@pytest.mark.parametrize(
    ("fields", "made"),
    [
        ({}, 5),
        ({"loop": True}, 5),
        ({"num_frames": 9, "generated_fps": 12}, 5),
        ({"keyframes": {"0": "dawn", "4": "dusk"}, "true_cfg_scale": 2, "negative_prompt": "trees"}, 5),
        ({"mode": "feedback"}, 5),
        ({"mode": "feedback", "loop": True, "keyframes": {"0": "dawn", "3": "dusk"}}, 5),
        ({"mode": "feedback", "motion": {"zoom": 1.1}, "num_frames": 9, "generated_fps": 12}, 5),
        ({"width": 96, "height": 64, "mode": "feedback"}, 5),
    ],
)
async def test_every_frame_comes_in_its_size_and_again_the_same(
    random_model: LoadedModel, context: ParseContext, fields: dict[str, Any], made: int
) -> None:
    job = video(context, **fields)
    frames = list(stream(random_model, job))
    assert [frame.shape for frame in frames] == [(job.height, job.width, 3)] * made
    assert {frame.dtype.name for frame in frames} == {"uint8"}
    assert all(np.array_equal(a, b) for a, b in zip(frames, stream(random_model, job), strict=True))
    assert all(not np.array_equal(a, b) for a, b in pairwise(frames))


async def test_keyframes_are_the_pictures_of_their_prompt_and_seed(
    random_model: LoadedModel, context: ParseContext
) -> None:
    keyframes = [{"frame": 0, "prompt": "dawn", "seed": 3}, {"frame": 4, "prompt": "dusk", "seed": 9}]
    frames = await frames_of(random_model, video(context, keyframes=keyframes))
    for frame, keyframe in ((frames[0], keyframes[0]), (frames[4], keyframes[1])):
        fields = {**SMALL, "prompt": keyframe["prompt"], "seed": keyframe["seed"]}
        job = parse_job(Request(id="job-1", input=fields), context)
        assert isinstance(job, ImageJob)
        made = ImageGenerator().generate(random_model, job, Progress(None), Cancellation())
        assert difference(frame, np.asarray(made.images[0]).astype(np.int16)) < 0.01


async def test_a_loop_closes_and_an_open_way_does_not(random_model: LoadedModel, context: ParseContext) -> None:
    keyframes = [{"frame": i * 4, "prompt": "dawn", "seed": seed} for i, seed in enumerate((3, 9, 27))]
    job = {"keyframes": keyframes, "num_frames": 12}
    closed = await frames_of(random_model, video(context, **job, loop=True))
    steps = [difference(a, b) for a, b in pairwise([*closed, closed[0]])]
    assert max(steps) < 2 * float(np.mean(steps))  # the step over the end is one like the others
    is_open = await frames_of(random_model, video(context, **job))
    assert difference(is_open[-1], is_open[0]) > 1.5 * float(np.mean(steps))


async def test_neighbours_are_nearer_than_independent_seeds(random_model: LoadedModel, context: ParseContext) -> None:
    frames = await frames_of(random_model, video(context, num_frames=13))
    assert mean_step(frames) < difference(frames[0], frames[-1]) / 3


async def test_batches_give_the_same_frames(random_model: LoadedModel, context: ParseContext) -> None:
    job = video(context)
    alone = await frames_of(random_model, job)
    together = await frames_of(allowing(random_model, largest_batch=4), job)
    assert max(difference(a, b) for a, b in zip(alone, together, strict=True)) < 0.05


def allowing(model: LoadedModel, *, largest_batch: int) -> LoadedModel:
    """`model` with a plan that lets it make several pictures of its own size in a call."""
    applied = replace(model.tuned.applied, plan=replace(model.tuned.applied.plan, largest_batch=largest_batch))
    return replace(model, tuned=replace(model.tuned, applied=applied))


@pytest.mark.parametrize(
    ("largest_batch", "width", "height", "frames"),
    [(1, 64, 64, 1), (4, 1024, 1024, 1), (4, 512, 512, 4), (4, 256, 256, 8), (2, 2048, 512, 1)],
)
def test_as_many_frames_at_once_as_the_plan_and_a_megapixel_allow(
    largest_batch: int, width: int, height: int, frames: int
) -> None:
    plan = replace(ModelOptimizer().plan(CARDS[-1], FLUX_1_SCHNELL), largest_batch=largest_batch)
    assert frames_at_once(plan, side=1024, width=width, height=height) == frames


async def test_a_first_frame_is_fitted_shown_and_carried_on(random_model: LoadedModel, context: ParseContext) -> None:
    picture = Image.linear_gradient("L").convert("RGB").resize((200, 100))
    job = video(context, mode="feedback", strength=0.1, num_inference_steps=10)
    frames = await frames_of(random_model, job, first_frame=picture)
    wanted = np.asarray(picture.crop((50, 0, 150, 100)).resize((64, 64))).astype(np.int16)
    assert difference(frames[0], wanted) < 4
    assert len(frames) == 5


async def test_image_to_image_leaves_the_pipeline_as_it_was(random_model: LoadedModel) -> None:
    made = sibling(random_model.pipeline, "FluxImg2ImgPipeline")
    assert made.scheduler is not random_model.pipeline.scheduler
    assert made.transformer is random_model.pipeline.transformer
    assert random_model.pipeline.transformer.dtype == torch.float32


@pytest.mark.parametrize(
    ("steps", "strength", "run"), [(16, 1.0, 16), (16, 0.5, 8), (4, 0.1, 1), (1, 0.5, 1), (28, 0.3, 9)]
)
async def test_steps_run_are_those_that_progress_counts(
    random_model: LoadedModel, context: ParseContext, steps: int, strength: float, run: int
) -> None:
    assert steps_run(steps, strength) == run
    sent: asyncio.Queue[Update] = asyncio.Queue()
    progress = Progress(sent.put, min_interval_s=0)
    job = video(context, mode="feedback", strength=strength, num_inference_steps=steps, num_frames=2)
    list(VideoGenerator().frames(random_model, job, progress, Cancellation(), spent=Spent()))
    while "step" not in (last := await sent.get()):
        pass  # the frames were made without a turn of the loop: of each stage the latest update is left
    await progress.close()
    assert (last["step"], last["total_steps"]) == (steps + run, steps + run)
    assert (last["frame"], last["total_frames"]) == (2, 2)
    assert last["progress"] == pytest.approx(0.9)


@pytest.mark.parametrize("mode", ["interpolate", "feedback"])
@pytest.mark.parametrize("after", [0, 1, 3])
async def test_a_cancelled_video_stops_within_a_step(
    random_model: LoadedModel, context: ParseContext, mode: str, after: int
) -> None:
    cancellation = Cancellation()
    steps = 0

    def count_and_cancel(*_: object) -> None:
        nonlocal steps
        steps += 1
        if steps > after * 2:
            cancellation.request()

    handle = random_model.pipeline.transformer.register_forward_hook(count_and_cancel)
    try:
        with pytest.raises(JobCancelled):
            list(stream(random_model, video(context, mode=mode, num_frames=48), cancellation=cancellation))
    finally:
        handle.remove()
    assert steps == after * 2 + 1
    assert len(list(stream(random_model, video(context, mode=mode)))) == 5  # the next job is right


@pytest.mark.parametrize("spec", catalog.CATALOG, ids=lambda spec: spec.name)
def test_models_of_another_kind_are_refused(spec: catalog.ModelSpec) -> None:
    if spec.pipeline_class == "FluxPipeline":
        check_model(spec)
    else:
        with pytest.raises(InvalidInput, match="images only"):
            check_model(spec)


# ------------------------------------------------------------------------------- what the bundled model shows

SEEN = {"width": 128, "height": 128, "num_inference_steps": 6, "seed": 3}


async def test_a_sun_goes_from_left_to_right(tiny_model: LoadedModel, context: ParseContext, pace: None) -> None:
    keyframes = {
        "0": "day, a large red sun on the left, hills and a meadow",
        "23": "day, a large red sun on the right, hills and a meadow",
    }
    frames = await frames_of(tiny_model, video(context, **SEEN, keyframes=keyframes, num_frames=24))
    found = [disc(Image.fromarray(frame.astype(np.uint8))) for frame in frames]
    places = [sun.x for sun in found if sun is not None]
    assert len(places) >= 22
    assert places[0] < 0.38
    assert places[-1] > 0.62
    moves = [after - before for before, after in pairwise(places)]
    assert min(moves) > -0.02
    assert max(moves) < 0.25  # it goes there, and does not fade here to appear there

    independent = [
        (await frames_of(tiny_model, video(context, **{**SEEN, "seed": seed}, num_frames=2)))[0] for seed in range(4)
    ]
    assert mean_step(frames) < mean_step(independent) / 3


async def test_a_day_goes_round(tiny_model: LoadedModel, context: ParseContext, pace: None) -> None:
    keyframes = {str(i * 4): f"{time}, mountains and a lake" for i, time in enumerate(("dawn", "day", "dusk", "night"))}
    frames = await frames_of(tiny_model, video(context, **SEEN, keyframes=keyframes, num_frames=16, loop=True))
    assert difference(frames[-1], frames[0]) < max(difference(frames[8], frames[0]), 1) / 4


async def test_a_zoom_flows_outwards(tiny_model: LoadedModel, context: ParseContext, pace: None) -> None:
    job = video(
        context,
        **{**SEEN, "prompt": "day, a large red sun in the middle, mountains and a lake"},
        mode="feedback",
        motion={"zoom": 1.05},
        strength=0.35,
        num_frames=5,
    )
    frames = await frames_of(tiny_model, job)
    outward = [flow for before, after in pairwise(frames) for flow in _outward_flow(before, after)]
    assert len(outward) >= 8
    assert np.mean(np.array(outward) > 0) > 0.8
    assert np.mean(outward) > 0.5  # pixels a frame


def _outward_flow(before: NDArray[np.int16], after: NDArray[np.int16], block: int = 24, reach: int = 5) -> list[float]:
    """How far each block of `before` that has any detail went from the centre, by block matching, in pixels."""
    height, width = before.shape[:2]
    flows = []
    for top in range(reach, height - block - reach, block):
        for left in range(reach, width - block - reach, block):
            patch = before[top : top + block, left : left + block]
            if patch.std(axis=(0, 1)).max() < 12:
                continue
            moves = [(y, x) for y in range(-reach, reach + 1) for x in range(-reach, reach + 1)]
            y, x = min(
                moves,
                key=lambda m: difference(
                    patch, after[top + m[0] : top + m[0] + block, left + m[1] : left + m[1] + block]
                ),
            )
            ray = np.array([top + block / 2 - height / 2, left + block / 2 - width / 2])
            flows.append(float(np.dot([y, x], ray) / np.linalg.norm(ray)))
    return flows
