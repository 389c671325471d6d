"""Single files fetched to the volume, each form from a real server on the loopback interface."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from builder.fetch_file import FetchedFile, FetchError, fetch_file, means_file
from flux_engine.inputs.lora_sites import LoraSites
from flux_engine.models.served import ServedModels
from flux_engine.models.single_file.content import content_hash
from flux_engine.net.fetch import Fetcher
from tests.models.single_file.files import FLUX_1, gguf, safetensors
from tests.web_server import loopback, server

MODEL = safetensors(FLUX_1)
LORA = safetensors({"transformer.proj_out.lora_A.weight": (4, 4)})
PAGE = b"<!doctype html><html><title>Log in</title><form><input type='password'></form></html>"


@dataclass
class Sites:
    """A hub, Civitai and another host in one, which answer with `content`."""

    port: int = 0
    content: bytes = MODEL
    sha256: str | None = None  # that the hub tells
    asked: list[str] = field(default_factory=list)

    def downloads(self) -> list[str]:
        return [path for path in self.asked if not path.startswith("/api/models/")]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        if request.path.startswith("/api/models/"):
            digest = self.sha256 or hashlib.sha256(self.content).hexdigest()
            lfs = {"sha256": digest, "size": len(self.content), "pointerSize": 1}
            files = [{"rfilename": name, "size": len(self.content), "lfs": lfs} for name in ("a.safetensors", "b.gguf")]
            return web.json_response({"id": "o/r", "modelId": "o/r", "sha": "c" * 40, "siblings": files})
        return web.Response(body=self.content)

    def fetch(self, source: str, volume: Path, **options: Any) -> FetchedFile:
        origin = f"http://127.0.0.1:{self.port}"
        sites = LoraSites(
            hosts=("files.example",),
            hub_url=origin,
            civitai_url=origin,
            hf_token=SecretStr("hub"),
            civitai_token=SecretStr("civit"),
        )
        fetcher = Fetcher(allow_private=True, resolve=loopback)
        return fetch_file(source, volume, sites=sites, fetcher=fetcher, **options)


@pytest.fixture
async def sites() -> AsyncIterator[Sites]:
    made = Sites()
    async with server(made.handle) as port:
        made.port = port
        yield made


@pytest.mark.parametrize(
    ("source", "place", "content"),
    [
        ("o/r:a.safetensors", "o--r/a.safetensors", MODEL),
        ("o/r:b.gguf", "o--r/b.gguf", gguf(FLUX_1)),
        ("civitai:691639", "civitai-691639.safetensors", MODEL),
        ("civitai:7", "civitai-7.gguf", gguf(FLUX_1)),
    ],
)
async def test_each_form_is_fetched_and_named_as_jobs_name_it(
    sites: Sites, source: str, place: str, content: bytes, tmp_path: Path
) -> None:
    sites.content = content
    assert means_file(source)
    found = await asyncio.to_thread(sites.fetch, source, tmp_path)
    assert found.path == tmp_path / "models" / place
    assert found.path.read_bytes() == content
    served = ServedModels(found.name, volume=tmp_path, has_gpu=False)
    assert served.default().id == source
    (kept,) = (tmp_path / "flux-engine" / "sha256").iterdir()  # so that no worker has to read it all
    assert json.loads(kept.read_text())["sha256"] == content_hash(found.path, volume=tmp_path)
    assert await asyncio.to_thread(sites.fetch, source, tmp_path) == found
    assert len(sites.downloads()) == 1


@pytest.mark.parametrize(
    ("source", "content", "said"),
    [
        ("civitai:7", LORA, "`civitai-7.safetensors` is a LoRA"),
        ("civitai:7", PAGE, "Civitai sent a web page that asks for a login"),
        ("civitai:7", MODEL[:-1], "is truncated"),
        ("o/r:a.safetensors", LORA, "`a.safetensors` is a LoRA"),
        ("o/r:none.gguf", MODEL, "`o/r` holds no file `none.gguf`"),
        ("http://files.example/a.safetensors", MODEL, "an address must begin with https://"),
        ("https://files.example/", MODEL, "the address names no file"),
        ("https://elsewhere.example/a.safetensors", MODEL, "LORA_HOSTS"),
    ],
)
async def test_what_is_no_model_is_named_and_nothing_is_left(
    sites: Sites, source: str, content: bytes, said: str, tmp_path: Path
) -> None:
    sites.content = content
    with pytest.raises(FetchError, match=said):
        await asyncio.to_thread(sites.fetch, source, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


async def test_a_file_with_another_hash_than_the_hub_tells_is_removed(sites: Sites, tmp_path: Path) -> None:
    sites.sha256 = "0" * 64
    with pytest.raises(FetchError, match="damaged and was removed"):
        await asyncio.to_thread(sites.fetch, "o/r:a.safetensors", tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
