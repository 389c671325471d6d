"""How a client speaks with an endpoint, without a socket: generators that say what to send next.

A script yields `Send`, `Wait` and `Progress`, is given the `Answer` to each `Send`, and returns its value. client.py
and aio.py carry the same scripts out, one blocking and one with asyncio, so that both retry in one way:

- A request that got no answer, or 408, 429 or 5xx, is sent again, later each time. A job that may have been submitted
  twice is one result all the same: its seed is chosen here, so both are one entry of the endpoint's cache.
- A job that failed for a reason that may pass is put back into the queue under its own id (`/retry`).
- A job that the platform forgot is submitted again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import secrets
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

from flux_client.errors import JobCancelled, JobFailed, JobTimedOut, NotReached, Refused, ResultLost
from flux_client.result import File, Progress, Result

MAX_SEED: Final = 2**53 - 1
PASSING: Final = (408, 429)  # and 5xx, of which proxies in front have more than HTTP
FIRST_WAIT_S: Final = 0.25
LONGEST_WAIT_S: Final = 8.0
POLL_S: Final = (0.2, 1.0)  # from the first question about a job to the later ones

Method = Literal["GET", "POST"]
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Send:
    """A request. `body` is sent as JSON; `is_ours` is false for a file's address, which gets no key."""

    method: Method
    url: str
    body: Mapping[str, Any] | None = None
    is_ours: bool = True


@dataclass(frozen=True, slots=True)
class Wait:
    seconds: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; `status` is 0 where nothing did, and `content` then says why."""

    status: int
    content: bytes = field(repr=False)
    retry_after_s: float | None = None

    def json(self) -> dict[str, Any]:
        """The JSON object of the body; empty for anything else."""
        try:
            value = json.loads(self.content)
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}


Script = Generator[Send | Wait | Progress, Answer | None, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where jobs go. `tries` bounds how often one request is sent, one job is put back, and one is submitted."""

    base_url: str
    tries: int = 6

    def submit(self, job: Mapping[str, Any], envelope: Mapping[str, Any] | None = None) -> Script[str]:
        """Hand over a job; its id."""
        return (yield from self._submitted({**(envelope or {}), "input": with_seed(job)}))

    def _submitted(self, body: Mapping[str, Any]) -> Script[str]:
        answer = yield from self._answered(Send("POST", f"{self.base_url}/run", body))
        identity = answer.json().get("id")
        if not isinstance(identity, str):
            raise Refused("the endpoint answered without a job's id", status=answer.status)
        return identity

    def finish(
        self,
        job_id: str,
        job: Mapping[str, Any] | None = None,
        *,
        envelope: Mapping[str, Any] | None = None,
        renamed: Callable[[str], None] = lambda job_id: None,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> Script[Any]:
        """The output of a job that was submitted, its progress on the way. `job` is sent again, in its envelope, where
        it was lost; `renamed` is told the id that it has from then on. One that `is_cancelled` runs no second time."""
        put_back = lost = polls = 0
        while True:
            answer = yield from self._answered(Send("GET", f"{self.base_url}/status/{job_id}"), also=(404,))
            state = answer.json()
            status = state.get("status")
            if answer.status == 404 and job is not None and lost < self.tries:
                lost += 1
                job_id = yield from self.submit(job, envelope)
                renamed(job_id)
                if is_cancelled():
                    yield from self.cancel(job_id)
            elif answer.status == 404:
                raise ResultLost("the endpoint does not know this job, or no longer", job_id=job_id)
            elif status == "COMPLETED":
                return state.get("output")
            elif status == "CANCELLED":
                raise JobCancelled("the job was cancelled", job_id=job_id)
            elif status in ("FAILED", "TIMED_OUT"):
                error = _error_of(state, job_id)
                if put_back >= self.tries or not getattr(error, "retryable", False):
                    raise error
                put_back += 1
                yield Wait(min(FIRST_WAIT_S * 2**put_back, LONGEST_WAIT_S))
                yield from self._answered(Send("POST", f"{self.base_url}/retry/{job_id}"), also=(400, 404))
                if is_cancelled():  # which found it failed, and nothing to take back
                    yield from self.cancel(job_id)
            elif not isinstance(status, str):  # another page in front of it: asked for ever, it would not change
                raise Refused("the endpoint answered without the job's status", status=answer.status, job_id=job_id)
            else:
                yield Progress.of(job_id, _mapping(state.get("output")))
                yield Wait(POLL_S[0] if polls < 10 else POLL_S[1])
                polls += 1

    def run(self, job: Mapping[str, Any], envelope: Mapping[str, Any] | None = None) -> Script[Result]:
        """Submit a job and wait for its result."""
        seeded = with_seed(job)
        ids = [(yield from self.submit(seeded, envelope))]
        output = yield from self.finish(ids[0], seeded, envelope=envelope, renamed=ids.append)
        return Result.of(ids[-1], output)

    def ask(self, question: Mapping[str, Any]) -> Script[dict[str, Any]]:
        """The answer to an `op`."""
        output = yield from self.finish((yield from self._submitted({"input": question})))
        return _mapping(output)

    def cancel(self, job_id: str) -> Script[None]:
        yield from self._answered(Send("POST", f"{self.base_url}/cancel/{job_id}"), also=(400, 404))

    def read(self, file: File) -> Script[bytes]:
        """The bytes of a result's file, compared with its hash. Raises ResultLost."""
        if file.b64_json is not None:
            try:
                return _checked(base64.b64decode(file.b64_json, validate=True), file)
            except binascii.Error:
                raise ResultLost("a file in the result is no base64") from None
        if file.url is None:
            raise ResultLost("the result holds neither an address nor the bytes of this file")
        answer = yield from self._answered(Send("GET", file.url, is_ours=False))
        return _checked(answer.content, file)

    def _answered(self, request: Send, *, also: tuple[int, ...] = ()) -> Script[Answer]:
        """The answer to `request` once it is a success or one of `also`. Raises NotReached and Refused."""
        for attempt in range(1, self.tries + 1):
            answer = yield request
            assert answer is not None  # noqa: S101 - what drives a script answers each Send
            if 200 <= answer.status < 300 or answer.status in also:
                return answer
            if answer.status and (not _may_pass(answer.status) or attempt == self.tries):
                raise Refused(_said(answer), status=answer.status)
            if attempt == self.tries:
                raise NotReached(f"no answer after {self.tries} tries: {answer.content.decode(errors='replace')}")
            yield Wait(answer.retry_after_s or min(FIRST_WAIT_S * 2 ** (attempt - 1), LONGEST_WAIT_S))
        raise ValueError("`tries` must be at least 1")


def with_seed(job: Mapping[str, Any]) -> dict[str, Any]:
    """`job` with a seed, so that it is the same job when it is sent again."""
    given = {name: value for name, value in job.items() if value is not None}
    if given.get("seed", -1) == -1 and "op" not in given:
        given["seed"] = secrets.randbelow(MAX_SEED + 1)
    return given


def _may_pass(status: int) -> bool:
    return status in PASSING or status >= 500


def _error_of(state: Mapping[str, Any], job_id: str) -> JobFailed | JobTimedOut:
    if state.get("status") == "TIMED_OUT":
        return JobTimedOut("the job ran longer than the endpoint lets one run", job_id=job_id)
    return JobFailed.of(state.get("error"), job_id=job_id)


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _said(answer: Answer) -> str:
    error = answer.json().get("error")
    return error if isinstance(error, str) else f"the endpoint answered {answer.status}"


def _checked(content: bytes, file: File) -> bytes:
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise ResultLost("a file is not the one that the result names")
    return content
