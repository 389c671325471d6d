"""The TypeScript client: its types check, and compiled it does its jobs against the local platform."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web

from local_platform.server import Platform
from tests.clients.endpoint import painting
from tests.runpod.handlers.painter import painted
from tests.web_server import server

CLIENT: Final = Path(__file__).parents[2] / "clients" / "typescript"
COMPILER: Final = CLIENT / "node_modules" / ".bin" / "tsc"
USE: Final = Path(__file__).parent / "node" / "use.mjs"

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or not COMPILER.exists(), reason="needs node and `npm ci --prefix clients/typescript`"
)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client as JavaScript; compiling is the strict check of its types."""
    folder = tmp_path_factory.mktemp("client")
    made = subprocess.run([COMPILER, "-p", CLIENT, "--outDir", folder], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout
    (folder / "package.json").write_text('{"type": "module"}')
    return folder / "index.js"


async def used(compiled: Path, platform: Platform, orders: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return await used_at(compiled, platform.client_url, platform.endpoint.id, orders)


async def used_at(compiled: Path, base_url: str, endpoint: str, orders: list[dict[str, Any]]) -> list[dict[str, Any]]:
    process = await asyncio.create_subprocess_exec(
        *("node", str(USE), str(compiled), base_url, endpoint),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    told, _ = await process.communicate(json.dumps(orders).encode())
    answers: list[dict[str, Any]] = json.loads(told)
    return answers


def ordered(prompt: str, seed: int = 7, **order: Any) -> dict[str, Any]:
    return {"job": {"prompt": prompt, "seed": seed}, **order}


async def test_the_client_does_its_jobs(compiled: Path, tmp_path: Path) -> None:
    seen = str(tmp_path / "seen")
    orders = [
        ordered(f"until {seen}", seen=seen),
        ordered("fails once", seed=8),
        ordered("fails", tries=2),
        ordered("fails always", tries=2),
        ordered("no result"),
        ordered("wrong hash"),
        {"job": {"op": "capabilities"}},
        ordered("slow", cancel=True),
    ]
    async with painting(workers=1) as (platform, _):
        good, again, bad, passing, nothing, wrong, asked, cancelled = await used(compiled, platform, orders)
    assert (base64.b64decode(good["data"]), good["seed"], good["same"]) == (painted(7), 7, True)
    assert "denoising" in good["stages"]
    assert (base64.b64decode(again["data"]), again["same"]) == (painted(8), True)
    assert (bad["error"], bad["code"], bad["field"]) == ("JobFailed", "invalid_input", "prompt")
    assert (passing["error"], passing["code"]) == ("JobFailed", "storage_failed")
    assert [nothing["error"], wrong["error"], cancelled["error"]] == ["ResultLost", "ResultLost", "JobCancelled"]
    assert asked["answer"]["op"] == "capabilities"


async def test_jobs_survive_resets_and_a_killed_worker(compiled: Path) -> None:
    async with painting(workers=2, resets=0.15) as (platform, pool):
        working = asyncio.create_task(used(compiled, platform, [ordered("in silence", seed) for seed in range(12)]))
        await platform.endpoint.until(lambda: platform.endpoint.queue.counts()["completed"] >= 3, timeout_s=300)
        await pool.replace(pool.workers[0])
        answers = await working
    assert [base64.b64decode(answer["data"]) for answer in answers] == [painted(seed) for seed in range(12)]


@dataclass
class Unwell:
    """An endpoint whose first answer on each path but `/run` is none to be content with."""

    seen: list[str] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path, is_first = request.path, request.path not in self.seen
        self.seen.append(path)
        if path == "/e/run":
            return web.json_response({"id": "job-1"})
        if path == "/e/status/job-1":
            state = {"status": "IN_PROGRESS"} if is_first else {"status": "COMPLETED", "output": RESULT}
            return web.json_response(state)
        if path == "/broken-off" and is_first:
            answer = web.StreamResponse(headers={"Content-Length": str(len(DATA))})
            await answer.prepare(request)
            await answer.write(DATA[:5])
            assert request.transport is not None
            request.transport.abort()
            return answer
        if path in ("/524", "/429") and is_first:
            return web.Response(status=int(path[1:]), headers={"Retry-After": "0"} if path == "/429" else {})
        return web.Response(body=DATA, content_type="application/json" if path == "/typed-wrongly" else "image/png")


DATA: Final = b"a picture"
FILE: Final = {"content_type": "image/png", "width": 8, "height": 8, "sha256": hashlib.sha256(DATA).hexdigest()}
INLINE: Final = FILE | {"b64_json": base64.b64encode(DATA).decode(), "bytes": len(DATA)}
RESULT: Final = {"images": [INLINE], "seed": 1, "cached": False, "warnings": []}


async def test_a_file_comes_whole_whatever_happens_on_its_way(compiled: Path) -> None:
    endpoint = Unwell()
    async with server(endpoint.handle) as port:
        url = f"http://127.0.0.1:{port}"
        orders = [{"file": FILE | {"url": f"{url}/{path}"}} for path in ("broken-off", "524", "typed-wrongly", "429")]
        answers = await used_at(compiled, url, "e", orders[:3])
        begun = time.monotonic()
        answers += await used_at(compiled, url, "e", orders[3:])
        assert time.monotonic() - begun > 0.25  # `Retry-After: 0` is no wish to be asked without a pause
    assert answers == [{"data": base64.b64encode(DATA).decode()}] * 4
    (no_base64,) = await used_at(compiled, url, "e", [{"file": FILE | {"b64_json": "?"}}])
    assert no_base64["error"] == "ResultLost"


async def test_a_result_that_came_with_progress_is_not_asked_for_again(compiled: Path) -> None:
    endpoint = Unwell()
    async with server(endpoint.handle) as port:
        (answer,) = await used_at(compiled, f"http://127.0.0.1:{port}", "e", [ordered("a red sun")])
    assert answer["data"] == base64.b64encode(DATA).decode()
    assert endpoint.seen == ["/e/run", "/e/status/job-1", "/e/status/job-1"]


async def test_a_job_that_is_cancelled_once_it_has_failed_runs_no_second_time(compiled: Path) -> None:
    """The client hears of the failure after a first look at the job, at which it is cancelled."""
    error = json.dumps({"code": "storage_failed", "message": "as ordered", "retryable": True})
    running = {"status": "IN_PROGRESS", "output": {"stage": "denoising", "progress": 0.5}}
    states, asked = [running, {"status": "FAILED", "error": error}, {"status": "CANCELLED"}], list[str]()

    async def handle(request: web.Request) -> web.Response:
        asked.append(request.path.split("/")[2])
        return web.json_response({"id": "job-1"} if asked[-1] != "status" else states.pop(0))

    async with server(handle) as port:
        (answer,) = await used_at(compiled, f"http://127.0.0.1:{port}", "e", [ordered("a red sun", cancel=True)])
    assert answer["error"] == "JobCancelled"
    assert asked == ["run", "status", "cancel", "status", "retry", "cancel", "status"]


async def test_a_page_in_front_of_the_endpoint_is_not_asked_for_ever(compiled: Path) -> None:
    async def page(_request: web.Request) -> web.Response:
        return web.json_response({"id": "job-1"})

    async with server(page) as port:
        (answer,) = await used_at(compiled, f"http://127.0.0.1:{port}", "e", [ordered("a red sun")])
    assert (answer["error"], "status" in answer["message"]) == ("Refused", True)
