"""Every way to name a LoRA ends in the same file on the volume, fetched once. Servers are real ones on the loopback."""

from __future__ import annotations

import asyncio
import base64
import errno
import gc
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from flux_engine.errors import FluxError, InputFetchFailed, InvalidInput, StorageFailed
from flux_engine.inputs.lora_cache import LoraCache
from flux_engine.inputs.lora_sites import LoraSites
from flux_engine.inputs.lora_store import LoraLimits, LoraStore
from flux_engine.net.fetch import Fetched, Fetcher
from tests.inputs.lora_bytes import lora_bytes
from tests.servers import free_port
from tests.web_server import loopback, own_certificate, server

CONTENT = lora_bytes()
SHA = hashlib.sha256(CONTENT).hexdigest()
COMMIT = "c" * 40


class World:
    """The hub, Civitai and a file host, all on one server; notes what was asked and with what token."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.is_lfs_known = True
        self.asked: list[tuple[str, str | None]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.path, request.headers.get("Authorization")))
        if request.path.startswith("/api/models/"):
            return self._model(request)
        if request.path == "/api/download/models/691639":
            return web.Response(status=307, headers={"Location": "/file"})
        if request.path == "/api/download/models/7":
            return web.Response(status=401)
        if request.path.startswith("/api/") or request.path.endswith("missing"):
            return web.Response(status=404)
        return web.Response(body=self.content)

    def _model(self, request: web.Request) -> web.Response:
        repo = request.path.removeprefix("/api/models/").partition("/revision/")[0]
        names = {"o/one": ["x.safetensors", "sub/y.safetensors"], "o/two": ["x.safetensors", "y.safetensors"]}
        if repo not in names:
            return web.json_response({"error": "no"}, status=404, headers={"X-Error-Code": "RepoNotFound"})
        if request.path.endswith("/revision/nothing"):
            return web.json_response({"error": "no"}, status=404, headers={"X-Error-Code": "RevisionNotFound"})
        sha = hashlib.sha256(self.content).hexdigest()
        siblings: list[dict[str, Any]] = [{"rfilename": name, "size": len(self.content)} for name in names[repo]]
        for sibling in siblings if self.is_lfs_known else []:
            sibling["lfs"] = {"sha256": sha, "size": len(self.content), "pointerSize": 1}
        return web.json_response({"id": repo, "modelId": repo, "sha": COMMIT, "siblings": siblings})

    def downloads(self) -> int:
        return len([path for path, _ in self.asked if not path.startswith("/api/models/")])


def limits(**changes: Any) -> LoraLimits:
    return LoraLimits(**({"max_file_bytes": 10_000, "max_cache_bytes": 100_000} | changes))


@asynccontextmanager
async def served(
    folder: Path, *, fetcher: Fetcher | None = None, max_file_bytes: int = 10_000, **sites: Any
) -> AsyncIterator[tuple[World, LoraStore, str]]:
    world = World()
    async with server(world.handle) as port:
        origin = f"http://127.0.0.1:{port}"
        named: dict[str, Any] = {"hosts": ("files.example",), "hub_url": origin, "civitai_url": origin}
        store = LoraStore(
            folder,
            fetcher=fetcher or Fetcher(allow_private=True, resolve=loopback),
            limits=limits(max_file_bytes=max_file_bytes),
            sites=LoraSites(**(named | sites)),
        )
        yield world, store, f"files.example:{port}"


@pytest.mark.parametrize(
    "path",
    [
        "mine",
        "o/one",
        "o/one@v1:sub/y.safetensors",
        "https://huggingface.co/o/one/tree/main/sub",
        "civitai:691639",
        "https://civitai.com/models/1?modelVersionId=691639",
        base64.b64encode(CONTENT).decode(),
        "data:;base64," + base64.b64encode(CONTENT).decode(),
    ],
)
async def test_every_form_gives_the_file_and_its_hash_and_is_fetched_once(path: str, tmp_path: Path) -> None:
    (tmp_path / "mine.safetensors").write_bytes(CONTENT)
    async with served(tmp_path) as (world, store, _):
        for _ in range(2):
            stored = await store.get(path)
            assert stored.sha256 == SHA
            assert stored.path.read_bytes() == CONTENT
        assert world.downloads() <= 2  # Civitai's redirect and its end


async def test_a_url_is_fetched_again_only_when_it_is_old(tmp_path: Path) -> None:
    serving, trusting = own_certificate(tmp_path, "files.example")
    world = World()
    async with server(world.handle, tls=serving) as port:
        fetcher = Fetcher(allow_private=True, resolve=loopback, tls=trusting)
        for age, downloads in ((3600.0, 1), (3600.0, 1), (0.0, 2)):
            store = LoraStore(
                tmp_path,
                fetcher=fetcher,
                limits=limits(url_max_age_s=age),
                sites=LoraSites(hosts=("files.example",)),
            )
            assert (await store.get(f"https://files.example:{port}/x.safetensors")).sha256 == SHA
            assert world.downloads() == downloads
        with pytest.raises(InputFetchFailed, match="does not load from"):
            await store.get(f"https://other.example:{port}/x.safetensors")


async def test_a_file_that_makes_room_while_it_is_looked_at_is_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker removes it between the look at its name and the look at its header."""
    async with served(tmp_path) as (_, store, _origin):
        await store.get("civitai:691639")
    touch = os.utime

    def touched_and_removed(path: Path) -> None:
        touch(path)
        monkeypatch.setattr(os, "utime", touch)
        path.unlink()

    async with served(tmp_path) as (world, store, _origin):  # a worker that has not seen the file before
        monkeypatch.setattr(os, "utime", touched_and_removed)
        assert (await store.get("civitai:691639")).path.read_bytes() == CONTENT
        assert world.downloads() == 2  # Civitai's redirect and its end


