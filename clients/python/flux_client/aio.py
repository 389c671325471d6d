"""AsyncFluxClient: an endpoint for code with asyncio.

async with AsyncFluxClient("endpoint-id", api_key=...) as client:
    result = await client.run({"prompt": "a red sun", "seed": 7})
    await client.save(result.images[0], "sun.png")

    job = await client.submit({"prompt": "a white moon"})
    async for progress in job:                 # until it is finished
        print(progress.stage, progress.progress)
    result = await job.result()
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx2

from flux_client.client import BASE_URL, TIMEOUT_S, AnyJob, answer_of, authorization, enveloped, saved, sent_as
from flux_client.protocol import Answer, Endpoint, Script, Send, Wait, with_seed
from flux_client.result import File, Progress, Result

Value = TypeVar("Value")


class AsyncFluxClient:
    """Calls of one endpoint, any number at a time. `api_key` is RUNPOD_API_KEY where it is not given."""

    def __init__(
        self, endpoint_id: str, *, api_key: str | None = None, base_url: str = BASE_URL, tries: int = 6
    ) -> None:
        self._endpoint = Endpoint(base_url=f"{base_url}/{endpoint_id}", tries=tries)
        self._headers = authorization(api_key)
        self._http = httpx2.AsyncClient(timeout=TIMEOUT_S)

    async def run(self, job: AnyJob, *, policy: Mapping[str, Any] | None = None) -> Result:
        """Have a job done; `policy` is the platform's (`executionTimeout`, `ttl`). Raises FluxClientError."""
        return await self._value(self._endpoint.run(job, enveloped(policy)))

    async def submit(self, job: AnyJob, *, policy: Mapping[str, Any] | None = None) -> AsyncJob:
        """Hand over a job. Raises FluxClientError."""
        seeded, envelope = with_seed(job), enveloped(policy)
        return AsyncJob(self, await self._value(self._endpoint.submit(seeded, envelope)), seeded, envelope)

    def job(self, job_id: str) -> AsyncJob:
        """A job that was submitted before, here or elsewhere."""
        return AsyncJob(self, job_id)

    async def capabilities(self) -> dict[str, Any]:
        """What the endpoint serves: models, schemas of jobs, limits, LoRAs."""
        return await self._value(self._endpoint.ask({"op": "capabilities"}))

    async def estimate(self, job: AnyJob) -> dict[str, Any]:
        """What `job` would take, without having it done."""
        return await self._value(self._endpoint.ask({**job, "op": "estimate"}))

    async def read(self, file: File) -> bytes:
        """The bytes of a result's file, checked against its hash."""
        return await self._value(self._endpoint.read(file))

    async def save(self, file: File, path: str | os.PathLike[str]) -> Path:
        """Write a result's file; it appears whole or not at all."""
        return await asyncio.to_thread(saved, await self.read(file), path)

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def cancel(self, job_id: str) -> None:
        await self._value(self._endpoint.cancel(job_id))

    def follow(self, job: AsyncJob) -> Script[Any]:
        """For AsyncJob."""
        return self._endpoint.finish(
            job.id, job.job, envelope=job.envelope, renamed=job.renamed, is_cancelled=lambda: job.is_cancelled
        )

    async def _value(self, script: Script[Value]) -> Value:
        ended: list[Value] = []
        async for _ in self.steps(script, ended):
            pass
        return ended[0]

    async def steps(self, script: Script[Value], ended: list[Value]) -> AsyncIterator[Progress]:
        """Carry `script` out; its progress on the way, its value in `ended`."""
        answer: Answer | None = None
        while True:
            try:
                step = script.send(answer)
            except StopIteration as end:
                ended.append(end.value)
                return
            answer = None
            if isinstance(step, Send):
                answer = await self._sent(step)
            elif isinstance(step, Wait):
                await asyncio.sleep(step.seconds)
            else:
                yield step

    async def _sent(self, request: Send) -> Answer:
        try:
            response = await self._http.request(request.method, request.url, **sent_as(request, self._headers))
        except httpx2.RequestError as error:
            return Answer(0, type(error).__name__.encode())
        return answer_of(response)


class AsyncJob:
    """A job on its way: iterate over its progress, then take its result. `id` is another one where the platform forgot
    the job and it was submitted again."""

    def __init__(
        self,
        client: AsyncFluxClient,
        job_id: str,
        job: Mapping[str, Any] | None = None,
        envelope: Mapping[str, Any] | None = None,
    ) -> None:
        self.id = job_id
        self.job = job
        self.envelope = envelope
        self.is_cancelled = False
        self._client = client
        self._result: Result | None = None

    async def __aiter__(self) -> AsyncIterator[Progress]:
        """Progress until the job is finished. Raises FluxClientError where it fails."""
        if self._result is None:
            ended: list[Any] = []
            async for progress in self._client.steps(self._client.follow(self), ended):
                yield progress
            self._result = Result.of(self.id, ended[0])

    async def result(self) -> Result:
        """Wait for the result. Raises FluxClientError."""
        async for _ in self:
            pass
        assert self._result is not None  # noqa: S101 - the loop ends with it or raises
        return self._result

    async def cancel(self) -> None:
        """Take the job back; one that is finished stays so."""
        self.is_cancelled = True
        await self._client.cancel(self.id)

    def renamed(self, job_id: str) -> None:
        """For AsyncFluxClient."""
        self.id = job_id
