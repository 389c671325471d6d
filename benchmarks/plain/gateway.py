"""The plain gateway: FastAPI in front of an endpoint, a thread a job, tasks in a dictionary.

It asks for no key, limits nothing, forgets its tasks when it ends, and is one process: a second would not know them.
"""

from __future__ import annotations

import os
import threading
import uuid
from typing import Any

import runpod
import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

app = FastAPI()
tasks: dict[str, dict[str, Any]] = {}
runpod.api_key = os.environ["RUNPOD_API_KEY"]
endpoint = runpod.Endpoint(os.environ["RUNPOD_ENDPOINT_ID"])


class Order(BaseModel):
    prompt: str
    width: int = 1024
    height: int = 1024
    steps: int = 28
    seed: int = 0


@app.post("/tasks", status_code=202)
def create(order: Order) -> dict[str, str]:
    task_id = uuid.uuid4().hex
    tasks[task_id] = {"status": "processing"}
    threading.Thread(target=_make, args=(task_id, order.model_dump()), daemon=True).start()
    return {"task_id": task_id}


@app.get("/tasks/{task_id}")
def status(task_id: str) -> dict[str, Any]:
    if task_id not in tasks:
        raise HTTPException(404)
    return tasks[task_id]


def _make(task_id: str, order: dict[str, Any]) -> None:
    try:
        tasks[task_id] = {"status": "completed", "result": endpoint.run_sync({"input": order}, timeout=600)}
    except Exception as error:  # noqa: BLE001 - as a plain gateway does it
        tasks[task_id] = {"status": "failed", "error": str(error)}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="error")
