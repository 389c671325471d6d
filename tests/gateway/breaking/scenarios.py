"""Requests of which one call fails, and what their clients do next."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

from aiohttp import web

from tests.gateway.breaking.calls import Part
from tests.gateway.breaking.case import NOTHING, UNSURE, Case
from tests.gateway.tasks.test_kept import noise
from tests.gateway.tasks.test_sweep import forget
from tests.waiting import until
from tests.web_server import server

Scenario = Callable[[Case], Awaitable[None]]
NOISE: Final = noise()


async def _made(case: Case, method: str, path: str, body: dict[str, Any], before: int = 0, **more: Any) -> None:
    """A request that makes a task, and its repetition."""
    answer = await case.broken_ask(method, path, json=body, key="one", **more)
    if answer.is_success:
        task_id = answer.headers.get("x-task-id") or answer.json()["task_id"]
    else:
        assert answer.json()["retryable"], answer.text
        if NOTHING in answer.text:
            assert len(await case.tasks()) == before, "nothing was done?"
        elif answer.status_code != 502 and "credentials" not in answer.text:
            assert UNSURE in answer.text, answer.text
        task_id = None
    again = await case.until_well(method, path, json=body, key="one", **more)
    assert again.is_success, again.text
    again_id = again.headers.get("x-task-id") or again.json()["task_id"]
    assert task_id in (None, again_id), "another task"
    tasks = await case.balance()
    assert len(tasks) == before + 1, "tasks"
    assert {task.status for task in tasks} <= {"completed", "failed"}


async def create(case: Case) -> None:
    await _made(case, "POST", "/generate-image", case.sun())


async def create_low(case: Case) -> None:
    await _made(case, "POST", "/generate-image", case.sun(priority="low", deadline_seconds=600))


async def create_from_pictures(case: Case) -> None:
    body = case.sun(image=NOISE, mask=NOISE, strength=0.5)
    await _made(case, "POST", "/generate-image", body)


async def create_waiting(case: Case) -> None:
    await _made(case, "POST", "/generate-image", case.sun(), headers={"Prefer": "wait=60"})


async def create_without_key(case: Case) -> None:
    answer = await case.broken_ask("POST", "/generate-image", json=case.sun(image=NOISE, strength=0.5))
    tasks = await case.balance()
    if answer.is_success:
        assert [task.id for task in tasks] == [answer.json()["task_id"]]
    elif UNSURE not in answer.text:
        assert tasks == [], answer.text
    assert len(tasks) <= 1


async def failing(case: Case) -> None:
    await _made(case, "POST", "/generate-image", case.sun(prompt="fail"))


async def hit(case: Case) -> None:
    """The second of two, from the cache."""
    first = await case.ask("POST", "/generate-image", json=case.sun(), headers={"Prefer": "wait=60"})
    assert first.status_code == 200
    await case.quiet()
    await _made(case, "POST", "/generate-image", case.sun(metadata={"a": 1}), 1)


async def hit_without_key(case: Case) -> None:
    first = await case.ask("POST", "/generate-image", json=case.sun(), headers={"Prefer": "wait=60"})
    assert first.status_code == 200
    await case.quiet()
    answer = await case.broken_ask("POST", "/generate-image", json=case.sun())
    tasks = await case.balance()
    if not answer.is_success and UNSURE not in answer.text:
        assert len(tasks) == 1, answer.text


async def again(case: Case) -> None:
    body = case.sun(image=NOISE, strength=0.5)
    first = await case.ask("POST", "/generate-image", json=body, headers={"Prefer": "wait=60"})
    await case.quiet()
    await _made(case, "POST", f"/task/{first.json()['task_id']}/again", {"seed": case.seed + 1}, 1)


async def openai(case: Case) -> None:
    body = {"prompt": "a red sun", "size": "64x64", "seed": case.seed, "response_format": "b64_json"}
    await _made(case, "POST", "/v1/images/generations", body)


async def openai_url(case: Case) -> None:
    await _made(case, "POST", "/v1/images/generations", {"prompt": "a red sun", "size": "64x64", "seed": case.seed})


async def openai_streamed(case: Case) -> None:
    body = {"prompt": "a red sun", "size": "64x64", "seed": case.seed, "stream": True}
    await _made(case, "POST", "/v1/images/generations", body)


async def openai_edit(case: Case) -> None:
    picture = f"data:image/png;base64,{NOISE}"
    body = {"prompt": "a red sun", "size": "64x64", "seed": case.seed, "images": [{"image_url": picture}]}
    await _made(case, "POST", "/v1/images/edits", body)


async def openai_without_key(case: Case) -> None:
    body = {"prompt": "a red sun", "size": "64x64", "seed": case.seed, "response_format": "b64_json"}
    answer = await case.broken_ask("POST", "/v1/images/generations", json=body)
    tasks = await case.balance()
    assert len(tasks) <= 1
    if not answer.is_success and UNSURE not in answer.text:
        assert tasks == [], answer.text


async def openai_repeated(case: Case) -> None:
    """As the openai client does: the same body, with a count."""
    body = {"prompt": "a red sun", "size": "64x64", "seed": case.seed, "response_format": "b64_json"}
    answer = await case.broken_ask("POST", "/v1/images/generations", json=body)
    if not answer.is_success:
        assert answer.headers["x-should-retry"] == "true"
        count = {"x-stainless-retry-count": "1"}
        await case.until_well("POST", "/v1/images/generations", json=body, headers=count)
    assert len(await case.balance()) == 1


async def full_line(case: Case) -> None:
    """A task too many: one is in flight and two wait."""
    ids = []
    for n in range(3):
        body = case.sun(prompt=f"hold {n}", seed=case.seed + n)
        ids.append((await case.until_well("POST", "/generate-image", json=body)).json()["task_id"])
        await until(partial(_stand, case, waiting=n, in_flight=1))
    body = case.sun(seed=case.seed + 9, image=NOISE, strength=0.5)
    answer = await case.broken_ask("POST", "/generate-image", json=body, key="one")
    if answer.status_code == 429 or NOTHING in answer.text:
        assert sorted(task.id for task in await case.tasks()) == sorted(ids), answer.text
    for task_id in ids:
        assert (await case.until_well("DELETE", f"/task/{task_id}")).is_success
    await case.balance(most_jobs=4)


async def _stand(case: Case, *, waiting: int, in_flight: int) -> bool:
    counts = await case.gw.gateway.line.counts(case.user)
    return (counts.waiting_of_user, counts.in_flight_of_user) == (waiting, in_flight)


async def cancel(case: Case) -> None:
    """Of a task that a worker has."""
    made = (await case.ask("POST", "/generate-image", json=case.sun(prompt="hold"))).json()
    await case.gw.until_submitted(made["task_id"])
    answer = await case.broken_ask("DELETE", f"/task/{made['task_id']}")
    if answer.is_success:
        said = answer.json()
        assert said["status"] == "cancelled" or said["cancelling"]
    else:
        if NOTHING in answer.text:
            (task,) = [task for task in await case.tasks() if task.id == made["task_id"]]
            assert not task.cancelling, answer.text
            assert not task.is_final, answer.text
        answer = await case.until_well("DELETE", f"/task/{made['task_id']}")
        assert answer.is_success
    (task,) = await case.balance(most_jobs=1)
    assert task.status == "cancelled"


async def cancel_in_line(case: Case) -> None:
    """Of one that waits behind another."""
    first = (await case.ask("POST", "/generate-image", json=case.sun(prompt="hold"))).json()
    await case.gw.until_submitted(first["task_id"])
    made = (await case.ask("POST", "/generate-image", json=case.sun(image=NOISE, strength=0.5))).json()
    answer = await case.broken_ask("DELETE", f"/task/{made['task_id']}")
    if not answer.is_success:
        if NOTHING in answer.text:
            (task,) = [task for task in await case.tasks() if task.id == made["task_id"]]
            assert not task.cancelling, answer.text
            assert not task.is_final, answer.text
        answer = await case.until_well("DELETE", f"/task/{made['task_id']}")
        assert answer.is_success
    assert (await case.until_well("DELETE", f"/task/{first['task_id']}")).is_success
    tasks = await case.balance(most_jobs=1)
    assert {task.status for task in tasks} == {"cancelled"}


async def purge(case: Case) -> None:
    """Of a finished one."""
    body = case.sun(image=NOISE, strength=0.5)
    made = (await case.ask("POST", "/generate-image", json=body, headers={"Prefer": "wait=60"})).json()
    await case.quiet()
    await _purged(case, made["task_id"])


async def purge_running(case: Case) -> None:
    body = case.sun(prompt="hold", image=NOISE, strength=0.5)
    made = (await case.ask("POST", "/generate-image", json=body)).json()
    await case.gw.until_submitted(made["task_id"])
    await _purged(case, made["task_id"])


async def purge_shared(case: Case) -> None:
    """Of one of two that have the same picture."""
    body = case.sun(image=NOISE, strength=0.5)
    made = (await case.ask("POST", "/generate-image", json=body, headers={"Prefer": "wait=60"})).json()
    other = (await case.ask("POST", "/generate-image", json=body, headers={"Prefer": "wait=60"})).json()
    await case.quiet()
    await _purged(case, made["task_id"], others=1)
    assert (await case.ask("GET", f"/task/{other['task_id']}/result")).status_code == 200
    assert (await case.until_well("DELETE", f"/task/{other['task_id']}?purge=1")).is_success
    await case.balance()


async def _purged(case: Case, task_id: str, *, others: int = 0) -> None:
    answer = await case.broken_ask("DELETE", f"/task/{task_id}?purge=1")
    if not answer.is_success:
        if NOTHING in answer.text:
            (task,) = [task for task in await case.tasks() if task.id == task_id]
            assert not task.cancelling, answer.text
            assert not task.is_purged, answer.text
            is_whole = [await case.gw.gateway.results.store.exists(f["key"], size=f["bytes"]) for f in task.files]
            assert all(is_whole), f"files are gone: {answer.text}"
            assert task.status != "cancelled", answer.text
        answer = await case.until_well("DELETE", f"/task/{task_id}?purge=1")
        assert answer.is_success, answer.text
    tasks = await case.balance(most_jobs=1 + others)
    task = next(task for task in tasks if task.id == task_id)
    assert task.is_purged
    assert await case.gw.gateway.ledger.input(task_id) is None
    assert (await case.ask("GET", f"/task/{task_id}/result")).status_code == 410


def _read(path: str, method: str = "GET") -> Scenario:
    """A request that changes nothing."""

    async def read(case: Case) -> None:
        made = (await case.ask("POST", "/generate-image", json=case.sun(), headers={"Prefer": "wait=60"})).json()
        await case.quiet()
        asked: dict[str, Any] = {} if method == "GET" else {"json": case.sun() if "estimate" in path else {}}
        answer = await case.broken_ask(method, path.format(id=made["task_id"]), **asked)
        assert answer.is_success or answer.json()["retryable"], answer.text
        answer = await case.until_well(method, path.format(id=made["task_id"]), **asked)
        assert answer.is_success, answer.text
        (task,) = await case.balance()
        assert task.status == "completed"

    return read


async def _ended(
    case: Case, body: dict[str, Any], *, status: str = "completed", most_jobs: int = 2, part: Part = "task"
) -> None:
    """A task, one of whose background steps fails. Two jobs: one may have come that the queue did not tell of."""
    with case.calls.of(part, case.fault):
        answer = await case.until_well("POST", "/generate-image", json=body)
        assert answer.status_code == 202, answer.text
        await case.quiet()
    (task,) = await case.balance(most_jobs=most_jobs)
    assert task.status == status, task.error
    if status == "completed":
        assert (await case.ask("GET", f"/task/{task.id}/result")).status_code == 200


async def then_completed(case: Case) -> None:
    await _ended(case, case.sun())


async def then_found(case: Case) -> None:
    """What finds the tasks whose turn has come; answers that are lost."""
    await _ended(case, case.sun(), part="loop", most_jobs=1)


async def then_from_pictures(case: Case) -> None:
    await _ended(case, case.sun(image=NOISE, strength=0.5))


async def then_failed(case: Case) -> None:
    await _ended(case, case.sun(prompt="fail"), status="failed")


async def then_lost(case: Case) -> None:
    """The queue forgets the job."""
    with case.calls.of("task", case.fault):
        answer = await case.until_well("POST", "/generate-image", json=case.sun(prompt="hold once"))
        task_id = answer.json()["task_id"]
        await case.gw.until_submitted(task_id)
        await until(lambda: any(job.status == "IN_PROGRESS" for job in case.jobs()))
        for job in case.jobs():
            forget(case.gw, job)
        await case.quiet()
    (task,) = await case.balance(most_jobs=3)
    assert task.status == "completed", task.error


async def then_cancelled(case: Case) -> None:
    """And purged: the gateway that was asked for it has died."""
    with case.calls.of("task", case.fault):
        body = case.sun(prompt="hold", image=NOISE, strength=0.5)
        task_id = (await case.until_well("POST", "/generate-image", json=body)).json()["task_id"]
        await until(lambda: bool(case.jobs()))
        ledger = case.gw.gateway.ledger
        task = await ledger.get(task_id)
        assert task is not None
        await ledger.purge_at_end(task)
        await ledger.wish_cancelled(task)
        await case.quiet()
    (task,) = await case.balance(most_jobs=2)
    assert (task.status, task.is_purged) == ("cancelled", True)
    assert await ledger.input(task_id) is None
    is_untold = case.fault.place is not None and case.fault.place.to == "queue" and case.fault.way == "lost"
    assert is_untold or all(job.status.is_final for job in case.jobs()), "a job that nobody waits for"


@asynccontextmanager
async def _receiver() -> AsyncIterator[tuple[dict[str, Any], list[str]]]:
    """A webhook, and the deliveries that have come, by their ids."""
    got: list[str] = []

    async def receive(request: web.Request) -> web.Response:
        got.append(request.headers["webhook-id"])
        return web.Response()

    async with server(receive) as port:
        yield {"url": f"http://127.0.0.1:{port}/", "events": ["status", "completed"]}, got


async def _delivered(case: Case) -> dict[str, Any]:
    """The delivery of the task's end, once it has come."""
    found: list[dict[str, Any]] = []

    async def is_told() -> bool:
        said = (await case.until_well("GET", "/webhooks/deliveries")).json()["deliveries"]
        found[:] = [one for one in said if one["event"] == "task.completed" and one["state"] == "delivered"]
        return bool(found)

    await until(is_told)
    return found[0]


