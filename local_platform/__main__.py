"""A whole RunPod on this machine, for developing a client against: `python -m local_platform --workers 2 --port 8000`.

The workers are the real handler. Variables of the worker (`FLUX_MODEL`, `OUTPUT_DIR`, ...) are passed on to them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from collections.abc import Sequence

from flux_engine.settings import Settings
from local_platform.faults import FaultPlan
from local_platform.job import Limits
from local_platform.processes import WorkerDied
from local_platform.server import Platform
from local_platform.workers import WorkerPool


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    asyncio.run(_serve(options))


async def _serve(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    limits = Limits(lease_s=options.lease, execution_timeout_s=options.execution_timeout)
    faults = FaultPlan(rates=dict(options.fault), seed=options.seed)
    async with Platform(options.endpoint, port=options.port, limits=limits, faults=faults) as platform:
        async with WorkerPool(platform, environment=_settings(), on_line=_print_line) as pool:
            print(_greeting(platform), flush=True)
            tasks = [asyncio.create_task(stop.wait()), asyncio.create_task(_keep(pool, options.workers))]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _keep(pool: WorkerPool, count: int) -> None:
    """Until a worker cannot be started, which is said."""
    try:
        await pool.keep(count, say=_print)
    except (WorkerDied, TimeoutError) as error:
        print(error, flush=True)


def _settings() -> dict[str, str]:
    names = [name.upper() for name in Settings.model_fields]
    return {name: os.environ[name] for name in names if name in os.environ}


def _greeting(platform: Platform) -> str:
    base, endpoint = platform.client_url, platform.endpoint.id
    return "\n".join(
        [
            f"endpoint   {base}/{endpoint}",
            f'python     runpod.endpoint_url_base = "{base}"; runpod.Endpoint("{endpoint}")',
            f"           or set RUNPOD_ENDPOINT_BASE_URL={base} before runpod is imported",
            f"health     curl -s -H 'Authorization: Bearer local' {base}/{endpoint}/health",
            f'a job      curl -s -H \'Authorization: Bearer local\' -d \'{{"input": {{"prompt": "a red sun"}}}}\' '
            f"{base}/{endpoint}/runsync",
            f"openai     OPENAI_BASE_URL={platform.openai_url}",
            "Any API key will do. Ctrl-C ends the platform and its workers.",
        ]
    )


def _print(line: str) -> None:
    print(line, flush=True)


def _print_line(worker: str, line: str) -> None:
    _print(f"{worker} | {line}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m local_platform", description=__doc__)
    parser.add_argument("--workers", type=int, default=1, help="worker processes (default 1)")
    parser.add_argument("--port", type=int, default=8000, help="port on 127.0.0.1, 0 for any (default 8000)")
    parser.add_argument("--endpoint", default="local", help="endpoint id (default local)")
    parser.add_argument("--lease", type=float, default=30, help="seconds until a silent worker loses its jobs")
    parser.add_argument("--execution-timeout", type=float, default=600, help="seconds that a job may run")
    parser.add_argument(
        "--fault",
        type=_fault,
        action="append",
        default=[],
        metavar="KIND=RATE",
        help="strike that share of the workers' requests, such as reset=0.1; may be given several times",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the faults")
    return parser


def _fault(text: str) -> tuple[str, float]:
    kind, _, rate = text.partition("=")
    return kind, float(rate)


if __name__ == "__main__":
    main()
