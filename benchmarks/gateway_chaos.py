"""Tasks through gateways, Redis, platform and workers that are killed at random moments.

    python -m benchmarks.gateway_chaos --tasks 500 --kills 30

Prints how every task ended, how often clients had to connect again, and what must not have happened and did.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.gateway.chaos import Chaos


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=500)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=float, nargs=2, default=(2.0, 8.0), metavar=("FROM", "TO"), help="seconds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gateway-chaos-") as folder:
        chaos = Chaos(
            Path(folder),
            tasks=options.tasks,
            kills=options.kills,
            seed=options.seed,
            workers=options.workers,
            every_s=tuple(options.every),
            say=lambda line: print(line, flush=True),
        )
        outcome = asyncio.run(chaos.run())
    print(f"{options.tasks} tasks in {outcome.seconds:.0f} s, killed: {dict(outcome.kills)}")
    print(f"ended: {dict(Counter(client.status for client in outcome.clients))}")
    print(f"connections made again: {outcome.reconnections}")
    print(f"creations sent: {sum(client.creations for client in outcome.clients)}")
    print("\n".join(outcome.faults) or "no task was lost, failed, charged twice or told out of order")
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())
