"""Seconds of a job by its plan's arithmetic, where no such job was measured yet."""

from __future__ import annotations

from typing import Any

import pytest

from flux_engine.ask.estimate import Planned
from flux_engine.job.base import ParseContext
from flux_engine.job.parse import Request, parse_job
from flux_engine.job.schema.forms import PICTURE
from flux_engine.models.catalog import FLUX_1_DEV, FLUX_2_DEV, FLUX_2_KLEIN_4B
from flux_engine.models.planning.cold_start import cold_start
from flux_engine.models.planning.gpus import find_card
from flux_engine.models.planning.optimizer import ModelOptimizer
from flux_engine.models.spec import ModelSpec
from tests.conftest import context_for


def planned(spec: ModelSpec, card: str = "L40S") -> Planned:
    gpu = find_card(card)
    assert gpu is not None
    return Planned(spec=spec, plan=ModelOptimizer().plan(gpu, spec), speed=gpu.speed)


def seconds(spec: ModelSpec, **fields: Any) -> float:
    context: ParseContext = context_for(spec)
    job = parse_job(Request(id="x", input={"prompt": "a red sun", **fields}), context)
    expected = planned(spec).expected(job)
    assert expected is not None
    assert expected.source == "planned"
    return expected.seconds


@pytest.mark.parametrize("spec", [FLUX_1_DEV, FLUX_2_DEV, FLUX_2_KLEIN_4B], ids=lambda spec: spec.name)
def test_a_plain_picture_takes_what_the_plan_says(spec: ModelSpec) -> None:
    assert seconds(spec) == pytest.approx(planned(spec).plan.seconds)


def test_more_pictures_share_one_prompt() -> None:
    one, four = seconds(FLUX_1_DEV), seconds(FLUX_1_DEV, n=4)
    assert 3.5 * one < four < 4 * one


def test_each_reference_makes_a_step_longer() -> None:
    taken = [seconds(FLUX_2_DEV, images=[PICTURE] * count) for count in (1, 4, 10)]
    assert seconds(FLUX_2_DEV) < taken[0] < taken[1] < taken[2]
    assert taken[2] > 8 * seconds(FLUX_2_DEV)  # 45,000 tokens for 4,600


def test_a_step_cache_is_not_reckoned_with_where_a_job_has_none() -> None:
    by_step = {steps: seconds(FLUX_1_DEV, steps=steps) / steps for steps in (19, 20, 40)}
    assert by_step[19] > 1.2 * by_step[20]
    assert seconds(FLUX_1_DEV, true_cfg_scale=3) > 2.5 * seconds(FLUX_1_DEV)


def test_a_larger_picture_takes_more_than_its_share_of_pixels() -> None:
    quarter, whole = seconds(FLUX_1_DEV, size="512x512"), seconds(FLUX_1_DEV)
    assert quarter < whole
    assert seconds(FLUX_1_DEV, size="1408x1408") > 1.408**2 / 1.024**2 * whole * 0.95


def test_a_cold_start_is_that_of_the_plan() -> None:
    one = planned(FLUX_1_DEV)
    assert one.loading_s() == cold_start(one.plan, FLUX_1_DEV, storage="volume", is_first=False).total
