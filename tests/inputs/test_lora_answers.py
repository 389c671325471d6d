"""What a site sends in place of a LoRA is named, and never remembered: the next job gets the file."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from flux_engine.errors import FluxError, InputFetchFailed, LoraInvalid
from flux_engine.inputs.lora_header import check_header
from flux_engine.inputs.lora_sites import LoraSites
from flux_engine.inputs.lora_store import LoraLimits, LoraStore
from flux_engine.net.fetch import Fetcher
from tests.inputs.lora_bytes import lora_bytes
from tests.web_server import loopback, own_certificate, server

LORA = lora_bytes()
SHA = hashlib.sha256(LORA).hexdigest()
LOGIN = "<!DOCTYPE html><html><title>Sign in</title></html>"
CHALLENGE = "<!DOCTYPE html><html><title>Just a moment...</title></html>"
PAGE = "<!DOCTYPE html><html><title>A style</title></html>" + "<p>words</p>" * 300
HOSTS = ("files.example", "huggingface.co", "civitai.com")


class Site:
    """All sites at once, over TLS: `answer` is what a download gives."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.answer: Callable[[web.Request], web.StreamResponse] = lambda _: web.Response(body=LORA)
        self.files = ["x.safetensors"]
        self.downloads: list[str] = []  # as they were asked for

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path.startswith("/api/models/"):
            siblings = [{"rfilename": name, "size": 10} for name in self.files]
            return web.json_response({"id": "o/x", "modelId": "o/x", "sha": "c" * 40, "siblings": siblings})
        self.downloads.append(request.raw_path)
        if request.path == "/login":
            return web.Response(text=LOGIN, content_type="text/html")
        return self.answer(request)

    def url(self, path: str = "/x.safetensors") -> str:
        return f"https://files.example:{self.port}{path}"

    def store(self, folder: Path, trusting: Any, **sites: Any) -> LoraStore:
        """A worker's store; several with one folder are workers with one volume."""
        named: dict[str, Any] = {"hosts": ("files.example",), "civitai_url": f"https://civitai.com:{self.port}"}
        named["hub_url"] = f"http://127.0.0.1:{self.plain_port}"
        return LoraStore(
            folder,
            fetcher=Fetcher(allow_private=True, resolve=loopback, tls=trusting),
            limits=LoraLimits(max_file_bytes=1_000_000, max_cache_bytes=10**7),
            sites=LoraSites(**(named | sites)),
        )

    plain_port = 0


@asynccontextmanager
async def site(tmp_path: Path) -> AsyncIterator[tuple[Site, Any]]:
    serving, trusting = own_certificate(tmp_path, *HOSTS)
    found = Site(0)
    async with server(found.handle, tls=serving) as port, server(found.handle) as plain_port:
        found.port, found.plain_port = port, plain_port
        yield found, trusting


def page(text: str, status: int = 200, **headers: str) -> Callable[[web.Request], web.StreamResponse]:
    return lambda _: web.Response(text=text, status=status, content_type="text/html", headers=headers)


def body(content: bytes) -> Callable[[web.Request], web.StreamResponse]:
    return lambda _: web.Response(body=content)


def redirect(_: web.Request) -> web.StreamResponse:
    return web.Response(status=307, headers={"Location": "/login?returnUrl=%2F&reason=download-auth"})


