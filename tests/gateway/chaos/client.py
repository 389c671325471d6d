"""One user's wish for one picture, sent again until it is heard, watched across reconnections, fetched at its end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import httpx2

from flux_engine.gateway.tasks.events import stream_id

RETRY_S: Final = 0.1
FINAL: Final = ("completed", "failed", "cancelled")


@dataclass(slots=True)
class Client:
    """Everything that was said of one wish. `url` names any of the gateways."""

    number: int
    user: str
    key: str
    url: Callable[[], str]
    wish: Mapping[str, Any]
    task_id: str = ""
    status: str = ""
    ids: list[tuple[int, int]] = field(default_factory=list)
    progress: list[float] = field(default_factory=list)
    connections: int = 0
    creations: int = 0
    picture: bytes = b""
    result: dict[str, Any] = field(default_factory=dict)

    async def run(self, http: httpx2.AsyncClient) -> None:
        await self._create(http)
        last = ""
        while self.task_id and self.status not in FINAL:
            with suppress(httpx2.HTTPError):
                last = await self._watch(http, last)
            await asyncio.sleep(RETRY_S)
        await self._fetch(http)

    def faults(self) -> list[str]:
        """What must not have happened to it."""
        said = []
        if self.status != "completed":
            said.append(f"task {self.number} ended as {self.status or 'nothing'}: {self.result.get('error')}")
        if self.ids != sorted(set(self.ids)):
            said.append(f"task {self.number} saw an event twice, or an older one after a newer")
        if self.progress != sorted(self.progress):
            said.append(f"task {self.number} saw its progress fall")
        return said

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    async def _create(self, http: httpx2.AsyncClient) -> None:
        """One task by one key, however often that takes."""
        headers = self.headers | {"Idempotency-Key": f"order-{self.number}"}
        while not self.task_id:
            with suppress(httpx2.HTTPError):
                self.creations += 1
                answer = await http.post(f"{self.url()}/generate-image", json=self.wish, headers=headers)
                if answer.status_code in (200, 202):
                    self.task_id = answer.json()["task_id"]
                elif answer.status_code not in (429, 502, 503):
                    self.result = {"error": answer.text}
                    return
            await asyncio.sleep(RETRY_S)

    async def _watch(self, http: httpx2.AsyncClient, last: str) -> str:
        """One connection's worth of events; the id of the last one."""
        self.connections += 1
        headers = self.headers | ({"Last-Event-ID": last} if last else {})
        async with http.stream("GET", f"{self.url()}/task/{self.task_id}/events", headers=headers) as answer:
            if answer.status_code != 200:
                return last
            held: dict[str, str] = {}
            with suppress(httpx2.HTTPError):
                async for line in answer.aiter_lines():
                    if line == "" and "data" in held:
                        last = self._hear(held, last)
                        held = {}
                    name, _, value = line.partition(": ")
                    held[name] = value
        return last

    def _hear(self, event: dict[str, str], last: str) -> str:
        data = json.loads(event["data"])
        name, identity = event.get("event", ""), event.get("id", last)
        is_end_beside_snapshot = name in FINAL and self.ids and stream_id(identity) == self.ids[-1]
        if identity and not is_end_beside_snapshot:
            self.ids.append(stream_id(identity))
        if "progress" in data:
            self.progress.append(float(data["progress"]))
        if data.get("status") in FINAL:
            self.status, self.result = data["status"], data
        return identity

    async def _fetch(self, http: httpx2.AsyncClient) -> None:
        while self.status == "completed" and not self.picture:
            with suppress(httpx2.HTTPError):
                answer = await http.get(f"{self.url()}/task/{self.task_id}/result", headers=self.headers)
                if answer.status_code == 200:
                    self.picture = answer.content
                elif answer.status_code != 503:
                    self.status = f"completed without its picture ({answer.status_code})"
            await asyncio.sleep(RETRY_S)
