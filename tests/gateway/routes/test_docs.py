"""`/docs`: readable under the content security policy, complete, and gone where it is switched off."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

from tests.gateway.world import World, world
from tests.servers import RedisProcess


async def test_every_route_of_the_document_is_on_the_page(gw: World) -> None:
    page = (await gw.client.get("/docs")).text
    document = (await gw.client.get("/openapi.json")).json()
    for path, methods in document["paths"].items():
        for method in methods:
            assert f"<code>{method.upper()} {escape(path)}</code>" in page


async def test_the_page_needs_nothing_that_the_policy_forbids(gw: World) -> None:
    page = (await gw.client.get("/docs")).text
    assert not re.search(r"<script|style=|<style|\son\w+=|(?:src|href)=\"(?:https?:)?//", page)
    assert (await gw.client.get("/docs/style.css")).headers["content-type"].startswith("text/css")


async def test_it_can_be_switched_off(shared_redis: RedisProcess, tmp_path: Path) -> None:
    async with world(shared_redis.url, tmp_path, GATEWAY_DOCS="off") as gw:
        for path in ("/docs", "/docs/style.css", "/openapi.json"):
            assert (await gw.get(path)).status_code == 404
