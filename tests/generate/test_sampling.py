"""Every model of the catalogue, small and random, with every kind of picture that a job may bring it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from flux_engine.generate.gpu import Cancellation
from flux_engine.generate.image import ImageGenerator
from flux_engine.inputs.fetcher import JobInputs
from flux_engine.job.image import ImageJob
from flux_engine.job.parse import Request, parse_job
from flux_engine.media.decode import Pictures
from flux_engine.models.catalog import CATALOG, ModelSpec
from flux_engine.models.tuning.step_cache import cached_steps
from flux_engine.progress import Progress
from tests.conftest import context_for
from tests.generate.conftest import loaded
from tests.models.tiny_models import cases_of, tiny_model

IMAGE = Image.linear_gradient("L").convert("RGB").resize((96, 64))
MASK = Image.new("L", (96, 64), 0)
MASK.paste(255, (48, 0, 96, 64))


def kinds(spec: ModelSpec) -> list[str]:
    if spec.limits.image_use == "canvas":
        return ["mask"]
    return ["prompt", "image", "mask"] if spec.limits.takes_mask else ["prompt", "image"]


CASES = [(spec, kind) for spec in CATALOG for kind in kinds(spec)]


@pytest.mark.parametrize(("spec", "kind"), cases_of(CASES))
async def test_a_model_takes_what_a_job_brings(spec: ModelSpec, kind: str) -> None:
    steps = max(spec.limits.num_inference_steps_bounds[0], 2)
    written: dict[str, Any] = {"width": 64, "height": 64, "num_inference_steps": steps, "max_sequence_length": 16}
    written |= {"image": "QUFB"} if kind != "prompt" else {}
    written |= {"mask": "QUFB"} if kind == "mask" else {}
    job = parse_job(Request(id="job", input={"prompt": "a red sun", "seed": 3, **written}), context_for(spec))
    assert isinstance(job, ImageJob)
    given = {"prompt": Pictures(), "image": Pictures(image=IMAGE), "mask": Pictures(image=IMAGE, mask=MASK)}[kind]

    model = loaded(spec, tiny_model(spec))
    made = ImageGenerator().generate(model, job, Progress(None), Cancellation(), inputs=JobInputs(pictures=given))

    (picture,) = made.images
    assert picture.size == (64, 64)
    if kind == "mask":
        untouched = np.asarray(IMAGE.crop((16, 0, 80, 64)))[:, :24]
        assert np.array_equal(np.asarray(picture)[:, :24], untouched)


LONG = [  # without Kontext's reference, which its pipeline enlarges to a megapixel: a minute here
    (spec, kind)
    for spec, kind in CASES
    if spec.limits.num_inference_steps_bounds[1] >= 30
    and not spec.is_modular
    and (spec.name, kind) != ("FLUX.1-Kontext-dev", "image")
]


@pytest.mark.parametrize(("spec", "kind"), cases_of(LONG))
async def test_a_step_cache_serves_each_of_them_and_begins_anew_with_every_image(spec: ModelSpec, kind: str) -> None:
    model = loaded(spec, tiny_model(spec), step_cache_threshold=0.5)
    given = {"prompt": Pictures(), "image": Pictures(image=IMAGE), "mask": Pictures(image=IMAGE, mask=MASK)}[kind]

    def painted(**fields: Any) -> list[bytes]:
        written = {"width": 64, "height": 64, "num_inference_steps": 30, "max_sequence_length": 16, **fields}
        written |= {"image": "QUFB"} if kind != "prompt" else {}
        written |= {"mask": "QUFB"} if kind == "mask" else {}
        job = parse_job(Request(id="job", input={"prompt": "a red sun", **written}), context_for(spec))
        assert isinstance(job, ImageJob)
        made = ImageGenerator().generate(model, job, Progress(None), Cancellation(), inputs=JobInputs(pictures=given))
        return [picture.tobytes() for picture in made.images]

    together = painted(seed=3, num_images=2)
    assert cached_steps(model.pipeline) > 0
    assert together == painted(seed=3) + painted(seed=4)
