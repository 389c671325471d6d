"""Who may do what, over HTTP: every route with the credentials that it needs, and what strangers learn."""

from __future__ import annotations

import re
import statistics
import time
import uuid
from typing import Any, Final

import httpx2
import pytest
from aiohttp import web
from fastapi.routing import iter_route_contexts
from standardwebhooks import Webhook
from starlette.routing import Mount

from flux_engine.gateway.app import create_app
from flux_engine.gateway.security.headers import CONTENT_SECURITY_POLICY
from tests.gateway.world import World
from tests.web_server import server

NOBODY: Final = "nobody"  # open to everyone
KEY: Final = "key"  # any API key
SECRET_PATH: Final = "secret path"  # the queue's own
FILES: Final = "files"  # the page's own, open to everyone

NEEDS: Final[dict[tuple[str, str], str]] = {
    ("POST", "/generate-image"): "generate",
    ("POST", "/generate-video"): "generate",
    ("POST", "/estimate"): "read",
    ("GET", "/task/{task_id}/status"): "read",
    ("GET", "/tasks/{task_id}"): "read",
    ("GET", "/task/{task_id}/result"): "read",
    ("GET", "/task/{task_id}/events"): "read",
    ("GET", "/events"): "read",
    ("GET", "/tasks"): "read",
    ("DELETE", "/task/{task_id}"): "generate",
    ("POST", "/task/{task_id}/again"): "generate",
    ("GET", "/usage"): "read",
    ("GET", "/webhooks/deliveries"): "read",
    ("POST", "/webhooks/deliveries/{delivery_id}/redeliver"): "generate",
    ("GET", "/webhooks/secret"): "generate",
    ("GET", "/v1/webhooks/default/secret"): "generate",
    ("POST", "/auth/token"): KEY,
    ("GET", "/capabilities"): "read",
    ("GET", "/v1/models"): "read",
    ("GET", "/v1/models/{name:path}"): "read",
    ("POST", "/v1/images/generations"): "generate",
    ("POST", "/v1/images/edits"): "generate",
    ("GET", "/healthz"): NOBODY,
    ("GET", "/readyz"): NOBODY,
    ("GET", "/metrics"): NOBODY,
    ("GET", "/docs"): NOBODY,
    ("GET", "/docs/style.css"): NOBODY,
    ("GET", "/openapi.json"): NOBODY,
    ("GET", "/"): NOBODY,
    ("GET", "/page/{path}"): FILES,
    ("POST", "/hooks/queue/{task_id}/{secret}"): SECRET_PATH,
}
SCOPES: Final = ("generate", "read")


def routes_of(world: World) -> set[tuple[str, str]]:
    """Every route of the gateway, those that FastAPI adds included."""
    found = set()
    for context in iter_route_contexts(create_app(world.gateway).routes):
        methods, path = context.methods, context.path
        assert path
        if isinstance(context.route, Mount):
            methods, path = {"GET"}, f"{path}/{{path}}"
        assert methods, f"{path} is no plain route"
        found |= {(method, path) for method in methods - {"HEAD"}}
    return found


def filled(path: str) -> str:
    return re.sub(r"{[^}]*}", str(uuid.uuid4()), path)


async def ask(world: World, method: str, path: str, headers: dict[str, str]) -> httpx2.Response:
    async with httpx2.AsyncClient(base_url=world.url, trust_env=False, timeout=300, verify=False) as client:
        body = {"json": {"prompt": "a red sun"}} if method == "POST" else {}
        return await client.request(method, filled(path), headers=headers, **body)  # type: ignore[arg-type]


async def test_every_route_has_its_entry(gw: World) -> None:
    assert routes_of(gw) <= NEEDS.keys(), "a new route: say above what it needs"


