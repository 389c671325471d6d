"""The TypeScript client: its types check, and compiled it does its jobs against the local platform."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from local_platform.server import Platform
from tests.clients.endpoint import painting
from tests.runpod.handlers.painter import painted

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
    process = await asyncio.create_subprocess_exec(
        *("node", str(USE), str(compiled), platform.client_url, platform.endpoint.id),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    told, _ = await process.communicate(json.dumps(orders).encode())
    answers: list[dict[str, Any]] = json.loads(told)
    return answers


def ordered(prompt: str, seed: int = 7, **order: Any) -> dict[str, Any]:
    return {"job": {"prompt": prompt, "seed": seed}, **order}


async def test_the_client_does_its_jobs(compiled: Path) -> None:
    orders = [
        ordered("a red sun"),
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
        working = asyncio.create_task(used(compiled, platform, [ordered("a red sun", seed) for seed in range(12)]))
        await platform.endpoint.until(lambda: platform.endpoint.queue.counts()["completed"] >= 3, timeout_s=300)
        await pool.replace(pool.workers[0])
        answers = await working
    assert [base64.b64decode(answer["data"]) for answer in answers] == [painted(seed) for seed in range(12)]
