"""The manifests' probes, asked of the real processes that they are for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import httpx2
import pytest

from benchmarks.gateways import GatewayProcess, new_key
from local_platform.celery_workers import CeleryPool
from tests.deploy.test_kubernetes import containers, pytestmark
from tests.servers import RedisProcess
from tests.waiting import until

__all__ = ["pytestmark"]  # without kubectl nothing is rendered
KINDS = ("startup", "liveness", "readiness")


def paths(name: str) -> dict[str, str]:
    """By kind, as the manifest of the container `name` has them."""
    container = next(one for one in containers("gpu") if one["name"] == name)
    return {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in KINDS}


async def answers(url: str, name: str) -> dict[str, int]:
    async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=300) as http:
        return {kind: (await http.get(path)).status_code for kind, path in paths(name).items()}


@pytest.fixture
async def environment(redis: RedisProcess, tmp_path: Path) -> Mapping[str, str]:
    made = {
        "QUEUE": "celery",
        "REDIS_URL": redis.url,
        "CACHE_NAMESPACE": "probes",
        "GATEWAY_DATA": str(tmp_path / "data"),
        "MODEL_VOLUME": str(tmp_path / "volume"),
        "FLUX_MODEL": "flux-tiny",
        "WARMUP": "eager",
    }
    await new_key(made)  # without one a gateway does not start
    return made


async def test_a_gateway_lives_without_redis_and_is_not_ready(
    environment: Mapping[str, str], redis: RedisProcess
) -> None:
    gateway = await GatewayProcess.start(environment)
    try:
        await gateway.until_ready()
        assert await answers(gateway.url, "gateway") == {"startup": 200, "liveness": 200, "readiness": 200}
        redis.kill()
        assert await answers(gateway.url, "gateway") == {"startup": 200, "liveness": 200, "readiness": 503}
    finally:
        await gateway.terminate()


IMPORT_HELD = """
import sys, time
from pathlib import Path

class Held:
    def find_spec(self, name, path=None, target=None):
        while name == "torch.nn" and not Path(__file__).with_name("go").exists():
            time.sleep(0.02)

sys.meta_path.insert(0, Held())
"""


@pytest.mark.slow
async def test_a_worker_lives_while_it_warms_and_is_ready_after(environment: Mapping[str, str], tmp_path: Path) -> None:
    """It begins to warm with torch's import, which takes until this test has seen it."""
    (tmp_path / "sitecustomize.py").write_text(IMPORT_HELD)
    async with CeleryPool(environment={**environment, "PYTHONPATH": str(tmp_path)}) as pool:
        (worker,) = await pool.start(1)
        warming = {"startup": 200, "liveness": 200, "readiness": 503}
        assert await answers(pool.url(worker), "worker") == warming
        (tmp_path / "go").touch()

        async def has_warmed() -> bool:
            return await answers(pool.url(worker), "worker") != warming

        await until(has_warmed)
        assert await answers(pool.url(worker), "worker") == {"startup": 200, "liveness": 200, "readiness": 200}
