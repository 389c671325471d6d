"""Tasks through gateways, Redis, platform and workers that are killed at random moments.

    python -m benchmarks.gateway_chaos --tasks 500 --kills 30
    python -m benchmarks.gateway_chaos --tasks 500 --kills 30 --queue celery

Prints how every task ended, how often clients had to connect again, and what must not have happened and did: a task
that is lost or failed, a picture that differs from an undisturbed worker's or was made again although the bucket had
it, events out of order, a wrong charge. A picture that a kill takes away before the bucket has it is made again, which
is counted and no fault.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.gateway.chaos.storm import Storm


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=500)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--queue", choices=("runpod", "celery"), default="runpod")
    parser.add_argument("--keep", type=Path, help="folder for the logs of all processes, kept")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=float, nargs=2, default=(2.0, 8.0), metavar=("FROM", "TO"), help="seconds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gateway-chaos-") as folder:
        storm = Storm(
            options.keep or Path(folder),
            queue=options.queue,
            tasks=options.tasks,
            kills=options.kills,
            seed=options.seed,
            workers=options.workers,
            every_s=tuple(options.every),
            say=lambda line: print(line, flush=True),
        )
        outcome = asyncio.run(storm.run())
    print(f"{options.tasks} tasks in {outcome.seconds:.0f} s, killed: {dict(outcome.kills)}")
    print(f"ended: {dict(Counter(client.status for client in outcome.clients))}")
    print(f"connections made again: {outcome.reconnections}")
    print(f"pictures by how often they were made: {dict(sorted(outcome.made.items()))}")
    print(f"pictures made again that the bucket had: {len(outcome.made_after_stored)}")
    print(f"creations sent: {sum(client.creations for client in outcome.clients)}")
    print(
        "\n".join(outcome.faults)
        or "no task was lost, failed, charged twice, told out of order or made again once it was stored"
    )
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())
