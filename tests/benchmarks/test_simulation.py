"""The simulated endpoint against what can be worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from benchmarks.simulation import Fleet, Load, Outcome, WorkerKind, simulate

PLAIN = WorkerKind(name="plain", first_look_s=6.0, load_s=0.0, gpu_s=2.0, deliver_s=0.5, idle_s=0.5)
OURS = WorkerKind(name="ours", first_look_s=1.0, load_s=4.0, gpu_s=2.0, deliver_s=0.5, slots=2, hit_s=0.02)
OWN_CARDS = Fleet(max_workers=1, min_workers=1, idle_timeout_s=math.inf, price_per_hour=3.6)
SERVERLESS = Fleet(max_workers=50, price_per_hour=3.6)
FLOOD = Load(jobs_per_minute=100, minutes=10)


def spans(outcome: Outcome) -> float:
    return outcome.worker_s / outcome.jobs


@pytest.mark.parametrize(("kind", "seconds_a_job"), [(PLAIN, 3.0), (replace(PLAIN, idle_s=0.0), 2.5), (OURS, 2.0)])
def test_a_worker_that_is_never_idle_takes_what_a_job_holds_it_for(kind: WorkerKind, seconds_a_job: float) -> None:
    outcome = simulate(kind, OWN_CARDS, FLOOD)
    assert spans(outcome) == pytest.approx(seconds_a_job, rel=0.01)
    assert outcome.gpu_share == pytest.approx(2.0 / seconds_a_job, rel=0.01)
    assert outcome.money_per_1000 == pytest.approx(seconds_a_job, rel=0.01)  # a thousandth of the price a second


def test_alone_on_a_warm_worker_a_job_waits_for_itself_only() -> None:
    outcome = simulate(PLAIN, replace(OWN_CARDS, max_workers=99, min_workers=99), Load(jobs_per_minute=3, minutes=60))
    assert outcome.wait_s(0.95) == pytest.approx(2.5)
    assert outcome.cold_starts == 0
    assert outcome.worker_s == pytest.approx(99 * 3600, rel=0.01)


@pytest.mark.parametrize(("kind", "first_s"), [(PLAIN, 4 + 8 + 6 + 2.5), (OURS, 4 + 8 + 1 + 4 + 2.5)])
def test_the_first_job_waits_for_a_worker(kind: WorkerKind, first_s: float) -> None:
    outcome = simulate(kind, SERVERLESS, Load(jobs_per_minute=1, minutes=60))
    assert max(outcome.waits_s) == pytest.approx(first_s)
    assert outcome.cold_starts > 20  # all but those that come right after another


def test_a_woken_worker_costs_no_cold_start() -> None:
    outcome = simulate(OURS, replace(SERVERLESS, flashboot_share=1.0), Load(jobs_per_minute=1, minutes=60))
    assert outcome.cold_starts == 0
    assert max(outcome.waits_s) == pytest.approx(4 + 1 + 2.5)


def test_repeats_take_no_gpu_where_they_are_cached() -> None:
    load = Load(jobs_per_minute=60, minutes=30, hit_share=0.5)
    made, cached = simulate(PLAIN, SERVERLESS, load), simulate(OURS, SERVERLESS, load)
    assert made.jobs == cached.jobs == made.made
    assert cached.made / cached.jobs == pytest.approx(0.5, abs=0.05)
    at_the_gateway = simulate(replace(OURS, hits_need_no_worker=True), SERVERLESS, load)
    assert at_the_gateway.made == cached.made
    assert at_the_gateway.wait_s(0.25) == 0.02


def test_a_job_taken_ahead_waits_behind_another_though_a_worker_idles() -> None:
    load, six = Load(jobs_per_minute=60, minutes=60), replace(OWN_CARDS, max_workers=6, min_workers=6)
    ahead, when_free = simulate(replace(OURS, takes_when="slot free"), six, load), simulate(OURS, six, load)
    assert when_free.wait_s(0.9) == pytest.approx(2.5)  # six are enough
    assert ahead.wait_s(0.9) > 1.2 * when_free.wait_s(0.9)


@pytest.mark.parametrize("burst", [1.0, 8.0])
def test_bursts_change_when_jobs_come_and_not_how_many(burst: float) -> None:
    moments = [moment for moment, _ in Load(jobs_per_minute=100, minutes=60, burst=burst).arrivals()]
    assert len(moments) == pytest.approx(6000, rel=0.05)
    in_bursts = sum(moment % 300 < 30 for moment in moments) / len(moments)
    assert in_bursts == pytest.approx(0.1 * burst / (0.9 + 0.1 * burst), abs=0.02)