ANSWERS: dict[str, tuple[str, Callable[[web.Request], web.StreamResponse], tuple[str, ...], bool]] = {
    "Civitai's login page": ("civitai:7", redirect, ("version 7", "asks for a login", "set CIVITAI_TOKEN"), False),
    "any page of Civitai": ("civitai:7", page(PAGE), ("a web page", "set CIVITAI_TOKEN"), False),
    "status 401 of Civitai": ("civitai:7", page("", 401), ("refuses version 7", "set CIVITAI_TOKEN"), False),
    "a challenge of Civitai": ("civitai:7", page(CHALLENGE), ("checks for a human", "later"), True),
    "JSON of Civitai": ("civitai:7", page('{"error":"Unauthorized"}'), ("Unauthorized", "CIVITAI_TOKEN"), False),
    "the hub's login page": ("o/x", page(LOGIN), ("`o/x`", "asks for a login", "set HF_TOKEN"), False),
    "any page of the hub": ("o/x", page(PAGE), ("the hub sent a web page", "the address of the file itself"), False),
    "status 403 of the hub": ("o/x", page("", 403), ("refuses `o/x`", "set HF_TOKEN"), False),
    "a URL's login page": ("url", page(LOGIN), ("asks for a login", "a link that needs none"), False),
    "a URL's page": ("url", page(PAGE), ("a web page", "the address of the file itself"), False),
    "a URL's challenge": ("url", page(CHALLENGE), ("checks for a human",), True),
    "nothing": ("url", body(b""), ("empty",), True),
    "a bucket's error": ("url", body(b"<Error><Code>AccessDenied</Code></Error>"), ("AccessDenied",), False),
    "a bucket that is busy": ("url", body(b"<Error><Code>SlowDown</Code></Error>"), ("SlowDown",), True),
    "text": ("url", body(b"please try to log in first"), ("text", "send the LoRA itself"), False),
    "status 429": ("civitai:7", page("", 429, **{"Retry-After": "120"}), ("status 429", "wait 120 s"), True),
    "status 408": ("url", page("", 408), ("status 408",), True),
    "status 425": ("url", page("", 425), ("status 425",), True),
    "status 503": ("o/x", page("", 503, **{"Retry-After": "7"}), ("status 503", "wait 7 s"), True),
    "status 404 of Civitai": ("civitai:7", page("", 404), ("no version 7", "`modelVersionId`"), False),
}
FILES: dict[str, tuple[bytes, str]] = {
    "a zip": (b"PK\x03\x04" + bytes(60), "a zip archive; unpack it"),
    "a pickle": (b"\x80\x02}q\0.", "a Python pickle"),
    "a truncated file": (LORA[:-5], "truncated"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(60), "a picture"),
    "a whole model": (LORA.replace(b"proj_out.lora_A.weight", b"transformer_blocks.0.a").replace(
        b"transformer_blocks.0.a", b"single_blocks.0.weight").replace(b"lora_B", b"Xora_B"), "a whole model"),
    "an embedding": (LORA.replace(b"transformer.proj_out.lora_A.weight", b"emb_params".ljust(34, b"x")[:34]).replace(
        b"lora_B", b"Xora_B"), "no LoRA matrices"),
    "a broken gzip": (gzip.compress(LORA)[:-20], "broken gzip"),
}  # fmt: skip


@pytest.mark.parametrize(("path", "answer", "words", "may_pass"), ANSWERS.values(), ids=ANSWERS)
async def test_an_answer_in_place_of_the_file_is_named_and_not_remembered(
    path: str,
    answer: Callable[[web.Request], web.StreamResponse],
    words: tuple[str, ...],
    may_pass: bool,
    tmp_path: Path,
) -> None:
    async with site(tmp_path) as (found, trusting):
        store, asked = found.store(tmp_path / "loras", trusting), found.url() if path == "url" else path
        good, found.answer = found.answer, answer
        with pytest.raises(InputFetchFailed) as refusal:
            await store.get(asked)
        assert all(word in refusal.value.message for word in words), refusal.value.message
        assert (refusal.value.field, refusal.value.retryable) == ("loras", may_pass)
        found.answer = good
        assert (await store.get(asked)).sha256 == SHA


@pytest.mark.parametrize(("content", "words"), FILES.values(), ids=FILES)
@pytest.mark.parametrize("path", ["url", "civitai:7", "o/x"])
async def test_another_file_is_named_and_not_remembered(path: str, content: bytes, words: str, tmp_path: Path) -> None:
    async with site(tmp_path) as (found, trusting):
        store, asked = found.store(tmp_path / "loras", trusting), found.url() if path == "url" else path
        found.answer = body(content)
        with pytest.raises(LoraInvalid, match=words) as refusal:
            await store.get(asked)
        assert refusal.value.field == "loras"
        found.answer = body(LORA)
        assert (await store.get(asked)).sha256 == SHA


