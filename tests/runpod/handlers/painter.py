"""A small real handler that answers in the contract's shape, for tests of clients: it paints nothing.

Its "pictures" are hashes of the seed. `prompt` may order a failure: `fails once` (retryable, the second try succeeds),
`fails` (not retryable), `fails always` (retryable), `wrong hash`, `no result`, `slow`. `until /a/file` is done once the
file is there; `in silence` posts no progress.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import threading
from pathlib import Path
from typing import Any

import runpod


def painted(seed: int) -> bytes:
    return hashlib.sha256(str(seed).encode()).digest() * 20


async def handler(job: dict[str, Any]) -> dict[str, Any]:
    order, tried = job["input"], Path.home() / f"tried-{job['id']}"
    is_first = not tried.exists()
    tried.touch()
    if "op" in order:
        return {"op": order["op"], "given": order}
    prompt, seed = order["prompt"], order["seed"]
    if prompt == "fails" or prompt == "fails always" or (prompt == "fails once" and is_first):
        code = "invalid_input" if prompt == "fails" else "storage_failed"
        error = {"code": code, "message": "as ordered", "field": "prompt", "retryable": code != "invalid_input"}
        return {"error": json.dumps(error | {"job_id": job["id"]})}
    if prompt == "no result":
        return {"output": None}
    preview = "data:image/webp;base64," + base64.b64encode(b"preview").decode()
    telling: list[threading.Thread] = []
    for step in (1, 2) if prompt != "in silence" else ():
        update = {"stage": "denoising", "progress": step / 3, "step": step, "total_steps": 2, "preview": preview}
        before = set(threading.enumerate())
        runpod.serverless.progress_update(job, update)
        telling += set(threading.enumerate()) - before
        await asyncio.sleep(600 if prompt == "slow" else 0.3)
    while prompt.startswith("until ") and not Path(prompt.removeprefix("until ")).exists():  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    for thread in telling:  # a progress that comes after the result reopens the job for ever
        await asyncio.to_thread(thread.join)
    data = painted(seed)
    image = {
        "b64_json": base64.b64encode(data).decode(),
        "content_type": "image/png",
        "width": 8,
        "height": 8,
        "seed": seed,
        "sha256": hashlib.sha256(b"another" if prompt == "wrong hash" else data).hexdigest(),
        "bytes": len(data),
    }
    return {"images": [image], "seed": seed, "model": {"id": "none"}, "cached": False, "warnings": [], "parameters": {}}


if __name__ == "__main__":
    runpod.serverless.start({"handler": handler})
