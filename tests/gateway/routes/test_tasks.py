"""Reading, listing, taking back and repeating tasks."""

from __future__ import annotations

import asyncio
import time
import uuid
from pathlib import Path
from typing import Any

from flux_engine.gateway.routes.tasks import MAX_SCANNED
from flux_engine.gateway.tasks.ledger.news import Ending
from tests.gateway.world import SUN, World, failure


async def test_progress_as_the_queue_tells_it(gw: World) -> None:
    made = await gw.create()
    job = await gw.hand.take()
    gw.hand.progress(job, 0.5, seq=3, step=1, total_steps=2, eta_seconds=4.0)
    said = await gw.until(made["task_id"], "processing")
    while "step" not in said:
        said = await gw.status(made["task_id"])
    assert (said["stage"], said["progress"], said["step"], said["total_steps"]) == ("denoising", 0.5, 1, 2)
    assert said["eta_seconds"] == 4.0
    assert said["started_at"]
    gw.hand.finish(job)
    done = await gw.until(made["task_id"], "completed")
    assert (done["progress"], "stage" in done, "step" in done) == (1.0, False, False)
    assert (await gw.get(f"/tasks/{made['task_id']}")).json() == done


async def test_a_failed_job_fails_its_task_with_its_code(gw: World) -> None:
    made = await gw.create()
    gw.hand.finish(await gw.hand.take(), error=failure("lora_incompatible", "for another model", field="loras[0]"))
    done = await gw.until(made["task_id"], "failed")
    assert done["error"] == {
        "code": "lora_incompatible",
        "message": "for another model",
        "field": "loras[0]",
        "retryable": False,
    }
    answer = await gw.get(f"/task/{made['task_id']}/result")
    assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, "lora_incompatible", "loras[0]")
    assert answer.headers["x-should-retry"] == "false"


async def test_a_worker_that_says_nonsense(gw: World) -> None:
    made = await gw.create()
    gw.hand.finish(await gw.hand.take(), error="Traceback (most recent call last): /usr/lib/secret.py")
    done = await gw.until(made["task_id"], "failed")
    assert done["error"]["code"] == "internal"
    assert "secret" not in str(done)


async def test_waiting_tasks_know_their_place(gw: World) -> None:
    made = [await gw.create(seed=seed) for seed in range(5)]
    last = await gw.status(made[-1]["task_id"])
    assert last["status"] == "queued"
    assert last["position"] >= 1
    assert last["waiting_for"] in ("busy", "no_workers", "worker_starting")


async def test_a_waiting_task_is_cancelled_at_once(gw: World) -> None:
    made = [await gw.create(seed=seed) for seed in range(5)]
    answer = await gw.delete(f"/task/{made[-1]['task_id']}")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    again = await gw.delete(f"/task/{made[-1]['task_id']}")
    assert (again.status_code, again.json()["status"]) == (200, "cancelled")
    result = await gw.get(f"/task/{made[-1]['task_id']}/result")
    assert (result.status_code, result.json()["code"]) == (410, "cancelled")


async def test_a_running_task_is_cancelled_with_its_worker(gw: World) -> None:
    made = await gw.create()
    job = await gw.hand.take()
    gw.hand.progress(job, 0.2, seq=1)
    await gw.until(made["task_id"], "processing")
    answer = await gw.delete(f"/task/{made['task_id']}")
    assert answer.status_code == 202
    assert answer.json()["cancelling"] is True
    done = await gw.until(made["task_id"], "cancelled")
    assert done["cancelling"] is False
    assert gw.platform.endpoint.queue.take_stops(gw.hand.worker) == [job.id]


async def test_a_finished_task_is_not_undone(gw: World) -> None:
    made = await gw.create()
    gw.hand.finish(await gw.hand.take())
    await gw.until(made["task_id"], "completed")
    answer = await gw.delete(f"/task/{made['task_id']}")
    assert (answer.status_code, answer.json()["status"]) == (200, "completed")
    assert (await gw.get(f"/task/{made['task_id']}/result")).status_code == 200


async def test_purge_deletes_the_files_that_nobody_else_has(gw: World) -> None:
    first, second = await gw.create(seed=7, cache=False), await gw.create(seed=7, cache=False)
    await gw.hand.work(count=2)
    for made in (first, second):
        await gw.until(made["task_id"], "completed")
    assert (await gw.delete(f"/task/{first['task_id']}", params={"purge": 1})).status_code == 200
    gone = await gw.get(f"/task/{first['task_id']}/result")
    assert (gone.status_code, gone.json()["code"]) == (410, "expired")
    assert (await gw.get(f"/task/{second['task_id']}/result")).status_code == 200
    again = await gw.post(f"/task/{first['task_id']}/again", json={})
    assert (again.status_code, again.json()["code"]) == (410, "expired")
    await gw.delete(f"/task/{second['task_id']}", params={"purge": 1})
    files = list((gw.gateway.settings.gateway_data or Path()).rglob("*.png"))
    assert files == []


