"""The worker's way in: wiring and `runpod.serverless.start`, nothing else.

    python handler.py                              runs test_input.json beside this file
    python handler.py --test_input                 the same
    python handler.py --test_input '{"input": {"prompt": "a red sun"}}'
    python handler.py --rp_serve_api               serves POST /run and /runsync on this machine

On RunPod the platform starts it and hands it jobs. Nothing imports torch or starts a thread before a job needs it:
the platform's ping process is forked after this module's import.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

gc.disable()  # imports leave no garbage, and looking for it takes a tenth of their time
os.environ.setdefault("RUNPOD_LOG_LEVEL", "INFO")  # read at import; the default logs prompts and results

from flux_engine.build import build_checks, build_worker, try_own_bucket
from flux_engine.cli.local import TestInputError, print_summary, with_test_input
from flux_engine.health import Unfit
from flux_engine.logs import set_up_logs
from flux_engine.runpod_sdk.draining import GracefulStop
from flux_engine.runpod_sdk.results import Unprinted, retry_results
from flux_engine.runpod_sdk.scaler import Deliveries, wake_on_events
from flux_engine.runpod_sdk.sdk import import_runpod
from flux_engine.runpod_sdk.senders import part_sender, progress_sender
from flux_engine.settings import Settings, SettingsError
from flux_engine.worker.worker import Worker

runpod = import_runpod()
gc.freeze()  # what is imported stays: no later collection walks it
gc.enable()

TEST_INPUT = Path(__file__).with_name("test_input.json")


def main() -> None:
    is_on_platform = "RUNPOD_WEBHOOK_GET_JOB" in os.environ
    is_serving = "--rp_serve_api" in sys.argv
    if is_on_platform:
        # The kernel ends process 1 only by a signal that it handles, and the SDK does so when its loop begins.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        settings = Settings.from_environment(os.environ)
        set_up_logs(settings.log_level, as_json=is_on_platform)
        worker = build_worker(settings, is_local=not is_on_platform and not is_serving)
        if not is_on_platform:  # there the SDK runs all checks itself
            try_own_bucket(settings)
    except (SettingsError, Unfit) as error:
        sys.exit(f"The worker cannot start: {error}")
    if is_on_platform or is_serving:
        serve(worker, settings)
    else:
        run_once(worker)


def serve(worker: Worker, settings: Settings) -> None:
    """Take jobs from the platform until it asks this process to end; exits with 1 where the device was lost."""
    warming: list[asyncio.Task[None]] = []
    stop, deliveries = GracefulStop(), Deliveries()
    slots = max(2, settings.worker_concurrency)  # a job is delivered beside the next one

    async def handler(job: dict[str, Any]) -> dict[str, Any]:
        on_made = partial(deliveries.begin, job["id"])
        result = await worker.run(job, progress_sender(job), stream=part_sender(job), on_made=on_made)
        end_if_broken()
        return Unprinted(result)

    async def warm() -> None:
        await worker.warm()
        end_if_broken()

    def end_if_broken() -> None:
        if worker.is_broken:
            stop.begin("the device is lost")

    def concurrency(_current: int) -> int:
        """Called before every take, within the running loop: the first moment when warming may begin."""
        if settings.warmup == "eager" and not warming:
            warming.append(asyncio.get_running_loop().create_task(warm()))
        return stop.concurrency(slots)

    for check in build_checks(settings):
        runpod.serverless.register_fitness_check(check)
    retry_results()
    wake_on_events(settings.worker_concurrency, deliveries)
    stop.install()
    with contextlib.suppress(asyncio.CancelledError):  # the end of GracefulStop
        runpod.serverless.start({"handler": handler, "concurrency_modifier": concurrency})
    if worker.is_broken:
        sys.exit("The device is lost; only another process can bring it back.")


def run_once(worker: Worker) -> None:
    """The one job of `--test_input`, with a summary for a reader."""
    try:
        sys.argv[1:] = with_test_input(sys.argv[1:], TEST_INPUT)
    except TestInputError as error:
        sys.exit(str(error))
    results: list[dict[str, Any]] = []

    async def handler(job: dict[str, Any]) -> dict[str, Any]:
        result = await worker.run(job)
        results.append(dict(result))  # the SDK takes `error` out of the dictionary it is handed
        await worker.close()  # no other job comes
        return result

    try:
        runpod.serverless.start({"handler": handler})
    finally:
        for result in results:
            print_summary(result)


if __name__ == "__main__":
    main()