async def test_two_jobs_with_one_lora_download_it_once(tmp_path: Path) -> None:
    async with served(tmp_path) as (world, store, _):
        world.is_lfs_known = False
        results = await asyncio.gather(*(store.get("o/one:x.safetensors") for _ in range(5)))
        assert {stored.sha256 for stored in results} == {SHA}
        assert world.downloads() == 1


@pytest.mark.parametrize(
    ("path", "error", "words"),
    [
        ("nothing", InvalidInput, "no LoRA `nothing.safetensors`"),
        ("leads-out", InvalidInput, "a link out of this folder"),
        ("o/two--dashes", InvalidInput, "no name of a repository"),
        ("o/missing", InputFetchFailed, "HF_TOKEN"),
        ("o/one@nothing", InputFetchFailed, "no revision `nothing`"),
        ("o/one:z.safetensors", InvalidInput, "no file `z.safetensors`"),
        ("o/two", InvalidInput, "2 LoRAs; name one, as in `o/two:FILE`: x.safetensors, y.safetensors"),
        ("https://hf.co/o/one/tree/main/lora", InvalidInput, "the folder `lora` of `o/one` holds no .safetensors"),
        ("civitai:5", InputFetchFailed, "no version 5; send the number behind `modelVersionId`"),
        ("civitai:7", InputFetchFailed, "CIVITAI_TOKEN"),
    ],
)
async def test_what_cannot_be_had_says_what_to_do(
    path: str, error: type[FluxError], words: str, tmp_path: Path
) -> None:
    (tmp_path / "outside.safetensors").write_bytes(CONTENT)
    folder = tmp_path / "loras"
    folder.mkdir()
    (folder / "leads-out.safetensors").symlink_to(tmp_path / "outside.safetensors")
    async with served(folder) as (_, store, _):
        with pytest.raises(error) as refusal:
            await store.get(path)
    assert words in refusal.value.message
    assert refusal.value.field == "loras"
    assert str(tmp_path) not in refusal.value.message


@pytest.mark.parametrize("path", ["o/one", "civitai:691639"])
async def test_a_lora_over_the_limit_leaves_no_bytes(path: str, tmp_path: Path) -> None:
    async with served(tmp_path, max_file_bytes=1000) as (_, store, _):
        with pytest.raises(InputFetchFailed, match="1000"):
            await store.get(path)
    assert not files_below(tmp_path)


class SmallVolume(Fetcher):
    """Downloads to a volume that is full at `capacity` bytes."""

    def __init__(self, folder: Path, *, capacity: int) -> None:
        super().__init__(allow_private=True, resolve=loopback)
        self._folder = folder
        self._capacity = capacity

    async def fetch_to(self, destination: Path, url: str, **options: Any) -> Fetched:
        fetched = await super().fetch_to(destination, url, **options)
        if sum(path.stat().st_size for path in (self._folder / ".cache" / "files").glob("*")) > self._capacity - 3000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return fetched


@pytest.mark.parametrize("is_in_use", [False, True])
async def test_on_a_full_volume_the_loras_used_longest_ago_make_room(tmp_path: Path, is_in_use: bool) -> None:
    cache = LoraCache(tmp_path, max_bytes=10**6)
    for index in range(3):
        content = bytes([index]) * 1000
        with cache.partial() as partial:
            partial.write_bytes(content)
            path = cache.store(partial, hashlib.sha256(content).hexdigest())
        if not is_in_use:
            os.utime(path, (1000 + index,) * 2)
    fetcher = SmallVolume(tmp_path, capacity=4500)
    async with served(tmp_path, fetcher=fetcher, max_file_bytes=3000) as (world, store, _):
        world.is_lfs_known = False
        if is_in_use:
            with pytest.raises(StorageFailed, match=r"No space left on device.*make room on the volume") as refusal:
                await store.get("o/one")
            assert refusal.value.retryable
            assert str(tmp_path) not in refusal.value.message
        else:
            assert (await store.get("o/one")).path.read_bytes() == CONTENT
    assert list((tmp_path / ".cache" / "partial").iterdir()) == []