async def test_after_the_token_is_set_the_next_job_of_any_worker_works(tmp_path: Path) -> None:
    """Two workers, one volume: the login page that one of them got is in nobody's way."""
    async with site(tmp_path) as (found, trusting):

        def answer(request: web.Request) -> web.StreamResponse:
            return body(LORA)(request) if request.headers.get("Authorization") == "Bearer secret" else redirect(request)

        found.answer = answer
        one, other = (found.store(tmp_path / "loras", trusting) for _ in range(2))
        for store in (one, other, one):
            with pytest.raises(InputFetchFailed, match="set CIVITAI_TOKEN on this endpoint"):
                await store.get("civitai:7")
        token = SecretStr("secret")
        one, other = (found.store(tmp_path / "loras", trusting, civitai_token=token) for _ in range(2))
        assert (await one.get("civitai:7")).sha256 == SHA
        asked = len(found.downloads)
        assert (await other.get("civitai:7")).sha256 == SHA
        assert len(found.downloads) == asked  # from the volume


async def test_what_an_older_version_kept_by_mistake_is_removed(tmp_path: Path) -> None:
    async with site(tmp_path) as (found, trusting):
        await found.store(tmp_path / "loras", trusting).get("civitai:7")
        (kept,) = (tmp_path / "loras" / ".cache" / "files").iterdir()
        kept.write_text(LOGIN)
        for _ in range(2):
            assert (await found.store(tmp_path / "loras", trusting).get("civitai:7")).path.read_bytes() == LORA
        assert len(found.downloads) == 2


async def test_one_jobs_bad_luck_does_not_break_the_others(tmp_path: Path) -> None:
    """Five jobs ask at once, and the one whose request comes first gets a page."""
    async with site(tmp_path) as (found, trusting):

        def answer(request: web.Request) -> web.StreamResponse:
            return page(CHALLENGE)(request) if len(found.downloads) == 1 else body(LORA)(request)

        found.answer = answer
        store = found.store(tmp_path / "loras", trusting)
        results = await asyncio.gather(*(store.get("civitai:7") for _ in range(5)), return_exceptions=True)
        assert sorted(type(result).__name__ for result in results) == ["InputFetchFailed", *["StoredLora"] * 4]
        assert len(found.downloads) == 2


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        (
            "https://civitai.com/api/download/models/7?type=Model&format=SafeTensor&fileId=30",
            "/api/download/models/7?type=Model&format=SafeTensor&fileId=30",
        ),
        ("https://civitai.com/api/download/models/7?token=a%2Bb", "/api/download/models/7?token=a%2Bb"),
        ("civitai:7?fileId=30", "/api/download/models/7?fileId=30"),
        ("civitai:1@7", "/api/download/models/7"),
    ],
)
async def test_the_query_that_chooses_a_file_is_asked_and_remembered(path: str, asked: str, tmp_path: Path) -> None:
    async with site(tmp_path) as (found, trusting):
        store = found.store(tmp_path / "loras", trusting, civitai_token=SecretStr("of-the-endpoint"))
        found.answer = body(lora_bytes(seed=1))
        await store.get("https://civitai.com/api/download/models/7?fileId=31")
        found.answer = body(LORA)
        for _ in range(2):
            assert (await store.get(path)).sha256 == SHA
        assert found.downloads == ["/api/download/models/7?fileId=31", asked]


async def test_a_clients_own_token_goes_alone(tmp_path: Path) -> None:
    async with site(tmp_path) as (found, trusting):
        headers: list[str | None] = []

        def answer(request: web.Request) -> web.StreamResponse:
            headers.append(request.headers.get("Authorization"))
            return body(LORA)(request)

        found.answer = answer
        store = found.store(tmp_path / "loras", trusting, civitai_token=SecretStr("of-the-endpoint"))
        await store.get("https://civitai.com/api/download/models/7?token=mine")
        await store.get("civitai:7")
        assert headers == [None, "Bearer of-the-endpoint"]


async def test_a_host_outside_of_the_list_is_refused_with_the_variable(tmp_path: Path) -> None:
    async with site(tmp_path) as (found, trusting):
        with pytest.raises(InputFetchFailed, match="LORA_HOSTS"):
            await found.store(tmp_path / "loras", trusting).get("https://replicate.delivery/x/trained_model.tar")


# ------------------------------------------------------------------------------------------------------------ archives


def tar(files: dict[str, bytes], *, mode: str = "w", form: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=form) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


