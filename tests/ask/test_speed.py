"""How long jobs take, told from what jobs took."""

from __future__ import annotations

import random
import statistics
from dataclasses import asdict
from typing import Any

import pytest

from flux_engine.ask.speed import LOAD, Sample, Shape, Speeds
from flux_engine.job.base import ParseContext
from flux_engine.job.image import ImageJob
from flux_engine.job.parse import Request, parse_job
from flux_engine.job.schema.forms import PICTURE
from flux_engine.job.video import VideoJob
from flux_engine.job.work import passes_of, pictures_of, steps_of

GPU = "a card"


@pytest.fixture
def parse(context: ParseContext) -> Any:
    def parsed(**fields: Any) -> ImageJob | VideoJob:
        return parse_job(Request(id="x", input={"prompt": "a red sun", "width": 128, "height": 128, **fields}), context)

    return parsed


def took(job: ImageJob | VideoJob, *, noise: float = 0.0, chance: random.Random | None = None) -> dict[str, float]:
    """The timings of a card that needs 1 ms for a step of 128x128, in proportion to pixels, and 5 for a picture."""
    share = job.width * job.height / 128**2
    factor = 1 + noise * (chance or random.Random(0)).uniform(-1, 1)
    spent = {
        "text": 20.0,
        "denoise": steps_of(job) * passes_of(job) * share * factor,
        "decode": 3.0 * share * pictures_of(job),
        "encode": 2.0 * share * pictures_of(job),
        "lora": 0.0,
        "upload": 4.0,
        "load": 0.0,
    }
    return {f"{name}_ms": ms for name, ms in spent.items()} | {"total_ms": sum(spent.values())}


def known(*jobs: ImageJob | VideoJob) -> Speeds:
    fields: dict[str, list[dict[str, Any]]] = {}
    for job in jobs:
        fields.setdefault(Shape.of(job).field(), []).append(asdict(Sample.of(job, took(job), gpu=GPU)))
    return Speeds.parse(fields, gpu=GPU)


@pytest.mark.parametrize(
    ("before", "asked", "source"),
    [
        ([{}], {}, "measured"),
        ([{}], {"steps": 40}, "measured"),
        ([{}], {"n": 4, "true_cfg_scale": 3}, "measured"),
        ([{}], {"image": PICTURE, "strength": 0.5}, "measured"),
        ([{}], {"num_frames": 24}, "measured"),
        ([{"num_frames": 24, "image": PICTURE}], {"num_frames": 12, "image": PICTURE, "strength": 0.3}, "measured"),
        ([{}], {"width": 256}, "scaled"),
        ([{}, {"width": 512}], {"width": 256}, "scaled"),
        ([{"width": 256}, {"width": 512}], {}, "scaled"),
    ],
)
def test_a_job_is_told_by_others(parse: Any, before: list[dict[str, Any]], asked: dict[str, Any], source: str) -> None:
    job = parse(**asked)
    expected = known(*(parse(**fields) for fields in before)).expected(job)
    assert expected is not None
    assert expected.source == source
    assert expected.seconds == pytest.approx(took(job)["total_ms"] / 1000, rel=1e-3)


def test_mixed_jobs_are_told_within_a_fifth(parse: Any) -> None:
    chance, off = random.Random(3), []
    fields: dict[str, list[dict[str, Any]]] = {}
    for i in range(60):
        size = {"width": chance.choice([128, 192, 256]), "height": chance.choice([128, 192, 256])}
        more: dict[str, Any] = chance.choice(
            [{}, {"n": 3}, {"true_cfg_scale": 2}, {"num_frames": 8}, {"image": PICTURE}]
        )
        job = parse(steps=chance.choice([2, 4, 8, 16]), **size, **more)
        timings = took(job, noise=0.3, chance=chance)
        expected = Speeds.parse(fields, gpu=GPU).expected(job)
        if i >= 30 and expected is not None:
            off.append(abs(expected.seconds * 1000 / timings["total_ms"] - 1))
        fields.setdefault(Shape.of(job).field(), []).insert(0, asdict(Sample.of(job, timings, gpu=GPU)))
    assert len(off) == 30
    assert statistics.median(off) < 0.2


def test_nothing_known_is_nothing_told(parse: Any) -> None:
    assert Speeds.parse({}).expected(parse()) is None
    assert Speeds.parse({}).loading_s() is None


def test_another_card_is_left_out(parse: Any) -> None:
    field, row = Shape.of(parse()).field(), asdict(Sample.of(parse(), took(parse()), gpu="another"))
    assert Speeds.parse({field: [row]}, gpu=GPU).expected(parse()) is None
    assert Speeds.parse({field: [row]}).expected(parse()) is not None


def test_loading_is_the_median() -> None:
    rows = [{"gpu": GPU, "load_s": seconds} for seconds in (1.0, 30.0, 2.0)]
    assert Speeds.parse({LOAD: rows}, gpu=GPU).loading_s() == 2.0


@pytest.mark.parametrize(
    "fields",
    [{"image:128x128:16": [{}]}, {"image:128x128": [{}]}, {"song:1x1:1": []}, {"image:128x128:16": [{"text_s": "x"}]}],
)
def test_what_another_version_wrote_is_passed_over(parse: Any, fields: dict[str, Any]) -> None:
    assert Speeds.parse(fields).expected(parse()) is None
