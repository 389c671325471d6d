"""References through the real pipelines, small and random: every number that a model takes, and their order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from flux_engine.generate.gpu import Cancellation
from flux_engine.generate.image import ImageGenerator
from flux_engine.generate.references import at_least
from flux_engine.generate.start import start_of
from flux_engine.inputs.fetcher import JobInputs
from flux_engine.job.image import ImageJob
from flux_engine.job.parse import Request, parse_job
from flux_engine.media.decode import Pictures
from flux_engine.models.catalog import CATALOG
from flux_engine.models.loaded import LoadedModel
from flux_engine.models.spec import ModelSpec
from flux_engine.net.fetch import Fetcher
from flux_engine.progress import Progress
from tests.conftest import context_for
from tests.generate.conftest import loaded
from tests.generate.test_control import base64_of
from tests.inputs.test_references import inputs_of
from tests.models.tiny_models import cases_of, tiny_model

Named = Callable[[str, str], dict[str, Any]]

COLOURS = ("red", "lime", "blue", "white", "black", "yellow", "cyan", "magenta", "orange", "purple")
SEEING = [  # Kontext's pipeline would enlarge a reference to a megapixel: minutes here
    replace(spec, fits_references=True) if spec.name == "FLUX.1-Kontext-dev" else spec
    for spec in CATALOG
    if spec.limits.max_references
]
COUNTS = [(spec, n) for spec in SEEING for n in (1, 2, 4, 10) if n <= spec.limits.max_references]


def pictures(count: int) -> tuple[Image.Image, ...]:
    """Each of its own colour and size."""
    gradient = Image.linear_gradient("L").convert("RGB")
    sizes = [(64 + 16 * (n % 3), 64 + 16 * (n % 2)) for n in range(count)]
    return tuple(
        Image.blend(gradient.resize(size), Image.new("RGB", size, colour), 0.7)
        for size, colour in zip(sizes, COLOURS, strict=False)
    )


def painted(model: LoadedModel, references: Sequence[Image.Image], **given: Any) -> bytes:
    spec = model.spec
    least = spec.limits.num_inference_steps_bounds[0]
    asked = {"prompt": "image 1", "width": 64, "height": 64, "num_inference_steps": least, "max_sequence_length": 16}
    asked |= {"images": ["QUFB"] * len(references)} if references and "image" not in given else {}
    job = parse_job(Request(id="job", input=asked | {"seed": 3} | given), context_for(spec))
    assert isinstance(job, ImageJob)
    brought = Pictures(image=references[0]) if "image" in given else Pictures(references=tuple(references))
    made = ImageGenerator().generate(model, job, Progress(None), Cancellation(), inputs=JobInputs(pictures=brought))
    assert made.images[0].size == (64, 64)
    return made.images[0].tobytes()


@pytest.mark.parametrize(("spec", "count"), cases_of(COUNTS))
async def test_every_number_and_order_is_another_picture(spec: ModelSpec, count: int) -> None:
    model, seen = loaded(spec, tiny_model(spec)), pictures(count)
    made = painted(model, seen)
    assert made == painted(model, seen)
    assert made != painted(model, ())
    if count == 1:
        assert made == painted(model, seen, image="QUFB")  # the same wish by another name
    else:
        assert made != painted(model, seen[::-1])
        assert made != painted(model, seen[:-1])


@pytest.mark.parametrize(
    "named",
    [
        lambda first, second: {"images": [first, second]},
        lambda first, second: {"input_images": [first, second]},
        lambda first, second: {"image_urls": [first, second]},
        lambda first, second: {"reference_images": [first, second]},
        lambda first, second: {"image[]": [first, second]},
        lambda first, second: {"input_image_2": second, "input_image": first},
        lambda first, second: {"input_image_1": first, "input_image_2": second},
    ],
    ids=["ours", "Replicate", "fal", "reference_images", "OpenAI", "BFL", "numbered"],
)
async def test_the_order_of_every_clients_spelling_reaches_the_pipeline(named: Named, tmp_path: Path) -> None:
    """From a job as it is sent, over the fetched files, to the pictures that the pipeline is called with."""
    (spec,) = (spec for spec in SEEING if spec.name == "FLUX.2-dev")
    fetch, texts = inputs_of(tmp_path, Fetcher()).fetch, [base64_of(one) for one in pictures(2)]
    seen = []
    for first, second in (texts, texts[::-1]):
        asked = {"prompt": "image 1 beside image 2", "width": 64, "height": 64, "seed": 3} | named(first, second)
        job = parse_job(Request(id="job", input=asked | {"model": spec.id}), context_for(spec))
        assert isinstance(job, ImageJob)
        found = await fetch(job)
        called = start_of(loaded(spec, tiny_model(spec)), job, found.pictures).arguments["image"]
        seen.append([one.tobytes() for one in called])
    brought = [one.tobytes() for one in pictures(2)]
    assert seen == [brought, brought[::-1]]


async def test_a_small_reference_is_enlarged_to_what_the_processor_takes() -> None:
    (spec,) = (spec for spec in SEEING if spec.name == "FLUX.2-klein-4B")
    model = loaded(spec, tiny_model(spec))
    small = Image.new("RGB", (8, 40), "red")
    assert at_least(small, 64).size == (64, 320)
    assert painted(model, [small]) != painted(model, ())


async def test_kleins_pipeline_of_cached_references_is_another_function() -> None:
    """So it is not used: references see themselves alone there, at time 0, which klein's own weights never learned."""
    (spec,) = (spec for spec in SEEING if spec.name == "FLUX.2-klein-4B")
    pipeline = tiny_model(spec)
    caching = diffusers.Flux2KleinKVPipeline(**pipeline.components, is_distilled=True)
    seen, made = list(pictures(2)), []
    for one in (pipeline, pipeline, caching):
        one.set_progress_bar_config(disable=True)
        size = {"width": 64, "height": 64, "num_inference_steps": 4, "max_sequence_length": 16}
        generator = torch.Generator().manual_seed(3)
        made.append(one(image=seen, prompt="image 1", generator=generator, output_type="np", **size).images)
    noise, difference = (float(np.abs(made[0] - other).max()) for other in made[1:])
    assert noise == 0 < difference