async def test_a_result_that_comes_together_with_the_cancellation_holds_no_file(gw: World) -> None:
    """Another task has the same picture, and is purged."""
    ledger, first = gw.gateway.ledger, await gw.create(seed=7, cache=False)
    gw.hand.finish(await gw.hand.take())
    await gw.until(first["task_id"], "completed")
    done = await ledger.get(first["task_id"])
    second = await gw.create(seed=7, cache=False)
    await gw.hand.take()
    read = await ledger.get(second["task_id"])
    assert done is not None
    assert read is not None
    await gw.gateway.endings.finish(read, Ending(status="cancelled"))
    assert await ledger.finish(read, Ending(status="completed", files=done.files)) is None
    await gw.delete(f"/task/{first['task_id']}", params={"purge": 1})
    assert list((gw.gateway.settings.gateway_data or Path()).rglob("*.png")) == []


async def test_purge_of_a_running_task(gw: World) -> None:
    made = await gw.create()
    job = await gw.hand.take()
    gw.hand.progress(job, 0.2, seq=1)
    await gw.until(made["task_id"], "processing")
    assert (await gw.delete(f"/task/{made['task_id']}", params={"purge": 1})).status_code in (200, 202)
    await gw.until(made["task_id"], "cancelled")
    again = await gw.post(f"/task/{made['task_id']}/again", json={})
    while again.status_code == 202:  # until the end is settled
        again = await gw.post(f"/task/{made['task_id']}/again", json={})
    assert again.status_code == 410


async def test_a_purge_that_is_wished_for_while_the_task_ends(gw: World) -> None:
    """The look that ends the task read it before the wish."""
    made = await gw.create()
    await gw.hand.take()
    read = await gw.gateway.ledger.get(made["task_id"])
    assert read is not None
    await gw.gateway.ledger.purge_at_end(read)
    await gw.gateway.endings.finish(read, Ending(status="cancelled"))
    assert (await gw.post(f"/task/{made['task_id']}/again", json={})).status_code == 410


async def test_again_with_other_fields(gw: World) -> None:
    made = await gw.create(seed=11, steps=3)
    first = await gw.hand.take()
    gw.hand.finish(first)
    await gw.until(made["task_id"], "completed")

    async def sent(overrides: dict[str, Any]) -> dict[str, Any]:
        answer = await gw.post(f"/task/{made['task_id']}/again", json=overrides)
        assert answer.status_code == 202, answer.text
        assert answer.json()["again_of"] == made["task_id"]
        assert answer.json()["task_id"] != made["task_id"]
        job = await gw.hand.take()
        gw.hand.finish(job)
        given = job.payload["input"]
        assert isinstance(given, dict)
        return given

    same = await sent({})
    assert (same["seed"], same["num_inference_steps"], same["width"]) == (11, 3, 128)
    assert (await sent({"prompt": "a white moon"}))["prompt"] == "a white moon"
    assert (await sent({"seed": None}))["seed"] != 11
    assert (await sent({"seed": 12}))["seed"] == 12
    wide = await sent({"aspect_ratio": "16:9", "megapixels": 0.25})
    assert ("width" in wide, wide["aspect_ratio"]) == (False, "16:9")


async def test_again_refuses_what_a_job_refuses(gw: World) -> None:
    made = await gw.create()
    answer = await gw.post(f"/task/{made['task_id']}/again", json={"steps": 900})
    assert (answer.status_code, answer.json()["field"]) == (422, "num_inference_steps")


