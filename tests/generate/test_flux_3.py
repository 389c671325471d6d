"""FLUX.3 in its real classes, small and random: steps, cancellation, pipelines beside one another, boxes, prompts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from PIL import Image

from flux_engine.errors import JobCancelled
from flux_engine.generate.gpu import Cancellation
from flux_engine.generate.image import Generated, ImageGenerator
from flux_engine.inputs.fetcher import JobInputs
from flux_engine.job.image import ImageJob
from flux_engine.job.parse import Request, parse_job
from flux_engine.media.decode import Pictures
from flux_engine.models.beside.upsampler import ChatUpsampler, EncoderUpsampler
from flux_engine.models.catalog import FLUX_2_DEV, FLUX_3_KLEIN
from flux_engine.models.loaded import LoadedModel
from flux_engine.models.lora.holder import ScaledLora
from flux_engine.progress import Progress
from tests.conftest import context_for
from tests.generate.conftest import loaded
from tests.models.tiny import random_lora
from tests.models.tiny_models import tiny_model, tiny_upsampler

RED = Image.new("RGB", (64, 64), "red")
SUN = {"prompt": "a red sun", "x": 0.1, "y": 0.25, "width": 0.5, "height": 0.5}


class Recording(Progress):
    """Keeps every step, and wants a preview at each."""

    def __init__(self) -> None:
        super().__init__(None)
        self.steps: list[tuple[int, int, str | None]] = []

    def step(self, done: int, total: int, *, preview: str | None = None, **_: int) -> None:
        self.steps.append((done, total, preview))

    def wants_preview(self) -> bool:
        return True


class Cancelling(Progress):
    """Cancels its job after a step."""

    def __init__(self, cancellation: Cancellation, *, after: int) -> None:
        super().__init__(None)
        self.steps: list[int] = []
        self._cancellation = cancellation
        self._after = after

    def step(self, done: int, total: int, *, preview: str | None = None, **_: int) -> None:
        self.steps.append(done)
        if done == self._after:
            self._cancellation.request()


@pytest.fixture(scope="module")
def flux_3() -> LoadedModel:
    return loaded(FLUX_3_KLEIN, tiny_model(FLUX_3_KLEIN))


def job_of(**fields: Any) -> ImageJob:
    asked = {"prompt": "a landscape", "width": 64, "height": 64, "num_inference_steps": 3, "seed": 3} | fields
    asked |= {"enhance_prompt": False} if "enhance_prompt" not in fields else {}
    job = parse_job(Request(id="job", input=asked), context_for(FLUX_3_KLEIN))
    assert isinstance(job, ImageJob)
    return job


def made(
    model: LoadedModel,
    *,
    references: Sequence[Image.Image] = (),
    progress: Progress | None = None,
    cancellation: Cancellation | None = None,
    **fields: Any,
) -> Generated:
    given = JobInputs(pictures=Pictures(references=tuple(references)))
    progress = progress or Progress(None)
    return ImageGenerator().generate(model, job_of(**fields), progress, cancellation or Cancellation(), inputs=given)


def bytes_of(model: LoadedModel, **fields: Any) -> bytes:
    return made(model, **fields).images[0].tobytes()


@pytest.mark.parametrize("references", [(), (RED,)], ids=["prompt", "reference"])
async def test_each_step_is_reported_with_a_preview(flux_3: LoadedModel, references: Sequence[Image.Image]) -> None:
    progress = Recording()
    made(flux_3, references=references, progress=progress, num_inference_steps=4, preview=True, num_images=2)
    assert [(step, total) for step, total, _ in progress.steps] == [(step, 8) for step in range(1, 9)]
    seen = [step for step, _, preview in progress.steps if preview is not None]
    assert seen == [2, 3, 4, 6, 7, 8]  # the first step of a picture has none before it


@pytest.mark.parametrize("references", [(), (RED,)], ids=["prompt", "reference"])
async def test_a_cancellation_is_seen_at_each_of_sixteen_steps(
    flux_3: LoadedModel, references: Sequence[Image.Image]
) -> None:
    fresh = bytes_of(loaded(FLUX_3_KLEIN, tiny_model(FLUX_3_KLEIN)), references=references)
    for last in range(1, 17):
        cancellation = Cancellation()
        progress = Cancelling(cancellation, after=last)
        with pytest.raises(JobCancelled):
            made(
                flux_3,
                references=references,
                progress=progress,
                cancellation=cancellation,
                num_inference_steps=17,
            )
        assert progress.steps == list(range(1, last + 1))
    assert bytes_of(flux_3, references=references) == fresh


async def test_two_pipelines_one_after_the_other_make_what_each_makes_alone(flux_3: LoadedModel) -> None:
    other = loaded(FLUX_3_KLEIN, tiny_model(FLUX_3_KLEIN))
    with torch.no_grad():
        next(other.pipeline.transformer.parameters()).mul_(1.5)
    alone = [bytes_of(flux_3), bytes_of(other, references=[RED])]
    assert alone[0] != bytes_of(other)
    for _ in range(2):
        assert [bytes_of(flux_3), bytes_of(other, references=[RED])] == alone


async def test_a_lora_acts_and_leaves_nothing(flux_3: LoadedModel) -> None:
    plain = bytes_of(flux_3)
    lora = random_lora(flux_3.pipeline.transformer, seed=4)
    flux_3.lora_manager.apply(flux_3.pipeline, [ScaledLora(lora, 1.0)])
    with_lora = bytes_of(flux_3)
    flux_3.lora_manager.apply(flux_3.pipeline, [])
    assert with_lora != plain == bytes_of(flux_3)


# ------------------------------------------------------------------------------------------------------- prompts


class Stub:
    """An upsampler that answers what it is told to, and remembers what it was asked."""

    def __init__(self, answer: str) -> None:
        self.answer = answer
        self.asked: list[dict[str, Any]] = []

    def write(self, request: str, *, check: Callable[[], None], **given: Any) -> str:
        check()
        self.asked.append({"request": request, **given})
        return self.answer


async def test_what_the_upsampler_writes_is_what_the_model_reads(flux_3: LoadedModel) -> None:
    stub = Stub("a wide landscape under a red sun")
    model = replace(flux_3, upsampler=stub)
    enhanced = made(model, references=[RED], enhance_prompt=True, boxes=[SUN], num_images=2)
    assert enhanced.prompt is not None
    assert enhanced.prompt.enhanced == stub.answer
    (asked,) = stub.asked
    assert (asked["request"], list(asked["images"]), asked["seed"]) == ("a landscape", [RED], 3)
    assert asked["boxes"] == [
        {"id": "obj_1", "desc": "a red sun", "from": "target", "tgt_bbox": [0.25, 0.1, 0.75, 0.6]}
    ]
    assert enhanced.images[0].tobytes() == bytes_of(flux_3, prompt=stub.answer, references=[RED])
    plain = made(model, enhance_prompt=False)
    assert plain.prompt is not None
    assert plain.prompt.enhanced is None
    assert len(stub.asked) == 1


async def test_boxes_without_an_upsampler_are_a_table_behind_the_prompt(flux_3: LoadedModel) -> None:
    read = made(flux_3, boxes=[SUN]).prompt
    assert read is not None
    caption, _, table = read.text.partition(". ")
    assert caption == "a landscape, with a red sun <obj_1>"
    assert json.loads(table) == [{"id": "obj_1", "bbox": [250, 100, 750, 600], "desc": "a red sun"}]
    moved = made(flux_3, boxes=[SUN | {"x": 0.5}]).images[0].tobytes()
    assert moved != bytes_of(flux_3, boxes=[SUN]) != bytes_of(flux_3)


@pytest.mark.parametrize("references", [(), (RED, RED)], ids=["prompt", "references"])
@pytest.mark.parametrize("boxes", [None, [SUN]], ids=["plain", "boxes"])
async def test_the_upsamplers_real_class_writes_the_same_each_time(
    flux_3: LoadedModel, references: Sequence[Image.Image], boxes: list[dict[str, Any]] | None
) -> None:
    model = replace(flux_3, upsampler=ChatUpsampler(flux_3.pipeline, tiny_upsampler, max_new_tokens=8))
    first, again = (made(model, references=references, enhance_prompt=True, boxes=boxes) for _ in range(2))
    assert first.prompt is not None
    assert first.prompt == again.prompt
    assert first.prompt.enhanced not in (None, "", "a landscape")
    if boxes is not None:
        assert "obj_1" in str(first.prompt.enhanced)
    assert first.images[0].tobytes() == again.images[0].tobytes()


async def test_a_cancellation_is_seen_between_two_tokens(flux_3: LoadedModel) -> None:
    cancellation = Cancellation()
    upsampler, processor = tiny_upsampler()
    passes: list[int] = []

    def count(*_: Any) -> None:
        passes.append(1)
        if len(passes) == 3:
            cancellation.request()

    upsampler.register_forward_hook(count)
    model = replace(flux_3, upsampler=ChatUpsampler(flux_3.pipeline, lambda: (upsampler, processor)))
    with pytest.raises(JobCancelled):
        made(model, enhance_prompt=True, cancellation=cancellation)
    assert len(passes) == 3


async def test_flux_2_writes_with_its_text_encoder_and_by_the_seed() -> None:
    pipeline = tiny_model(FLUX_2_DEV)
    written: list[int] = []

    class Upsampling:
        """FLUX.2's own method with the chat model's answer in place: its processor needs torchvision."""

        text_encoder = pipeline.text_encoder
        _execution_device = torch.device("cpu")

        def upsample_prompt(self, prompt: str, *, images: Any, temperature: float, device: Any) -> list[str]:
            written.append(int(torch.randint(10**6, ())))
            assert images == [[RED, RED]]
            return [f" {prompt}, in detail {written[-1]} "]

    upsampler = EncoderUpsampler(Upsampling())
    before = torch.random.get_rng_state()
    texts = [upsampler.write("a sun", images=[RED, RED], boxes=[], seed=seed, check=lambda: None) for seed in (7, 7, 8)]
    assert texts[0] == texts[1] != texts[2]
    assert texts[0] == f"a sun, in detail {written[0]}"
    assert torch.equal(before, torch.random.get_rng_state())
