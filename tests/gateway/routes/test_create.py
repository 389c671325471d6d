"""`POST /generate-image` and `/generate-video`: what is accepted, what is refused, and what is one task."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from tests.gateway.world import SUN, World, failure, result_of


async def test_a_job_becomes_a_task_with_its_addresses(gw: World) -> None:
    answer = await gw.post("/generate-image", json=SUN | {"metadata": {"order": 7}})
    made = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == made["status_url"] == f"{gw.url}/task/{made['task_id']}/status"
    assert made["result_url"].endswith("/result")
    assert made["events_url"].endswith("/events")
    assert made["cancel_url"] == f"{gw.url}/task/{made['task_id']}"
    assert made["status"] == "queued"
    assert made["work"] == pytest.approx(128 * 128 / 2**20 * 2)
    assert {"position", "eta_seconds", "created_at"} <= made.keys()
    job = await gw.hand.take()
    gw.hand.finish(job)
    done = await gw.until(made["task_id"], "completed")
    assert done["metadata"] == {"order": 7}
    assert done["result"]["images"][0]["url"] == f"{gw.url}/task/{made['task_id']}/result?index=0"
    assert done["work_used"] == 0.03125


async def test_the_worker_is_sent_what_makes_the_same_picture_again(gw: World) -> None:
    made = await gw.create()
    job = await gw.hand.take()
    sent = job.payload["input"]
    assert isinstance(sent, dict)
    assert sent["seed"] == made["seed"]
    assert sent["response_format"] == "b64_json"
    assert sent["gateway"]["task_id"] == made["task_id"]


async def test_results_are_files_and_another_wish_is_answered(gw: World) -> None:
    """The worker hands them over inline, which is nobody's wish."""
    made = await gw.create(response_format="b64_json")
    assert ["`response_format`" in warning for warning in made["warnings"]] == [True]
    job = await gw.hand.take()
    gw.hand.finish(job, result_of(job, parameters={"prompt": "x", "response_format": "b64_json"}))
    done = await gw.until(made["task_id"], "completed")
    assert "b64_json" not in done["result"]["images"][0]
    assert done["parameters"]["response_format"] == done["result"]["parameters"]["response_format"] == "url"
    plain = await gw.create(seed=3)
    again = (await gw.post(f"/task/{plain['task_id']}/again", json={"seed": 4})).json()
    assert plain["warnings"] == again["warnings"] == []


async def test_a_task_says_what_is_left_of_every_limit(gw: World) -> None:
    answer = await gw.post("/generate-image", json=SUN)
    for name in ("ratelimit", "ratelimit-policy"):
        named = [item.strip().partition(";")[0] for item in answer.headers[name].split(",")]
        assert named == ['"requests"', '"work-minute"', '"work-day"']


async def test_a_video_job(gw: World) -> None:
    answer = await gw.post(
        "/generate-video", json={"prompt": "a red sun", "num_frames": 4, "width": 128, "height": 128}
    )
    assert answer.status_code == 202
    assert answer.json()["type"] == "video"


REFUSED: Final[list[tuple[dict[str, Any], str]]] = [
    ({}, "prompt"),
    ({"prompt": ""}, "prompt"),
    ({"prompt": 7}, "prompt"),
    ({"prompt": "x", "width": 63}, "width"),
    ({"prompt": "x", "widht": 128}, "widht"),
    ({"prompt": "x", "num_inference_steps": 51}, "num_inference_steps"),
    ({"prompt": "x", "model": "gpt"}, "model"),
    ({"prompt": "x", "type": "video"}, "type"),
    ({"prompt": "x", "num_frames": 8}, "num_frames"),
    ({"prompt": "x", "mask": "AAAA"}, "mask"),
    ({"prompt": "x", "gateway": {"task_id": "abc"}}, "gateway"),
    ({"prompt": "x", "priority": "high"}, "priority"),
    ({"prompt": "x", "deadline_seconds": 0}, "deadline_seconds"),
    ({"prompt": "x", "deadline_seconds": True}, "deadline_seconds"),
    ({"prompt": "x", "webhook": {"url": "http://example.com/"}}, "webhook.url"),
    ({"prompt": "x", "webhook": {"url": "https://example.com/", "events": ["born"]}}, "webhook.events"),
    ({"prompt": "x", "webhook": 5}, "webhook"),
]
UNREADABLE: Final = [
    (b"{", "application/json", 400, "invalid_input"),
    (b"", "application/json", 400, "invalid_input"),
    (b"[1]", "application/json", 400, "invalid_input"),
    (b"null", "application/json", 400, "invalid_input"),
    (b'{"prompt": "x", "guidance_scale": NaN}', "application/json", 400, "invalid_input"),
    (b"[" * 100_000, "application/json", 400, "invalid_input"),
    (b"\xff\xfe", "application/json", 400, "invalid_input"),
    (b"prompt=x", "application/x-www-form-urlencoded", 415, "wrong_media_type"),
    (b"{}", "text/plain", 415, "wrong_media_type"),
]
NO_KEYS: Final[list[str | bytes]] = ["", '""', "x" * 256, "ümlaut".encode()]


async def test_a_job_that_a_worker_would_refuse_is_refused_here(gw: World) -> None:
    for body, field in REFUSED:
        answer = await gw.post("/generate-image", json=body)
        said = answer.json()
        assert (answer.status_code, said["code"], said["field"]) == (422, "invalid_input", field), body
        assert answer.headers["content-type"] == "application/problem+json"
        assert said["error"]["param"] == field
        assert said["error"]["message"] == said["detail"]
    assert gw.platform.endpoint.queue.jobs == ()


