"""A small real handler for tests of the stand-in itself: it does what its input says, through the real SDK.

sleep_s     wait that long          progress    an update, posted before the result
block_s     stop all else as well   bytes       size of the output
raises      raise an exception      error       the text of an error
refresh     ask for a new worker
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import runpod


async def handler(job: dict[str, Any]) -> dict[str, Any]:
    order = job["input"]
    if "progress" in order:
        runpod.serverless.progress_update(job, order["progress"])
    await asyncio.sleep(order.get("sleep_s", 0))
    time.sleep(order.get("block_s", 0))  # noqa: ASYNC251  # as a handler does that is a plain function
    if "raises" in order:
        raise RuntimeError(order["raises"])
    if "error" in order:
        return {"error": order["error"]}
    answer = {"id": job["id"], "echo": order.get("echo"), "filler": "x" * order.get("bytes", 0)}
    return answer | ({"refresh_worker": True} if order.get("refresh") else {})


if __name__ == "__main__":
    runpod.serverless.start({"handler": handler})
