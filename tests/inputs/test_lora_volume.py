"""Names of files as people have them on a volume, and nothing outside of its folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from flux_engine.errors import InvalidInput
from flux_engine.inputs.lora_sites import LoraSites
from flux_engine.inputs.lora_store import LoraLimits, LoraStore
from flux_engine.net.fetch import Fetcher
from tests.inputs.lora_bytes import lora_bytes
from tests.servers import free_port

LORA = lora_bytes()


def store_in(folder: Path) -> LoraStore:
    """With a hub that cannot be reached: a name on the volume must not be asked of it."""
    return LoraStore(
        folder,
        fetcher=Fetcher(),
        limits=LoraLimits(max_file_bytes=10_000, max_cache_bytes=10_000),
        sites=LoraSites(hub_url=f"http://127.0.0.1:{free_port()}"),
    )


NAMES = {  # on the volume: as a job may write it
    "style.safetensors": ["style", "style.safetensors", "loras/style", "loras/style.safetensors"],
    "Mosaic Style v2 (final).safetensors": ["Mosaic Style v2 (final)", "Mosaic Style v2 (final).safetensors"],
    "mosaic+stone.safetensors": ["mosaic+stone.safetensors"],
    "style.v2.safetensors": ["style.v2"],
    "FLUX/mosaic.safetensors": ["FLUX/mosaic", "FLUX/mosaic.safetensors", "loras/FLUX/mosaic"],
    "my loras/style v2.safetensors": ["my loras/style v2", "my loras/style v2.safetensors"],
    "a/b/c/d.safetensors": ["a/b/c/d"],
    "\u98a8\u666f.safetensors": ["\u98a8\u666f"],
    "Style.SAFETENSORS": ["Style.SAFETENSORS"],
    "[FLUX] _style.safetensors": ["[FLUX] _style", "loras/[FLUX] _style.safetensors"],
    "u\u0308ber/cafe\u0301.safetensors": ["\u00fcber/caf\u00e9", "loras/\u00fcber/caf\u00e9.safetensors"],  # from a Mac
    "it's 100% [new], #1 & more.safetensors": ["it's 100% [new], #1 & more"],
}


@pytest.mark.parametrize(("file", "path"), [(file, path) for file, paths in NAMES.items() for path in paths])
async def test_a_file_is_found_by_the_name_that_it_has(file: str, path: str, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_bytes(LORA)
    stored = await store_in(tmp_path).get(path)
    assert (stored.path, stored.sha256) == (tmp_path / file, hashlib.sha256(LORA).hexdigest())


async def test_links_within_the_folder_are_followed_and_others_are_not(tmp_path: Path) -> None:
    folder, outside = tmp_path / "loras", tmp_path / "outside"
    (folder / "real").mkdir(parents=True)
    outside.mkdir()
    (folder / "real" / "x.safetensors").write_bytes(LORA)
    (outside / "x.safetensors").write_bytes(LORA)
    (folder / "inside.safetensors").symlink_to(folder / "real" / "x.safetensors")
    (folder / "file.safetensors").symlink_to(outside / "x.safetensors")
    (folder / "folder").symlink_to(outside)
    (folder / "loop.safetensors").symlink_to(folder / "loop.safetensors")
    store = store_in(folder)
    assert (await store.get("inside")).path.read_bytes() == LORA
    refused = {
        "file": "is a link",
        "loop": "is a link",
        "folder/x.safetensors": "has no LoRA",
        "real/x.safetensors/y": "has no LoRA",
    }
    for name, said in refused.items():
        with pytest.raises(InvalidInput, match=said):
            await store.get(name)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("mosaik", "the nearest: `mosaic.safetensors`"),
        ("flux/mosaic.safetensors", "the nearest: `FLUX/mosaic.safetensors`"),
        ("FLUX/mosaic.SAFETENSORS", "the nearest: `FLUX/mosaic.safetensors`"),
        ("files.example/a/x.safetensors", "; an address begins with https://"),
        ("owner/repo/file.safetensors", "is `owner/repo:file.safetensors`"),
        ("nothing like it at all", "no LoRA `nothing like it at all.safetensors` in its folder `loras`"),
        ("\u98a8" * 120, "has no LoRA"),  # longer than a file system takes
        ("hidden", "has no LoRA"),
    ],
)
async def test_a_missing_name_says_what_is_near(path: str, words: str, tmp_path: Path) -> None:
    for name in ("mosaic", "FLUX/mosaic", ".cache/hidden"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.safetensors").write_bytes(LORA)
    with pytest.raises(InvalidInput) as refusal:
        await store_in(tmp_path).get(path)
    assert words in refusal.value.message
    assert ".cache" not in refusal.value.message
    assert refusal.value.field == "loras"