LONG = "output/" + "a-long-folder/" * 12 + "lora.safetensors"
REPLICATE = {"output/flux_train_replicate/lora.safetensors": LORA, "output/flux_train_replicate/config.yaml": b"x: 1"}
ARCHIVES: dict[str, bytes] = {
    "Replicate's": tar(REPLICATE),
    "with a long name, GNU": tar({LONG: LORA}),
    "with a long name, POSIX": tar({LONG: LORA, "x" * 120: b"y"}, form=tarfile.PAX_FORMAT),
    "old": tar({"lora.safetensors": LORA}, form=tarfile.USTAR_FORMAT),
    "with an embedding beside": tar({**REPLICATE, "output/x.safetensors": FILES["an embedding"][0]}),
    "gzipped": tar(REPLICATE, mode="w:gz"),
    "a gzipped LoRA": gzip.compress(LORA),
    "with files of macOS": tar({**REPLICATE, "output/._lora.safetensors": LORA}),
}


@pytest.mark.parametrize("content", ARCHIVES.values(), ids=ARCHIVES)
async def test_the_only_lora_of_an_archive_is_taken(content: bytes, tmp_path: Path) -> None:
    async with site(tmp_path) as (found, trusting):
        found.answer = body(content)
        store = found.store(tmp_path / "loras", trusting)
        for _ in range(2):
            stored = await store.get(found.url("/trained_model.tar"))
            assert (stored.sha256, stored.path.read_bytes()) == (SHA, LORA)
        assert len(found.downloads) == 1
        assert list((tmp_path / "loras" / ".cache" / "partial").iterdir()) == []


@pytest.mark.parametrize("mode", ["w", "w:gz"])
async def test_a_lora_of_an_archive_is_known_by_its_own_bytes(mode: str, tmp_path: Path) -> None:
    lora = lora_bytes(metadata={"lora_alpha": "8"})
    async with site(tmp_path) as (found, trusting):
        found.answer = body(tar({"lora.safetensors": lora}, mode=mode))
        stored = await found.store(tmp_path / "loras", trusting).get(found.url("/trained_model.tar"))
    assert stored.sha256 == hashlib.sha256(lora).hexdigest()


BOMB = gzip.compress(bytes(3_000_000))
BAD_ARCHIVES: dict[str, tuple[bytes, type[FluxError], str]] = {
    "two LoRAs": (
        tar({"a/one.safetensors": LORA, "two.safetensors": lora_bytes(seed=2)}),
        LoraInvalid,
        "2 LoRAs \\(`a/one.safetensors`, `two.safetensors`\\)",
    ),
    "none": (tar({"config.yaml": b"x"}), LoraInvalid, "no LoRA with a name"),
    "a pickle under the name": (tar({"x.safetensors": b"\x80\x02}q\0."}), LoraInvalid, "no LoRA with a name"),
    "truncated": (tar(REPLICATE)[:2000], LoraInvalid, "broken tar"),
    "a wrong checksum": (tar(REPLICATE).replace(b"output/flux", b"output/flvx", 1), LoraInvalid, "broken tar"),
    "many files": (tar({f"{i}": b"" for i in range(1001)}), LoraInvalid, "more than 1000 files"),
    "a bomb": (BOMB, InputFetchFailed, "unpacks to more than 1000000 bytes"),
    "an archive in an archive": (tar({"x.safetensors": tar(REPLICATE)}), LoraInvalid, "no LoRA with a name"),
}


@pytest.mark.parametrize(("content", "error", "words"), BAD_ARCHIVES.values(), ids=BAD_ARCHIVES)
async def test_another_archive_is_refused_by_name(
    content: bytes, error: type[FluxError], words: str, tmp_path: Path
) -> None:
    async with site(tmp_path) as (found, trusting):
        found.answer = body(content)
        store = found.store(tmp_path / "loras", trusting)
        with pytest.raises(error, match=words):
            await store.get(found.url("/trained_model.tar"))
        assert [path for path in (tmp_path / "loras").rglob("*") if path.is_file() and path.name != "lock"] == []


# ------------------------------------------------------------------------------------------------------- PEFT's config

CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 2}


