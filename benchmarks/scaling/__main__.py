"""Tables of docs/self-hosting.md: what each part takes, and what follows for 1 to 10,000 jobs a minute.

    python -m benchmarks.scaling                      # measures for a minute, then simulates
    python -m benchmarks.scaling --costs costs.json   # simulates with what was measured before

The GPU's seconds and a cold start are the plan's for one card and model; prices are yours to set.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Final

from benchmarks.fleet import table
from benchmarks.scaling.growth import (
    PLANNED_SHARE,
    Prices,
    gateways,
    money_per_1000,
    own,
    rented,
    shares,
)
from benchmarks.scaling.measured import RESULT_MB, Costs, measure
from benchmarks.simulation import WorkerKind
from flux_engine.models.catalog import find
from flux_engine.models.planning.cold_start import cold_start
from flux_engine.models.planning.gpus import find_card
from flux_engine.models.planning.optimizer import ModelOptimizer

RATES: Final = (1, 10, 100, 1_000, 10_000)
IMPORTS_S: Final = 8.0  # of a cold start, before a worker first looks for a job


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=150, help="tasks that are measured")
    parser.add_argument("--costs", type=Path, help="what was measured: read where it is there, else written")
    parser.add_argument("--gpu", default="L40S")
    parser.add_argument("--model", default="FLUX.1-schnell")
    parser.add_argument("--serverless", type=float, default=1.20, help="price of an hour by the second, USD")
    parser.add_argument("--month", type=float, default=500.0, help="price of a month of one's own card, USD")
    parser.add_argument(
        "--bucket", default="moto, a stand-in", help="what serves S3 at BUCKET_ENDPOINT_URL, where that is set"
    )
    options = parser.parse_args()
    costs = known(options.costs) or asyncio.run(measure(tasks=options.tasks))
    if options.costs is not None:
        options.costs.write_text(costs.to_json())
    kind = kind_of(options.gpu, options.model, deliver_s=costs.around_gpu_s)
    cold_s = kind.first_look_s + kind.load_s
    print(parts(costs, server=options.bucket))
    print(
        f"\n{options.model} on {options.gpu}: {kind.gpu_s:.2f} s on the GPU, {kind.deliver_s:.2f} s beside it, "
        f"{cold_s:.0f} s from a cold start\n"
    )
    print(by_rate(costs, kind, Prices(hour=options.serverless, month=options.month)))


def known(file: Path | None) -> Costs | None:
    return Costs.parse(file.read_text()) if file is not None and file.exists() else None


def kind_of(gpu: str, model: str, *, deliver_s: float) -> WorkerKind:
    """A worker with this card, as the plan estimates it."""
    card, spec = find_card(gpu), find(model)
    if card is None or spec is None:
        raise SystemExit(f"no such card or model: {gpu}, {model}")
    plan = ModelOptimizer().plan(card, spec)
    if plan.seconds is None:
        raise SystemExit(f"how fast {gpu} is, is not known")
    cold_s = cold_start(plan, spec, storage="volume", is_first=False).total
    return WorkerKind(
        name=gpu, first_look_s=IMPORTS_S, load_s=cold_s - IMPORTS_S, gpu_s=plan.seconds, deliver_s=deliver_s
    )


def parts(costs: Costs, *, server: str) -> str:
    """What one of each part carries."""
    rows = [
        ("a gateway's process", f"{costs.gateway_s * 1000:.1f} ms of a core a task", 60 / costs.gateway_s),
        (
            "the same, streaming results",
            f"{costs.gateway_mb_s:.0f} MB for a second of its core",
            60 * costs.gateway_mb_s / RESULT_MB,
        ),
        (
            "Redis",
            f"{costs.redis_s * 1000:.2f} ms of its core, {costs.redis_commands:.0f} commands a task",
            60 / costs.redis_s,
        ),
        ("a shared folder", f"{costs.disk_mb_s:.0f} MB/s, each result flushed", 60 * costs.disk_mb_s / RESULT_MB),
        (
            f"a bucket: {server}",
            f"{costs.bucket_puts_s:.0f} puts a second of {RESULT_MB} MB",
            60 * costs.bucket_puts_s,
        ),
    ]
    return table(("part", "takes", "carries, jobs a minute"), [(*row[:2], f"{row[2]:,.0f}") for row in rows])


def by_rate(costs: Costs, kind: WorkerKind, prices: Prices) -> str:
    rows = []
    for rate in RATES:
        come_and_go = rented(kind, rate, price=prices.hour)
        stay = own(kind, rate)
        rows.append(
            (
                f"{rate:,}",
                f"{come_and_go.most_workers:,}",
                f"{come_and_go.wait_s(0.95):.0f} s",
                f"{come_and_go.gpu_share:.0%}",
                f"{come_and_go.money_per_1000:.2f}",
                f"{stay.most_workers:,}",
                f"{stay.wait_s(0.95):.0f} s",
                f"{stay.gpu_share:.0%}",
                f"{money_per_1000(stay.most_workers, rate, month=prices.month):.2f}",
                gateways(costs, rate),
                first_limit(costs, rate),
            )
        )
    by_second = ("workers by the second, most", "result p95", "GPU share", "1,000 jobs, USD")
    by_month = ("own cards", "result p95", "GPU share", "1,000 jobs, USD")
    return table(("jobs a minute", *by_second, *by_month, "gateways", "limits first, in a burst"), rows)


def first_limit(costs: Costs, rate: float) -> str:
    used = shares(costs, rate)
    full = [f"{name} {share:.0%}" for name, share in used.items() if share > PLANNED_SHARE]
    if full:
        return "more than one: " + ", ".join(full)
    name, share = next(iter(used.items()))
    return f"the GPUs; next the {name}, {share:.0%} full"


if __name__ == "__main__":
    main()