async def test_the_list_is_the_callers_own_and_pages(gw: World) -> None:
    made = [(await gw.create(seed=seed))["task_id"] for seed in range(7)]
    bob = await gw.key_of("bob")
    theirs = (await gw.client.post("/generate-image", json=SUN, headers=bob)).json()["task_id"]
    seen: list[str] = []
    cursor = None
    while True:
        query = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = (await gw.get("/tasks", params=query)).json()
        seen += [task["task_id"] for task in page["tasks"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == made[::-1]
    listed = (await gw.client.get("/tasks", headers=bob)).json()["tasks"]
    assert [task["task_id"] for task in listed] == [theirs]


async def test_the_list_goes_on_past_what_it_looks_at_in_one_call(gw: World) -> None:
    """Two thousand newer tasks that the filter leaves out: `next` is null at the end alone."""
    made = await gw.create()
    await gw.delete(f"/task/{made['task_id']}")
    await gw.until(made["task_id"], "cancelled")
    index = gw.gateway.ledger.keys.index("ada")
    await gw.gateway.redis.zadd(index, {str(uuid.uuid4()): time.time() + number for number in range(MAX_SCANNED + 50)})
    query: dict[str, Any] = {"status": "cancelled", "limit": 100}
    page = (await gw.get("/tasks", params=query)).json()
    found = page["tasks"]
    while page["next"] is not None:
        page = (await gw.get("/tasks", params=query | {"cursor": page["next"]})).json()
        found += page["tasks"]
    assert [task["task_id"] for task in found] == [made["task_id"]]


async def test_the_list_filters(gw: World) -> None:
    done = await gw.create(seed=1)
    gw.hand.finish(await gw.hand.take())
    finished = await gw.until(done["task_id"], "completed")
    await gw.create(seed=2)
    by_status = (await gw.get("/tasks", params={"status": "completed"})).json()["tasks"]
    assert [task["task_id"] for task in by_status] == [done["task_id"]]
    assert len((await gw.get("/tasks", params={"type": "video"})).json()["tasks"]) == 0
    after = (await gw.get("/tasks", params={"created_after": finished["created_at"]})).json()["tasks"]
    assert len(after) in (1, 2)  # the moment is told to the millisecond
    assert len((await gw.get("/tasks", params={"created_after": "2999-01-01T00:00:00Z"})).json()["tasks"]) == 0


async def test_a_listing_that_asks_for_nonsense(gw: World) -> None:
    for query in ({"limit": 0}, {"limit": 101}, {"cursor": "%%%"}, {"status": "asleep"}, {"created_after": "soon"}):
        answer = await gw.get("/tasks", params=query)
        assert (answer.status_code, answer.json()["field"]) == (422, next(iter(query))), query


async def test_a_foreign_task_is_an_unknown_one(gw: World) -> None:
    made = await gw.create()
    bob = await gw.key_of("bob")
    unknown = "00000000-0000-4000-8000-000000000000"
    for method, path in (
        ("GET", "/task/{}/status"),
        ("GET", "/tasks/{}"),
        ("GET", "/task/{}/result"),
        ("GET", "/task/{}/events"),
        ("DELETE", "/task/{}"),
        ("POST", "/task/{}/again"),
    ):
        answers = [
            await gw.client.request(method, path.format(task_id), headers=bob)
            for task_id in (made["task_id"], unknown, "..%2f", "x" * 300)
        ]
        assert {answer.status_code for answer in answers} == {404}, path
        known, other = (answer.json() for answer in answers[:2])
        assert {**known, "request_id": ""} == {**other, "request_id": ""}


async def test_a_foreign_task_is_not_even_read(gw: World) -> None:
    """Reading it would take time, by which it could be told from an unknown one: here it would fail."""
    made = await gw.create()
    path, key = f"/task/{made['task_id']}/status", gw.gateway.ledger.keys.task(made["task_id"])
    await gw.gateway.redis.hset(key, "metadata", "no JSON")
    assert (await gw.client.get(path, headers=await gw.key_of("bob"))).status_code == 404
    assert (await gw.get(path)).status_code == 500
    await gw.gateway.redis.delete(key)


async def test_scopes(gw: World) -> None:
    reader, maker = await gw.key_of("ada", frozenset(["read"])), await gw.key_of("ada", frozenset(["generate"]))
    made = await gw.create()
    path = f"/task/{made['task_id']}"
    calls = [("POST", "/generate-image"), ("DELETE", path), ("POST", f"{path}/again")]
    for method, url in calls:
        answer = await gw.client.request(method, url, json=SUN, headers=reader)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    for url in (f"{path}/status", f"{path}/result", f"{path}/events", "/tasks", "/events"):
        assert (await gw.client.get(url, headers=maker)).status_code == 403


async def test_tasks_of_many_clients_at_once(gw: World) -> None:
    working = asyncio.create_task(gw.hand.work())
    answers = await asyncio.gather(
        *(gw.post("/generate-image", json=SUN | {"seed": seed}, headers={"Prefer": "wait=30"}) for seed in range(40))
    )
    ends = [await gw.until(answer.json()["task_id"], "completed", "failed") for answer in answers]  # or later than 30 s
    working.cancel()
    assert [end["result"]["images"][0]["seed"] for end in ends] == list(range(40))