@pytest.mark.parametrize(
    ("path", "files"),
    [
        ("o/x", ["adapter_model.safetensors", "adapter_config.json", "README.md"]),
        ("o/x:sub/adapter_model.safetensors", ["sub/adapter_model.safetensors", "sub/adapter_config.json"]),
        ("https://huggingface.co/o/x/resolve/main/adapter_model.safetensors", []),
        ("https://huggingface.co/o/x/blob/main/adapter_model.safetensors", []),
    ],
)
async def test_the_config_beside_a_file_of_peft_becomes_a_note_of_the_file(
    path: str, files: list[str], tmp_path: Path
) -> None:
    async with site(tmp_path) as (found, trusting):
        found.files = files
        config = json.dumps(CONFIG)
        found.answer = lambda r: web.Response(body=config.encode() if r.path.endswith(".json") else LORA)
        store = found.store(tmp_path / "loras", trusting, hosts=("huggingface.co",))
        asked = path.replace("huggingface.co", f"huggingface.co:{found.port}")
        stored = await store.get(asked if path.startswith("o/") else asked.replace("/blob/", "/resolve/"))
        header = check_header(stored.path, max_bytes=10**6)
        assert json.loads(header.metadata["adapter_config"]) == CONFIG
        assert stored.path.read_bytes()[header.data_start :] == LORA[-len(LORA) + check_size(LORA) :]
        assert stored.sha256 == hashlib.sha256(stored.path.read_bytes()).hexdigest() != SHA


def check_size(content: bytes) -> int:
    return 8 + int.from_bytes(content[:8], "little")


async def test_another_config_gives_another_file_and_a_broken_one_none(tmp_path: Path) -> None:
    async with site(tmp_path) as (found, trusting):
        found.files = ["adapter_model.safetensors", "adapter_config.json"]
        hashes = []
        for index, config in enumerate((b'{"lora_alpha": 2}', b'{"lora_alpha": 3}', b"<html>", b"[]")):
            found.answer = lambda r, c=config: web.Response(body=c if r.path.endswith(".json") else LORA)  # type: ignore[misc]
            hashes.append((await found.store(tmp_path / f"loras{index}", trusting).get("o/x")).sha256)
        assert len(set(hashes[:2])) == 2
        assert hashes[2:] == [SHA, SHA]


async def test_a_file_with_alphas_of_its_own_needs_no_config(tmp_path: Path) -> None:
    async with site(tmp_path) as (found, trusting):
        found.files = ["adapter_model.safetensors", "adapter_config.json"]
        content = lora_bytes(metadata={"lora_alpha": "2"})
        found.answer = body(content)
        stored = await found.store(tmp_path / "loras", trusting).get("o/x")
        assert stored.sha256 == hashlib.sha256(content).hexdigest()
        assert len(found.downloads) == 1


# ---------------------------------------------------------------------------------------------------------- the hub


@pytest.mark.parametrize(
    ("status", "headers", "text", "words", "may_pass"),
    [
        (429, {"Retry-After": "30"}, "", ("wait 30 s", "send the job again"), True),
        (408, {}, "", ("send the job again",), True),
        (503, {"Retry-After": "5"}, "", ("wait 5 s",), True),
        (500, {}, "", ("status 500",), True),
        (401, {}, "", ("HF_TOKEN",), False),
        (403, {"X-Error-Code": "GatedRepo"}, "", ("gated", "HF_TOKEN"), False),
        (404, {"X-Error-Code": "RepoNotFound"}, "", ("no repository", "HF_TOKEN"), False),
        (400, {}, "", ("status 400",), False),
        (200, {}, LOGIN, ("something else than a repository",), True),
        (200, {}, "[]", ("something else than a repository",), True),
        (200, {}, "{}", ("",), True),
    ],
)
async def test_what_the_hub_says_of_a_repository(
    status: int, headers: dict[str, str], text: str, words: tuple[str, ...], may_pass: bool, tmp_path: Path
) -> None:
    async def handle(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers=headers, text=text, content_type="application/json")

    async with server(handle) as port:
        store = LoraStore(
            tmp_path,
            fetcher=Fetcher(allow_private=True, resolve=loopback),
            limits=LoraLimits(max_file_bytes=1000, max_cache_bytes=1000),
            sites=LoraSites(hub_url=f"http://127.0.0.1:{port}"),
        )
        with pytest.raises(FluxError) as refusal:
            await store.get("o/x")
    assert all(word in refusal.value.message for word in words), refusal.value.message
    assert refusal.value.code in ("input_fetch_failed", "invalid_input")
    assert refusal.value.field == "loras"
    if text != "{}":
        assert refusal.value.retryable == may_pass
