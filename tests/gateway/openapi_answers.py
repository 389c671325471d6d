"""The OpenAPI document, taken at its word: whatever it allows and whatever it forbids is sent to every route, and no
answer is one that it does not name.

Endless streams are asked to end after their snapshot. `test_openapi.py` runs this file in a process of its own:
schemathesis makes its examples while tests are collected, 15 s that every process of a run would pay.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import schemathesis
from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from flux_engine.gateway.app import openapi_document
from tests.gateway.world import World, failure, world
from tests.servers import RedisProcess

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES = 10
PLENTY = "1000000000"


@dataclass(frozen=True, slots=True)
class Live:
    """A gateway on a loop of its own, whose jobs are finished as they come; `tasks` are of every kind."""

    gw: World
    tasks: Iterator[str]


@pytest.fixture(scope="module")
def live(shared_redis: RedisProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with start_blocking_portal() as portal:
        opened = world(
            shared_redis.url,
            tmp_path_factory.mktemp("openapi"),
            MAX_REQUESTS_PER_MINUTE=PLENTY,
            MAX_WORK_PER_MINUTE=PLENTY,
            MAX_WORK_PER_DAY=PLENTY,
            MAX_TASKS_WAITING_PER_USER=PLENTY,
        )
        with portal.wrap_async_context_manager(opened) as gw:
            made = portal.call(_tasks, gw)
            working = portal.start_task_soon(gw.hand.work)
            yield Live(gw, itertools.cycle(made))
            working.cancel()


async def _tasks(gw: World) -> list[str]:
    """One that is completed, one that is cancelled, one that has failed."""
    ids = [(await gw.create(seed=seed))["task_id"] for seed in range(3)]
    await gw.delete(f"/task/{ids[1]}")
    for _ in range(2):
        job = await gw.hand.take()
        is_first = job.payload["input"]["seed"] == 0  # type: ignore[index]
        gw.hand.finish(job, error=None if is_first else failure("content_filtered"))
    for task_id in ids:
        await gw.until(task_id, "completed", "cancelled", "failed")
    return ids


api = schemathesis.openapi.from_dict(openapi_document())
api.config.generation.deterministic = True


@api.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_one_that_the_document_names(case: schemathesis.Case[Any], live: Live) -> None:
    if case.path.endswith("/events"):
        case.query["once"] = "true"
    if "task_id" in case.path_parameters and len(str(case.path_parameters["task_id"])) % 2:
        case.path_parameters["task_id"] = next(live.tasks)
    case.call_and_validate(base_url=live.gw.url, headers=live.gw.headers, checks=CHECKS, timeout=300)