async def then_hooks(case: Case) -> None:
    async with _receiver() as (hook, got):
        with case.calls.of("task", case.fault):
            answer = await case.until_well("POST", "/generate-image", json=case.sun(webhook=hook))
            await case.quiet()
            delivery = await _delivered(case)
        assert delivery["id"] in got
    (task,) = await case.balance(most_jobs=2)
    assert (task.id, task.status) == (answer.json()["task_id"], "completed")


async def redeliver(case: Case) -> None:
    async with _receiver() as (hook, got):
        await case.until_well("POST", "/generate-image", json=case.sun(webhook=hook))
        delivery = await _delivered(case)
        before = got.count(delivery["id"])
        path = f"/webhooks/deliveries/{delivery['id']}/redeliver"
        answer = await case.broken_ask("POST", path)
        if NOTHING in answer.text:
            assert (await _delivered(case))["state"] == "delivered", answer.text
            assert got.count(delivery["id"]) == before, answer.text
        assert (await case.until_well("POST", path)).status_code == 202
        await until(lambda: got.count(delivery["id"]) > before)
        await _delivered(case)
    await case.balance()


REQUESTS: Final = (
    create,
    create_low,
    create_from_pictures,
    create_waiting,
    create_without_key,
    failing,
    hit,
    hit_without_key,
    full_line,
    again,
    openai,
    openai_url,
    openai_streamed,
    openai_edit,
    openai_without_key,
    openai_repeated,
    cancel,
    cancel_in_line,
    purge,
    purge_running,
    purge_shared,
    redeliver,
)
BACKGROUND: Final = (then_completed, then_from_pictures, then_failed, then_lost, then_cancelled, then_hooks, then_found)
READ: Final = {
    "status": "/task/{id}/status",
    "result": "/task/{id}/result",
    "list": "/tasks",
    "events": "/task/{id}/events",
    "snapshot": "/task/{id}/events?once=1",
    "snapshot_of_all": "/events?once=1",
    "usage": "/usage",
    "deliveries": "/webhooks/deliveries",
    "models": "/v1/models",
}
ASKED: Final = {"token": "/auth/token", "estimate": "/estimate"}
SCENARIOS: Final[dict[str, Scenario]] = {
    **{scenario.__name__: scenario for scenario in (*REQUESTS, *BACKGROUND)},
    **{name: _read(path) for name, path in READ.items()},
    **{name: _read(path, "POST") for name, path in ASKED.items()},
}
