"""An endpoint from 1 to 10,000 jobs a minute, ours against plain, by simulation (benchmarks/simulation.py).

Measured here and taken over as they are: what a worker does beside the model (first look, what is imported later, a
hit, the SDK's idling). Reckoned for the card: a picture and reading the weights, from the plan. Published: the
platform's start of a container and its price. Each is said in `assumed`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from benchmarks.simulation import Fleet, Load, Outcome, WorkerKind, simulate
from benchmarks.suite import record
from benchmarks.suite.samples import median
from flux_engine.models.catalog import FLUX_1_SCHNELL
from flux_engine.models.planning.cold_start import cold_start
from flux_engine.models.planning.gpus import find_card
from flux_engine.models.planning.optimizer import ModelOptimizer

CARD: Final = "RTX 4090"
PRICE_PER_HOUR: Final = 1.12  # of a 24 GB worker, flex, as RunPod lists it; yours is set by GPU_PRICE_PER_HOUR
RATES: Final = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000)
UPLOAD_S: Final = 0.3
ENCODE_S: Final = {"ours": 0.094, "plain": 0.365}  # a PNG of a megapixel, docs/facts.md
SDK_IDLE_S: Final = 0.5  # on average after each job, where nothing wakes it (docs/facts.md)
HIT_SHARE: Final = 0.2
MIXES: Final = {"no repeats": (0.0, 0.0), "20 % repeats": (HIT_SHARE, 0.0), "20 % repeats, FlashBoot": (HIT_SHARE, 0.8)}
CONCURRENCY: Final[dict[str, dict[str, Any]]] = {
    "one, then the next": {"slots": 1},
    "the next once the GPU is free": {"slots": 2, "takes_when": "gpu free"},
    "two, taken ahead": {"slots": 2, "takes_when": "slot free"},
}
FLEETS: Final = {  # for the choice of WORKER_CONCURRENCY: workers that are there, jobs a minute
    "scarce: 1 worker, 90 % busy": (1, 0.9),
    "many: 8 workers, 30 % busy": (8, 0.3),
    "enough: 8 workers, 70 % busy": (8, 0.7),
}


async def measure() -> dict[str, Any]:
    kinds, assumed = _kinds()
    rows = []
    for mix, (hit_share, flashboot) in MIXES.items():
        for rate in RATES:
            load = Load(jobs_per_minute=rate, minutes=max(5.0, min(240.0, 3_000 / rate)), hit_share=hit_share)
            fleet = Fleet(max_workers=100_000, flashboot_share=flashboot, price_per_hour=PRICE_PER_HOUR)
            for kind in kinds:
                rows.append({"mix": mix, "rate": rate, "kind": kind.name, **_said(simulate(kind, fleet, load))})
    return {"rows": rows, "assumed": assumed, "concurrency": _concurrency(kinds[0])}


def _kinds() -> tuple[tuple[WorkerKind, WorkerKind], dict[str, float | str]]:
    """Ours and the plain worker on the card, and what that takes as given."""
    card = find_card(CARD)
    if card is None:
        raise SystemExit(f"{CARD} is not in the table of cards")
    plan = ModelOptimizer().plan(card, FLUX_1_SCHNELL)
    starting = cold_start(plan, FLUX_1_SCHNELL, storage="volume", is_first=False)
    measured = record.read()
    first_look = {
        name: _of(measured, "first look s", name, default) for name, default in (("ours", 1.3), ("plain", 7.5))
    }
    picture = {
        name: _of(measured, "first picture s", name, default) for name, default in (("ours", 5.5), ("plain", 7.0))
    }
    hit_s = median(measured["hits"]["data"]["hit"]["ms"]["ours"]) / 1000 if "hits" in measured else 0.02
    imports_s = max(0.0, picture["ours"] - first_look["ours"] - 1.0)
    weights_s = starting.read + starting.copy
    gpu_s = plan.seconds or 2.0
    ours = WorkerKind(
        name="ours", first_look_s=first_look["ours"], load_s=max(imports_s, starting.read) + starting.copy,
        gpu_s=gpu_s, deliver_s=ENCODE_S["ours"] + UPLOAD_S, slots=2, hit_s=hit_s,
    )  # fmt: skip
    plain = WorkerKind(
        name="plain", first_look_s=first_look["plain"] + weights_s, load_s=0.0,
        gpu_s=gpu_s, deliver_s=ENCODE_S["plain"] + UPLOAD_S, idle_s=SDK_IDLE_S,
    )  # fmt: skip
    assumed: dict[str, float | str] = {
        "card": CARD, "model": FLUX_1_SCHNELL.id, "picture s": gpu_s, "weights s": weights_s, "hit s": hit_s,
        "price per hour": PRICE_PER_HOUR, "upload s": UPLOAD_S, "ours first look s": ours.first_look_s,
        "ours first job s": ours.load_s, "plain first look s": plain.first_look_s,
    }  # fmt: skip
    return (ours, plain), assumed


def _of(measured: dict[str, Any], figure: str, name: str, default: float) -> float:
    return median(measured["cold_start"]["data"]["figures"][figure][name]) if "cold_start" in measured else default


def _said(outcome: Outcome) -> dict[str, float]:
    return {
        "jobs": outcome.jobs,
        "median s": outcome.wait_s(0.5),
        "p95 s": outcome.wait_s(0.95),
        "GPU s per 1000": 1000 * outcome.gpu_busy_s / outcome.jobs,
        "paid s per 1000": outcome.paid_s_per_1000,
        "money per 1000": outcome.money_per_1000,
        "GPU share": outcome.gpu_share,
        "workers": outcome.most_workers,
        "cold starts": outcome.cold_starts,
    }


def _concurrency(ours: WorkerKind) -> list[dict[str, Any]]:
    """What each way of taking jobs gives where warm workers are scarce, many, or enough, by how slow uploads are."""
    rows = []
    for place, (workers, busy) in FLEETS.items():
        for upload_s in (0.05, 0.3, 1.5):
            rate = busy * workers * 60 / ours.gpu_s
            load = Load(jobs_per_minute=rate, minutes=2_000 / rate)
            fleet = Fleet(max_workers=workers, min_workers=workers, idle_timeout_s=float("inf"))
            for way, how in CONCURRENCY.items():
                kind = replace(ours, load_s=0.0, deliver_s=0.1 + upload_s, **how)
                outcome = simulate(kind, fleet, load)
                waits = {"median s": outcome.wait_s(0.5), "p95 s": outcome.wait_s(0.95)}
                rows.append({"fleet": place, "upload s": upload_s, "way": way, **waits})
    return rows
