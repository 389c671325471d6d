"""Every model of the catalogue, small and random, with every kind of picture that a job may bring it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from flux_engine.generate.gpu import Cancellation
from flux_engine.generate.image import ImageGenerator
from flux_engine.job import ImageJob, parse_job
from flux_engine.media.pictures import Pictures
from flux_engine.models.catalog import CATALOG, ModelSpec
from flux_engine.progress import Progress
from tests.conftest import context_for
from tests.generate.conftest import loaded
from tests.models.tiny_models import tiny_model

IMAGE = Image.linear_gradient("L").convert("RGB").resize((96, 64))
MASK = Image.new("L", (96, 64), 0)
MASK.paste(255, (48, 0, 96, 64))
PIPELINES = [spec for spec in CATALOG if not spec.is_modular]


def kinds(spec: ModelSpec) -> list[str]:
    if spec.limits.image_use == "canvas":
        return ["mask"]
    return ["prompt", "image", "mask"] if spec.limits.takes_mask else ["prompt", "image"]


CASES = [(spec, kind) for spec in PIPELINES for kind in kinds(spec)]


@pytest.mark.parametrize(("spec", "kind"), CASES, ids=[f"{spec.name}-{kind}" for spec, kind in CASES])
async def test_a_model_takes_what_a_job_brings(spec: ModelSpec, kind: str) -> None:
    written: dict[str, Any] = {"width": 64, "height": 64, "num_inference_steps": 4, "max_sequence_length": 16}
    written |= {"image": "QUFB"} if kind != "prompt" else {}
    written |= {"mask": "QUFB"} if kind == "mask" else {}
    job = parse_job({"id": "job", "input": {"prompt": "a red sun", "seed": 3, **written}}, context_for(spec))
    assert isinstance(job, ImageJob)
    given = {"prompt": Pictures(), "image": Pictures(image=IMAGE), "mask": Pictures(image=IMAGE, mask=MASK)}[kind]

    model = loaded(spec, tiny_model(spec))
    made = ImageGenerator().generate(model, job, Progress(None), Cancellation(), pictures=given)

    (picture,) = made.images
    assert picture.size == (64, 64)
    if kind == "mask":
        untouched = np.asarray(IMAGE.crop((16, 0, 80, 64)))[:, :24]
        assert np.array_equal(np.asarray(picture)[:, :24], untouched)