@pytest.mark.parametrize(("method", "path"), NEEDS)
async def test_every_route_asks_for_what_it_needs(method: str, path: str, gw: World) -> None:
    if (method, path) not in routes_of(gw):
        pytest.skip("this version does not have the route")
    need = NEEDS[(method, path)]
    stranger = await ask(gw, method, path, {})
    if need in (NOBODY, FILES, SECRET_PATH):
        assert stranger.status_code == (200 if need == NOBODY else 404)
        return
    assert stranger.status_code == 401
    assert stranger.headers["www-authenticate"].startswith("Bearer")
    assert stranger.json()["code"] == "unauthorized"
    for credential in ("Bearer flux_guess", "Bearer a.b.c", "Basic YTpi"):
        assert (await ask(gw, method, path, {"Authorization": credential})).status_code == 401
    if need in SCOPES:
        (other,) = set(SCOPES) - {need}
        lacking = await ask(gw, method, path, await gw.key_of("eve", frozenset((other,))))  # type: ignore[arg-type]
        assert (lacking.status_code, lacking.json()["code"]) == (403, "forbidden")


TASK_ROUTES: Final = [need for need in NEEDS if "{task_id}" in need[1] and NEEDS[need] != SECRET_PATH]


@pytest.mark.parametrize(("method", "path"), TASK_ROUTES)
async def test_anothers_task_is_answered_as_an_unknown_one(method: str, path: str, gw: World) -> None:
    eve = await gw.key_of("eve")
    made = await gw.create()
    answers = []
    for task_id in (made["task_id"], str(uuid.uuid4())):
        answer = await ask(gw, method, path.replace("{task_id}", task_id), eve)
        body = answer.json()
        body.pop("request_id")
        answers.append((answer.status_code, body))
    assert answers[0] == answers[1]
    assert answers[0][0] == 404
    assert (await gw.status(made["task_id"]))["status"] == "queued"


async def test_anothers_task_takes_the_time_of_an_unknown_one(gw: World) -> None:
    """By medians of alternating requests, within what one request differs from the next."""
    eve, made = await gw.key_of("eve"), await gw.create()
    foreign: list[float] = []
    unknown: list[float] = []
    async with httpx2.AsyncClient(base_url=gw.url, headers=eve, trust_env=False, timeout=300) as client:
        for _ in range(300):
            for task_id, times in ((made["task_id"], foreign), (str(uuid.uuid4()), unknown)):
                begun = time.perf_counter()
                assert (await client.get(f"/task/{task_id}/status")).status_code == 404
                times.append(time.perf_counter() - begun)
    spread = statistics.quantiles(unknown, n=4)
    difference = abs(statistics.median(foreign) - statistics.median(unknown))
    assert difference < max(spread[2] - spread[0], 0.0005)


async def test_a_key_is_traded_for_a_token_that_opens_the_same(gw: World) -> None:
    traded = await gw.post("/auth/token")
    assert (traded.status_code, traded.headers["cache-control"]) == (200, "no-store")
    said = traded.json()
    assert (said["token_type"], said["expires_in"], said["scope"]) == ("Bearer", 900, "generate read")
    bearer = {"Authorization": f"Bearer {said['access_token']}"}
    assert (await ask(gw, "GET", "/tasks", bearer)).status_code == 200
    assert (await ask(gw, "POST", "/auth/token", bearer)).status_code == 403


async def test_a_signed_path_opens_one_file_and_no_more(gw: World) -> None:
    made = await gw.create()
    gw.hand.finish(await gw.hand.take())
    await gw.until(made["task_id"], "completed")
    principal = await gw.gateway.security.authenticate(gw.headers, address="192.0.2.1")
    path = gw.gateway.security.sign_path(f"/task/{made['task_id']}/result?index=0", principal, seconds=900)
    async with httpx2.AsyncClient(base_url=gw.url, trust_env=False, timeout=300) as stranger:
        opened = await stranger.get(path)
        assert (opened.status_code, opened.headers["content-type"]) == (200, "image/png")
        for changed in (path.replace("index=0", "index=1"), path.replace("user=ada", "user=eve"), path + "&wait=1"):
            assert (await stranger.get(changed)).status_code == 401
        assert (await stranger.get(path.replace("/result", "/status"))).status_code == 401
        assert (await stranger.delete(path.replace("/result", ""))).status_code == 401


