"""Which plan a job runs by, after memory has run out for some."""

from __future__ import annotations

import pytest

from flux_engine.errors import OutOfMemory
from flux_engine.models.catalog import FLUX_1_DEV
from flux_engine.models.planning.gpus import find_card
from flux_engine.models.planning.optimizer import ModelOptimizer
from flux_engine.models.planning.plan import Plan
from flux_engine.models.steps import PATIENCE_JOBS, Demand, PlanSteps

LARGE, SMALL = Demand(pixels=2_000_000), Demand(pixels=1_000_000)
MANY_LORAS = Demand(pixels=1_000_000, lora_bytes=5_000)


def best() -> Plan:
    card = find_card("A10G")
    assert card is not None
    plan = ModelOptimizer().plan(card, FLUX_1_DEV)
    assert plan.leaner() is not None
    return plan


@pytest.mark.parametrize(
    ("ran_out", "later", "is_better"),
    [
        (LARGE, SMALL, True),
        (LARGE, LARGE, False),
        (SMALL, LARGE, False),
        (MANY_LORAS, SMALL, True),
        (MANY_LORAS, LARGE, False),  # more of one thing: unknown
        (LARGE, MANY_LORAS, False),
        (Demand(), Demand(), False),
    ],
)
def test_a_job_that_needs_less_runs_by_the_better_plan(ran_out: Demand, later: Demand, is_better: bool) -> None:
    plan = best()
    steps = PlanSteps(plan)
    assert steps.take(ran_out) is plan
    steps.step_down(ran_out)
    assert steps.current.peak_bytes < plan.peak_bytes
    assert (steps.plan_for(later) is plan) is is_better
    assert (steps.take(later) is plan) is is_better


def test_a_job_that_runs_out_again_goes_further_down() -> None:
    steps = PlanSteps(best())
    peaks = [steps.take(LARGE).peak_bytes]
    while steps.current.leaner() is not None:
        steps.step_down(LARGE)
        peaks.append(steps.current.peak_bytes)
    with pytest.raises(OutOfMemory, match="smaller picture"):
        steps.step_down(LARGE)
    assert peaks == sorted(set(peaks), reverse=True)
    assert steps.take(LARGE).peak_bytes == peaks[-1]
    assert steps.take(SMALL).peak_bytes == peaks[0]


def test_the_better_plan_is_tried_again_after_a_while_and_after_a_longer_one() -> None:
    plan = best()
    steps = PlanSteps(plan)
    waited = []
    for _ in range(3):
        steps.step_down(LARGE)
        jobs = 0
        while steps.take(LARGE) is not plan:
            jobs += 1
        waited.append(jobs)
    assert waited == [PATIENCE_JOBS, 2 * PATIENCE_JOBS, 4 * PATIENCE_JOBS]


def test_nothing_is_compiled_where_compiled_code_does_not_run() -> None:
    plan = best()
    assert plan.compile
    steps = PlanSteps(plan)
    steps.give_up_compiling("no kernel for this card")
    assert (steps.current.compile, steps.current.lora_mode) == (False, "adapters")
    assert "no kernel" in steps.current.reasons["compile"]
    steps.step_down(LARGE)
    assert steps.plan_for(LARGE).compile is False


def test_a_controlnet_beside_the_model_takes_a_plan_with_room_for_it() -> None:
    """FLUX.1 with all its weights in bf16 leaves an L40S no room for 6.6 GB; the next plan does."""
    card = find_card("L40S")
    assert card is not None
    plan = ModelOptimizer().plan(card, FLUX_1_DEV)
    steps = PlanSteps(plan)
    needed = plan.limit_bytes - plan.peak_bytes + 1
    beside = steps.plan_for(Demand(beside_bytes=needed))
    assert steps.plan_for(Demand(beside_bytes=needed - 1)) is plan
    assert beside.peak_bytes + needed <= beside.limit_bytes
    assert steps.plan_for(Demand()) is plan
