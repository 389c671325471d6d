"""FluxClient: an endpoint for code without asyncio.

with FluxClient("endpoint-id", api_key=...) as client:
    result = client.run({"prompt": "a red sun", "seed": 7})
    client.save(result.images[0], "sun.png")

    job = client.submit({"prompt": "a white moon"})
    for progress in job:                       # until it is finished
        print(progress.stage, progress.progress)
    result = job.result()
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import httpx2

from flux_client.job import ImageJob, VideoJob
from flux_client.protocol import Answer, Endpoint, Script, Send, Wait, with_seed
from flux_client.result import File, Progress, Result

BASE_URL: Final = "https://api.runpod.ai/v2"
TIMEOUT_S: Final = 60.0

AnyJob = ImageJob | VideoJob
Value = TypeVar("Value")


class FluxClient:
    """Calls of one endpoint; safe for several threads. `api_key` is RUNPOD_API_KEY where it is not given."""

    def __init__(
        self, endpoint_id: str, *, api_key: str | None = None, base_url: str = BASE_URL, tries: int = 6
    ) -> None:
        self._endpoint = Endpoint(base_url=f"{base_url}/{endpoint_id}", tries=tries)
        self._headers = authorization(api_key)
        self._http = httpx2.Client(timeout=TIMEOUT_S)

    def run(self, job: AnyJob, *, policy: Mapping[str, Any] | None = None) -> Result:
        """Have a job done; `policy` is the platform's (`executionTimeout`, `ttl`). Raises FluxClientError."""
        return self._value(self._endpoint.run(job, enveloped(policy)))

    def submit(self, job: AnyJob, *, policy: Mapping[str, Any] | None = None) -> Job:
        """Hand over a job. Raises FluxClientError."""
        seeded, envelope = with_seed(job), enveloped(policy)
        return Job(self, self._value(self._endpoint.submit(seeded, envelope)), seeded, envelope)

    def job(self, job_id: str) -> Job:
        """A job that was submitted before, here or elsewhere."""
        return Job(self, job_id)

    def capabilities(self) -> dict[str, Any]:
        """What the endpoint serves: models, schemas of jobs, limits, LoRAs."""
        return self._value(self._endpoint.ask({"op": "capabilities"}))

    def estimate(self, job: AnyJob) -> dict[str, Any]:
        """What `job` would take, without having it done."""
        return self._value(self._endpoint.ask({**job, "op": "estimate"}))

    def read(self, file: File) -> bytes:
        """The bytes of a result's file, checked against its hash."""
        return self._value(self._endpoint.read(file))

    def save(self, file: File, path: str | os.PathLike[str]) -> Path:
        """Write a result's file; it appears whole or not at all."""
        return saved(self.read(file), path)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def cancel(self, job_id: str) -> None:
        self._value(self._endpoint.cancel(job_id))

    def follow(self, job: Job) -> Script[Any]:
        """For Job."""
        return self._endpoint.finish(
            job.id, job.job, envelope=job.envelope, renamed=job.renamed, is_cancelled=lambda: job.is_cancelled
        )

    def _value(self, script: Script[Value]) -> Value:
        steps = self.steps(script)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                value: Value = end.value
                return value

    def steps(self, script: Script[Value]) -> Generator[Progress, None, Value]:
        """Carry `script` out; its progress on the way, its value as the iterator's."""
        answer: Answer | None = None
        while True:
            try:
                step = script.send(answer)
            except StopIteration as end:
                value: Value = end.value
                return value
            answer = None
            if isinstance(step, Send):
                answer = self._sent(step)
            elif isinstance(step, Wait):
                time.sleep(step.seconds)
            else:
                yield step

    def _sent(self, request: Send) -> Answer:
        try:
            response = self._http.request(request.method, request.url, **sent_as(request, self._headers))
        except httpx2.RequestError as error:
            return Answer(0, type(error).__name__.encode())
        return answer_of(response)


class Job:
    """A job on its way: iterate over its progress, then take its result. `id` is another one where the platform forgot
    the job and it was submitted again."""

    def __init__(
        self,
        client: FluxClient,
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

    def __iter__(self) -> Iterator[Progress]:
        """Progress until the job is finished. Raises FluxClientError where it fails."""
        if self._result is None:
            output = yield from self._client.steps(self._client.follow(self))
            self._result = Result.of(self.id, output)

    def result(self) -> Result:
        """Wait for the result. Raises FluxClientError."""
        for _ in self:
            pass
        assert self._result is not None  # noqa: S101 - the loop ends with it or raises
        return self._result

    def cancel(self) -> None:
        """Take the job back; one that is finished stays so."""
        self.is_cancelled = True
        self._client.cancel(self.id)

    def renamed(self, job_id: str) -> None:
        """For FluxClient."""
        self.id = job_id


def authorization(api_key: str | None) -> dict[str, str]:
    """The header that carries the key. Raises ValueError where there is none."""
    key = api_key or os.environ.get("RUNPOD_API_KEY", "")
    if not key:
        raise ValueError("an API key is needed: give `api_key`, or set RUNPOD_API_KEY")
    return {"Authorization": f"Bearer {key}"}


def sent_as(request: Send, headers: Mapping[str, str]) -> dict[str, Any]:
    """How httpx2 sends `request`. JSON in ASCII, in which a lone surrogate can be written; the worker drops it."""
    if not request.is_ours:
        return {"follow_redirects": True}  # as a store may answer
    if request.body is None:
        return {"headers": headers}
    content = json.dumps(request.body, allow_nan=False, separators=(",", ":")).encode()
    return {"headers": {**headers, "Content-Type": "application/json"}, "content": content}


def enveloped(policy: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"policy": dict(policy)} if policy is not None else {}


def answer_of(response: httpx2.Response) -> Answer:
    after = response.headers.get("Retry-After", "")
    return Answer(response.status_code, response.content, float(after) if after.isdecimal() else None)


def saved(content: bytes, path: str | os.PathLike[str]) -> Path:
    target = Path(path)
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return target
