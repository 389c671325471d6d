"""Tables of docs/self-hosting.md: what each part takes, and what follows for 1 to 10,000 jobs a minute.

    python -m benchmarks.scaling                      # measures for a minute, then simulates
    python -m benchmarks.scaling --costs costs.json   # simulates with what was measured before

The GPU's seconds and a cold start are the plan's for one card and model; prices are yours to set.
"""

from __future__ import annotations

import argparse
import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.fleet import table
from benchmarks.scaling.arrivals import BURST_EVERY_S, arrivals
from benchmarks.scaling.measured import RESULT_MB, Costs, measure
from benchmarks.scaling.workers import by_demand, fewest_cards
from flux_engine.models.catalog import find
from flux_engine.models.planning.cold_start import cold_start
from flux_engine.models.planning.gpus import find_card
from flux_engine.models.planning.optimizer import ModelOptimizer

RATES: Final = (1, 10, 100, 1_000, 10_000)
LEAST_JOBS: Final = 300
SHARE: Final = 0.7  # of a core, that one plans with
WAIT_S: Final = 10.0
MONTH_S: Final = 30 * 86_400
S3_PUTS: Final = 3_500  # a second and prefix, as AWS publishes it


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=150, help="tasks that are measured")
    parser.add_argument("--costs", type=Path, help="what was measured: read where it is there, else written")
    parser.add_argument("--gpu", default="L40S")
    parser.add_argument("--model", default="FLUX.1-schnell")
    parser.add_argument("--serverless", type=float, default=1.20, help="price of an hour by the second")
    parser.add_argument("--month", type=float, default=500.0, help="price of a month of one's own card")
    options = parser.parse_args()
    costs = known(options.costs) or asyncio.run(measure(tasks=options.tasks))
    if options.costs is not None:
        options.costs.write_text(costs.to_json())
    job_s, cold_s = model_times(options.gpu, options.model, around_s=costs.around_gpu_s)
    print("\n".join(limits(costs)))
    print(f"\n{options.model} on {options.gpu}: {job_s:.2f} s a job, {cold_s:.0f} s cold start\n")
    print(growth(costs, job_s=job_s, cold_s=cold_s, hour=options.serverless, month=options.month))


def known(file: Path | None) -> Costs | None:
    return Costs.parse(file.read_text()) if file is not None and file.exists() else None


def model_times(gpu: str, model: str, *, around_s: float) -> tuple[float, float]:
    """Seconds of a job and of a cold start, as the plan estimates them for this card."""
    card, spec = find_card(gpu), find(model)
    if card is None or spec is None:
        raise SystemExit(f"no such card or model: {gpu}, {model}")
    plan = ModelOptimizer().plan(card, spec)
    if plan.seconds is None:
        raise SystemExit(f"how fast {gpu} is, is not known")
    return plan.seconds + around_s, cold_start(plan, spec, storage="volume", is_first=False).total


def limits(costs: Costs) -> Iterator[str]:
    """What one of each part carries, in jobs a minute."""
    gateway, redis = 60 / costs.gateway_s, 60 / costs.redis_s
    rows = [
        ("gateway, one process", f"{costs.gateway_s * 1000:.1f} ms of a core a task", f"{gateway:,.0f}"),
        (
            "gateway, streaming results",
            f"{costs.gateway_mb_s:.0f} MB for a second of its core",
            f"{costs.gateway_mb_s / RESULT_MB * 60:,.0f}",
        ),
        (
            "Redis",
            f"{costs.redis_s * 1000:.2f} ms of its core, {costs.redis_commands:.0f} commands a task",
            f"{redis:,.0f}",
        ),
        (
            "shared folder",
            f"{costs.disk_mb_s:.0f} MB/s, each result flushed",
            f"{costs.disk_mb_s / RESULT_MB * 60:,.0f}",
        ),
        ("bucket", f"{S3_PUTS:,} puts a second and prefix (S3, as published)", f"{S3_PUTS * 60:,}"),
    ]
    yield table(("part", "takes", "carries, jobs a minute"), rows)


def growth(costs: Costs, *, job_s: float, cold_s: float, hour: float, month: float) -> str:
    rows = []
    for rate in RATES:
        periods = max(1, round(LEAST_JOBS / rate / (BURST_EVERY_S / 60)))
        for_s = periods * BURST_EVERY_S
        come = list(arrivals(rate, for_s=for_s, chance=random.Random(rate)))
        rented = by_demand(come, job_s=job_s, cold_s=cold_s, least=int(rate / 60 * job_s))
        own = fewest_cards(come, job_s=job_s, wait_s=WAIT_S)
        jobs_a_month = rate * MONTH_S / 60
        rows.append(
            (
                f"{rate:,}",
                f"{rented.most_workers:,}, {rented.waiting_p95_s:.0f} s, {rented.busy_share:.0%}",
                f"{1000 * rented.paid_s * hour / 3600 / len(come):.2f}",
                f"{own.most_workers:,}, {own.waiting_p95_s:.0f} s, {own.busy_share:.0%}",
                f"{1000 * own.most_workers * month / jobs_a_month:.2f}",
                gateways(costs, rate),
                f"{rate / 60 * costs.redis_s:.0%}",
                first_limit(costs, rate),
            )
        )
    head = (
        "jobs a minute",
        "by demand: most workers, waiting p95, GPU share",
        "1,000 jobs, USD",
        "own cards: cards, waiting p95, GPU share",
        "1,000 jobs, USD",
        "gateways",
        "Redis busy",
        "limits first",
    )
    return table(head, rows)


def gateways(costs: Costs, rate: float) -> int:
    """Processes that a burst needs, none busier than `SHARE`."""
    return max(1, -(-int(1000 * rate / 60 * costs.gateway_s / SHARE) // 1000))


def first_limit(costs: Costs, rate: float) -> str:
    """The part that is nearest to what one of it carries."""
    used = {
        "gateway": rate / 60 * costs.gateway_s,
        "Redis": rate / 60 * costs.redis_s,
        "folder": rate / 60 * RESULT_MB / costs.disk_mb_s,
        "bucket": rate / 60 / S3_PUTS,
    }
    name, share = max(used.items(), key=lambda pair: pair[1])
    if share < SHARE:
        return f"GPUs; next {name}, at {share:.0%}"
    over = ", ".join(
        f"{one} {value:.0%}" for one, value in sorted(used.items(), key=lambda pair: -pair[1]) if value >= SHARE
    )
    return f"more than one: {over}"


if __name__ == "__main__":
    main()