@pytest.mark.parametrize("path", ["o/one", "civitai:691639", base64.b64encode(CONTENT).decode()])
async def test_a_volume_that_takes_nothing_is_named(path: str, tmp_path: Path) -> None:
    (tmp_path / "loras").write_text("a file where the folder should be")
    async with served(tmp_path / "loras") as (_, store, _origin):
        with pytest.raises(StorageFailed, match="could not read or write a LoRA on the volume") as refusal:
            await store.get(path)
    assert refusal.value.field == "loras"
    assert str(tmp_path) not in refusal.value.message


async def test_a_volume_that_takes_no_notes_costs_no_lora(tmp_path: Path) -> None:
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "sources").write_text("a file where the folder should be")
    async with served(tmp_path) as (_, store, _origin):
        assert (await store.get("civitai:691639")).sha256 == SHA


async def test_a_hub_that_cannot_be_reached_may_be_tried_again(tmp_path: Path) -> None:
    async with served(tmp_path, hub_url=f"http://127.0.0.1:{free_port()}") as (_, store, _origin):
        with pytest.raises(InputFetchFailed, match="the hub does not answer") as refusal:
            await store.get("o/one")
    assert refusal.value.retryable


async def test_many_loras_leave_no_locks_behind_in_memory(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, store, _origin):
        before = num_locks()
        for version in (691639, 5, 7):
            with suppress(InputFetchFailed):
                await store.get(f"civitai:{version}")
        assert num_locks() == before


def num_locks() -> int:
    gc.collect()
    return len([found for found in gc.get_objects() if type(found) is asyncio.Lock])


async def test_a_file_that_changes_on_the_volume_has_another_hash(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, store, _origin):
        for seed in range(3):
            content = lora_bytes(seed=seed)
            (tmp_path / "mine.safetensors").write_bytes(content)
            os.utime(tmp_path / "mine.safetensors", ns=(0, seed))
            assert (await store.get("mine")).sha256 == hashlib.sha256(content).hexdigest()


def files_below(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file()]


async def test_tokens_go_to_their_own_hosts(tmp_path: Path) -> None:
    """Over plain http none is sent by our own client; the hub's library is told its token, and only its own."""
    async with served(tmp_path, hf_token=SecretStr("hub"), civitai_token=SecretStr("civit")) as (world, store, _):
        await store.get("o/one")
        await store.get("civitai:691639")
    tokens = dict(world.asked)
    assert tokens.pop("/api/models/o/one") == "Bearer hub"
    assert set(tokens.values()) == {None}


async def test_the_cache_keeps_its_bound_and_what_was_used_last(tmp_path: Path) -> None:
    cache = LoraCache(tmp_path, max_bytes=3500)
    hashes = []
    for index in range(4):
        content = bytes([index]) * 1000
        hashes.append(hashlib.sha256(content).hexdigest())
        with cache.partial() as partial:
            partial.write_bytes(content)
            stored = cache.store(partial, hashes[-1])
        os.utime(stored, (1000 + index, 1000 + index))
        if index == 2:
            assert cache.find(hashes[0])
    assert [cache.find(sha) is not None for sha in hashes] == [True, False, True, True]


async def test_what_a_dead_worker_left_is_removed(tmp_path: Path) -> None:
    cache = LoraCache(tmp_path, max_bytes=10_000)
    with cache.partial() as partial:
        folder = partial.parent
    (folder / "old").write_bytes(b"x")
    os.utime(folder / "old", (time.time() - 7200,) * 2)
    (folder / "new").write_bytes(b"x")
    with cache.partial() as partial:
        partial.write_bytes(CONTENT)
        cache.store(partial, SHA)
    assert [path.name for path in folder.iterdir()] == ["new"]


WORKER = """
import hashlib, sys
from pathlib import Path
from flux_engine.inputs.lora_cache import LoraCache
cache = LoraCache(Path(sys.argv[1]), max_bytes=300_000)
for index in range(60):
    content = bytes([index % 20]) * 20_000
    sha = hashlib.sha256(content).hexdigest()
    with cache.partial() as partial:
        partial.write_bytes(content)
        cache.store(partial, sha)
    cache.remember(f"source {index}", sha)
    if index == 40 and sys.argv[2] == "dies":
        partial.write_bytes(content[:100])
        sys.stdout.write("dead")
        sys.stdout.flush()
        import os; os._exit(9)
"""


def test_two_workers_and_one_that_dies_leave_whole_files(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path), fate], cwd=root) for fate in ("lives", "dies")
    ]
    assert [worker.wait(60) for worker in workers] == [0, 9]
    files = list((tmp_path / ".cache" / "files").iterdir())
    assert sum(file.stat().st_size for file in files) <= 300_000
    for file in files:
        assert hashlib.sha256(file.read_bytes()).hexdigest() == file.stem