async def test_a_body_that_cannot_be_read(gw: World) -> None:
    for content, kind, status, code in UNREADABLE:
        answer = await gw.post("/generate-image", content=content, headers={"Content-Type": kind})
        assert (answer.status_code, answer.json()["code"]) == (status, code), content[:20]


async def test_a_large_body_is_refused_while_it_is_read(gw: World) -> None:
    """The client has not said how much is to come, and has not come to its end."""
    parts = urlsplit(gw.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    head = [
        "POST /generate-image HTTP/1.1",
        f"Host: {parts.netloc}",
        "Content-Type: application/json",
        "Transfer-Encoding: chunked",
        f"Authorization: {gw.headers['Authorization']}",
    ]
    writer.write("\r\n".join([*head, "", ""]).encode())
    for _ in range(11):
        writer.write(b"%x\r\n" % 1_000_000 + b"x" * 1_000_000 + b"\r\n")
        await writer.drain()
    answer = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"application/problem+json" in answer


async def test_a_body_that_says_it_is_large(gw: World) -> None:
    answer = await gw.post("/generate-image", json={"prompt": "x", "image": "A" * 10_000_000})
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


async def test_prefer_wait_holds_the_request(gw: World) -> None:
    working = asyncio.create_task(gw.hand.work(count=1))
    asked_at = time.monotonic()
    answer = await gw.post("/generate-image", json=SUN, headers={"Prefer": "respond-async, wait=30"})
    assert answer.headers["preference-applied"] == "wait=30"
    if time.monotonic() - asked_at < 30:  # else the machine stalled for as long
        assert (answer.status_code, answer.json()["status"]) == (200, "completed")
    await working


@pytest.mark.parametrize("preferences", [["wait=1"], ["respond-async", "wait=1"], ["Wait=1"]])
async def test_prefer_wait_gives_up_in_time(preferences: list[str], gw: World) -> None:
    answer = await gw.post("/generate-image", json=SUN, headers=[("Prefer", one) for one in preferences])
    assert answer.status_code == 202
    assert answer.headers["preference-applied"] == "wait=1"


async def test_one_key_is_one_task(gw: World) -> None:
    headers = {"Idempotency-Key": '"order-1"'}
    answers = await asyncio.gather(*(gw.post("/generate-image", json=SUN, headers=headers) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["task_id"] for answer in answers}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    gw.hand.finish(await gw.hand.take())
    await gw.until(answers[0].json()["task_id"], "completed")
    bare = await gw.post("/generate-image", json=SUN, headers={"Idempotency-Key": "order-1"})
    assert bare.status_code == 200
    assert bare.headers["idempotency-replayed"] == "true"
    assert len(gw.platform.endpoint.queue.jobs) == 1


@pytest.mark.parametrize("other", [{"seed": 1}, {"priority": "low"}, {"deadline_seconds": 60}])
async def test_a_key_with_another_body(other: dict[str, Any], gw: World) -> None:
    headers = {"Idempotency-Key": "order-2"}
    await gw.post("/generate-image", json=SUN, headers=headers)
    answer = await gw.post("/generate-image", json=SUN | other, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_mismatch")
    assert answer.headers["x-should-retry"] == "false"


async def test_a_key_belongs_to_its_user(gw: World) -> None:
    headers = {"Idempotency-Key": "order-3"}
    mine = await gw.post("/generate-image", json=SUN, headers=headers)
    theirs = await gw.post("/generate-image", json=SUN, headers=headers | await gw.key_of("bob"))
    assert mine.json()["task_id"] != theirs.json()["task_id"]


async def test_a_key_that_is_none(gw: World) -> None:
    for key in NO_KEYS:
        answer = await gw.post("/generate-image", json=SUN, headers={"Idempotency-Key": key})
        assert (answer.status_code, answer.json()["field"]) == (400, "Idempotency-Key"), key


async def test_a_repeat_of_the_openai_client_joins_its_first_try(gw: World) -> None:
    first = await gw.post("/generate-image", json=SUN, headers={"x-stainless-retry-count": "0"})
    again = await gw.post("/generate-image", json=SUN, headers={"x-stainless-retry-count": "1"})
    other = await gw.post("/generate-image", json=SUN | {"seed": 3}, headers={"x-stainless-retry-count": "1"})
    assert again.json()["task_id"] == first.json()["task_id"]
    assert other.json()["task_id"] != first.json()["task_id"]


@pytest.mark.parametrize(("retryable", "joins"), [(True, False), (False, True)])
async def test_a_repeat_of_what_may_succeed_again_is_another_task(retryable: bool, joins: bool, gw: World) -> None:
    """The client repeats because `x-should-retry` says so: the failed task's error once more would be no repeat."""
    first = await gw.post("/generate-image", json=SUN, headers={"x-stainless-retry-count": "0"})
    gw.hand.finish(await gw.hand.take(), error=failure("internal", retryable=retryable))
    task_id = first.json()["task_id"]
    await gw.until(task_id, "failed")
    said = (await gw.get(f"/task/{task_id}/result")).headers["x-should-retry"]
    again = await gw.post("/generate-image", json=SUN, headers={"x-stainless-retry-count": "1"})
    assert (said, again.json()["task_id"] == task_id) == ("true" if retryable else "false", joins)


async def test_a_deadline_that_passes(gw: World) -> None:
    made = await gw.create(deadline_seconds=1)
    done = await gw.until(made["task_id"], "failed")
    assert done["error"]["code"] == "internal"
    assert "deadline" in done["error"]["message"]


async def test_a_queue_that_is_away_loses_nothing(gw: World) -> None:
    gw.platform.faults.script("run", "503", "reset", "500")
    made = await gw.create()
    gw.hand.finish(await gw.hand.take())
    assert (await gw.until(made["task_id"], "completed"))["status"] == "completed"
