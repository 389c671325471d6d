"""What the Python client sends, without a socket."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from flux_client import FluxClient, Job, NotReached, Progress, Refused
from flux_client.protocol import MAX_SEED, Answer, Endpoint, Script, Send, Wait, with_seed

ENDPOINT = Endpoint(base_url="https://example.com/v2/e", tries=4)


def played(script: Script[Any], answers: Iterable[Answer]) -> tuple[list[Send | Wait | Progress], Any]:
    """The steps of `script`, given `answers` in turn, and its value."""
    steps: list[Send | Wait | Progress] = []
    waiting = iter(answers)
    answer: Answer | None = None
    while True:
        try:
            step = script.send(answer)
        except StopIteration as end:
            return steps, end.value
        steps.append(step)
        answer = next(waiting) if isinstance(step, Send) else None


def answered(status: int, content: bytes = b"{}", **more: Any) -> Answer:
    return Answer(status, content, **more)


def test_a_key_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNPOD_API_KEY", raising=False)
    with pytest.raises(ValueError, match="RUNPOD_API_KEY"):
        FluxClient("endpoint")


@pytest.mark.parametrize("seed", [{}, {"seed": None}, {"seed": -1}])
def test_a_job_without_a_seed_gets_one_before_it_is_sent(seed: dict[str, Any]) -> None:
    one, other = (with_seed({"prompt": "x", **seed})["seed"] for _ in range(2))
    assert 0 <= one <= MAX_SEED
    assert one != other
    assert with_seed({"prompt": "x", "seed": 7})["seed"] == 7


@pytest.mark.parametrize("status", [0, 408, 429, 500, 502, 503, 504, 520, 524])
def test_what_may_pass_is_sent_again_later_each_time(status: int) -> None:
    steps, identity = played(
        ENDPOINT.submit({"prompt": "x", "seed": 1}),
        [answered(status), answered(status), answered(200, b'{"id": "job-1"}')],
    )
    assert identity == "job-1"
    assert [step.seconds for step in steps if isinstance(step, Wait)] == [0.25, 0.5]
    assert len({str(step) for step in steps if isinstance(step, Send)}) == 1


def test_the_platforms_own_time_is_waited() -> None:
    steps, _ = played(
        ENDPOINT.submit({"prompt": "x"}), [answered(429, retry_after_s=3.0), answered(200, b'{"id": "job-1"}')]
    )
    assert [step.seconds for step in steps if isinstance(step, Wait)] == [3.0]


def test_tries_end() -> None:
    with pytest.raises(NotReached):
        played(ENDPOINT.submit({"prompt": "x"}), [answered(0, b"ConnectError")] * 4)
    with pytest.raises(Refused) as refused:
        played(ENDPOINT.submit({"prompt": "x"}), [answered(503, b'{"error": "busy"}')] * 4)
    assert (refused.value.status, refused.value.message) == (503, "busy")


def test_what_is_refused_is_not_sent_again() -> None:
    with pytest.raises(Refused):
        played(ENDPOINT.submit({"prompt": "x"}), [answered(401, b'{"error": "no key"}')])


def test_a_forgotten_job_is_submitted_again_as_the_same_job() -> None:
    job = {"prompt": "x", "seed": 5}
    done = answered(200, b'{"id": "job-2", "status": "COMPLETED", "output": {"a": 1}}')
    steps, output = played(ENDPOINT.finish("job-1", job), [answered(404), answered(200, b'{"id": "job-2"}'), done])
    assert output == {"a": 1}
    bodies = [step.body for step in steps if isinstance(step, Send) and step.body is not None]
    assert bodies == [{"input": job}]


def test_a_page_in_front_of_the_endpoint_is_not_asked_for_ever() -> None:
    page = answered(200, b"<html>Sign in</html>")
    with pytest.raises(Refused, match="status"):
        played(ENDPOINT.finish("job-1", {"prompt": "x"}), [page])
    with pytest.raises(Refused, match="id"):
        played(ENDPOINT.ask({"op": "capabilities"}), [page])


@pytest.mark.parametrize("way", ["run", "iterate"])
def test_a_job_that_was_submitted_again_keeps_its_policy_and_tells_its_new_id(way: str) -> None:
    policy, answers = {"policy": {"executionTimeout": 900_000}}, [answered(200, b'{"id": "job-1"}'), answered(404)]
    image = b'{"images": [], "seed": 5, "cached": false, "warnings": []}'
    answers += [answered(200, b'{"id": "job-2"}'), answered(200, b'{"status": "COMPLETED", "output": %b}' % image)]
    if way == "run":
        steps, result = played(ENDPOINT.run({"prompt": "x", "seed": 5}, policy), answers)
        assert result.job_id == "job-2"
    else:
        with FluxClient("e", api_key="k") as client:
            job = Job(client, "job-1", {"prompt": "x", "seed": 5}, policy)
            steps, _ = played(client.follow(job), answers[1:])
        assert job.id == "job-2"
    bodies = [step.body for step in steps if isinstance(step, Send) and step.body is not None]
    assert bodies[-1] == {"input": {"prompt": "x", "seed": 5}, **policy}
