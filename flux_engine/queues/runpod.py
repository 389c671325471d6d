"""RunPod's queue over HTTP: `/run`, `/status`, `/cancel` and `/health` of one endpoint.

Asked of RunPod directly, not through its SDK, whose client blocks and retries by its own rules. The connection pool is
kept; an answer is read whole, and anything but JSON is an error of the queue's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import httpx2

from flux_engine.queues.job_queue import QueueAway, QueuedJob, QueueHealth, QueueRefused, Rates, Report, State

CONNECT_S: Final = 5.0
ANSWER_S: Final = 20.0
CONNECTIONS: Final = 64
MIN_TIMEOUT_S: Final = 6  # the platform takes more than 5
CANCELS_AT_ONCE: Final = 10
STATES: Final[Mapping[str, State]] = {
    "IN_QUEUE": "queued",
    "IN_PROGRESS": "running",
    "COMPLETED": "completed",
    "FAILED": "failed",
    "CANCELLED": "cancelled",
    "TIMED_OUT": "timed_out",
}


class RunPodQueue:
    """A JobQueue. For one event loop.

    queue = RunPodQueue("abc123", api_key="...", base_url="https://api.runpod.ai/v2")
    """

    name: Final = "runpod"
    # RunPod takes 1,000 runs, 2,000 status reads and 100 cancels in 10 s; a tenth is left to whoever else asks.
    rates: Final = Rates(submit=90.0, status=180.0, cancel=9.0)

    def __init__(self, endpoint_id: str, *, api_key: str, base_url: str) -> None:
        self._cancels = asyncio.Semaphore(CANCELS_AT_ONCE)
        self._client = httpx2.AsyncClient(
            base_url=f"{base_url}/{endpoint_id}/",
            headers={"Authorization": f"Bearer {api_key}"},
            timeout=httpx2.Timeout(ANSWER_S, connect=CONNECT_S),
            limits=httpx2.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS),
            follow_redirects=False,
            trust_env=False,
        )

    async def submit(self, job: QueuedJob) -> str:
        body: dict[str, Any] = {"input": job.wire_input()}
        if job.webhook is not None:
            body["webhook"] = job.webhook
        policy: dict[str, Any] = {}
        if job.timeout_s is not None:
            policy["executionTimeout"] = round(max(job.timeout_s, MIN_TIMEOUT_S) * 1000)
        if job.priority == "low":
            policy["lowPriority"] = True
        if policy:
            body["policy"] = policy
        answer = await self._ask("POST", "run", body)
        ticket = answer.get("id")
        if not isinstance(ticket, str) or not ticket:
            raise QueueAway("the queue's answer to a job has no id")
        return ticket

    async def status(self, ticket: str) -> Report:
        try:
            return _report(await self._ask("GET", f"status/{ticket}"))
        except _Unknown:
            return Report(state="unknown")

    async def cancel(self, ticket: str) -> Report:
        async with self._cancels:
            try:
                return _report(await self._ask("POST", f"cancel/{ticket}"))
            except _Unknown:
                return Report(state="unknown")

    async def health(self) -> QueueHealth:
        try:
            answer = await self._ask("GET", "health")
        except _Unknown:
            raise QueueRefused("the queue answers 404 to /health: there is no such endpoint") from None
        return QueueHealth(workers=_counts(answer.get("workers")), jobs=_counts(answer.get("jobs")))

    async def close(self) -> None:
        await self._client.aclose()

    async def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        try:
            response = await self._client.request(method, path, json=body)
        except httpx2.HTTPError as error:
            raise QueueAway(f"the queue does not answer ({type(error).__name__})") from error
        status = response.status_code
        if status == 404 and path != "run":
            raise _Unknown
        if status == 429 or status >= 500:
            raise QueueAway(f"the queue answers {status}", retry_after_s=_retry_after(response.headers))
        if status >= 400:
            raise QueueRefused(f"the queue answers {status} to /{path.partition('/')[0]}")
        try:
            answer = response.json()
        except ValueError as error:
            raise QueueAway("the queue's answer is not JSON") from error
        if not isinstance(answer, dict):
            raise QueueAway("the queue's answer is no JSON object")
        return answer


class _Unknown(Exception):
    """The platform has no such job, or none any more."""


def _report(answer: Mapping[str, Any]) -> Report:
    """Raises QueueAway for a state that RunPod does not have."""
    state = STATES.get(str(answer.get("status")))
    if state is None:
        raise QueueAway("the queue's answer holds no state")
    output, error = answer.get("output"), answer.get("error")
    return Report(
        state=state,
        progress=output if state == "running" and isinstance(output, dict) else None,
        output=output if state == "completed" and isinstance(output, dict) else None,
        error=str(error) if error is not None else None,
    )


def _counts(value: object) -> dict[str, int]:
    held = value if isinstance(value, dict) else {}
    return {str(name): count for name, count in held.items() if isinstance(count, int)}


def _retry_after(headers: Mapping[str, str]) -> float:
    try:
        return min(max(float(headers.get("retry-after", "1")), 0.1), 60.0)
    except ValueError:
        return 1.0