async def test_every_answer_has_the_headers(gw: World) -> None:
    for method, path in (("GET", "/healthz"), ("GET", "/nowhere"), ("GET", "/tasks"), ("PUT", "/tasks")):
        headers = (await ask(gw, method, path, gw.headers)).headers
        assert headers["content-security-policy"] == CONTENT_SECURITY_POLICY
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-request-id"]
        assert "total;dur=" in headers["server-timing"]
        assert "server" not in headers


async def test_the_trace_goes_with_the_job(gw: World) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    sent = gw.headers | {"traceparent": f"00-{trace}-b7ad6b7169203331-01", "X-Request-ID": "client-7"}
    assert (await ask(gw, "POST", "/generate-image", sent)).headers["x-request-id"] == "client-7"
    payload: Any = (await gw.hand.take()).payload
    envelope = payload["input"]["gateway"]
    assert envelope["request_id"] == "client-7"
    assert trace in envelope["traceparent"]


async def test_usage_is_charged_and_given_back(gw: World) -> None:
    async def used() -> float:
        return float((await gw.get("/usage")).json()["work"][0]["used"])

    assert await used() == 0
    made = await gw.create()
    assert await used() == pytest.approx(128 * 128 / 1_048_576 * 2, abs=0.002)
    await gw.delete(f"/task/{made['task_id']}")
    await gw.until_settled(made["task_id"])
    assert await used() == 0


async def test_metrics_name_no_user_and_no_task(gw: World) -> None:
    made = await gw.create()
    gw.hand.finish(await gw.hand.take())
    await gw.until(made["task_id"], "completed")
    page = (await ask(gw, "GET", "/metrics", {})).text
    assert 'flux_gateway_tasks_total{status="completed",type="image"} 1.0' in page
    assert 'flux_gateway_dependency_up{name="redis"} 1.0' in page
    assert "ada" not in page
    assert made["task_id"] not in page


async def test_a_webhook_over_http(gw_with_hooks: World) -> None:
    gw, came = gw_with_hooks, []

    async def receive(request: web.Request) -> web.Response:
        came.append((await request.read(), {name.lower(): value for name, value in request.headers.items()}))
        return web.Response()

    async with server(receive) as port:
        hook = {"url": f"http://127.0.0.1:{port}/hook", "events": ["status", "completed"]}
        made = await gw.create(webhook=hook)
        job = await gw.hand.take()
        gw.hand.progress(job, 0.5, seq=1)
        await gw.until(made["task_id"], "processing")
        gw.hand.finish(job)
        await gw.until(made["task_id"], "completed")
        delivered: list[dict[str, object]] = []
        while len(delivered) < 2 or {entry["state"] for entry in delivered} != {"delivered"}:
            delivered = (await gw.get("/webhooks/deliveries")).json()["deliveries"]
    secret = (await gw.get("/webhooks/secret")).json()["key"]
    said = [Webhook(secret).verify(body, headers) for body, headers in came]
    assert sorted(event["type"] for event in said) == ["task.completed", "task.processing"]
    assert {event["data"]["task_id"] for event in said} == {made["task_id"]}
    page = (await gw.get("/webhooks/deliveries?limit=1")).json()
    assert len(page["deliveries"]) == 1
    assert (await gw.get(f"/webhooks/deliveries?limit=1&cursor={page['next']}")).status_code == 200
    assert (await gw.get("/webhooks/deliveries", headers=await gw.key_of("eve"))).json()["deliveries"] == []


@pytest.mark.parametrize("cursor", ["nan", "-1", "1e9", "9" * 30, "²", "%00", "x"])
async def test_a_cursor_that_is_none(cursor: str, gw: World) -> None:
    assert (await gw.get(f"/webhooks/deliveries?cursor={cursor}")).status_code == 422


@pytest.mark.parametrize("url", ["http://hook.example/", "https://127.0.0.1/", "https://[::1]/", "https://10.1.2.3/x"])
async def test_a_webhook_that_leads_inside_is_refused_at_once(url: str, gw: World) -> None:
    answer = await gw.post("/generate-image", json={"prompt": "a red sun", "webhook": {"url": url}})
    assert (answer.status_code, answer.json()["field"]) == (422, "webhook.url")
