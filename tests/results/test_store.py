from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from flux_engine.build import build_store
from flux_engine.errors import StorageFailed
from flux_engine.results.bucket import BucketStore
from flux_engine.results.folder import FolderStore, make_room
from flux_engine.results.store import object_key
from flux_engine.settings import Settings

SHA = hashlib.sha256(b"picture").hexdigest()
KEY = object_key("", SHA, "png")


def read(path: str) -> bytes:
    return Path(path).read_bytes()


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_a_file_url_is_the_file(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "my outputs")
    await store.put(b"picture", key=KEY, content_type="image/png")
    link = await store.url(KEY)
    parts = urlsplit(link.url)
    assert (parts.scheme, link.expires_at) == ("file", None)
    assert read(unquote(parts.path)) == b"picture"
    assert await store.get(KEY, size=7, sha256=SHA) == b"picture"


async def test_a_file_is_there_only_whole(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    assert not await store.exists(KEY, size=7)
    await store.put(b"picture", key=KEY, content_type="image/png")
    assert await store.exists(KEY, size=7)
    (tmp_path / KEY).write_bytes(b"pic")
    assert not await store.exists(KEY, size=7)
    (tmp_path / KEY).unlink()
    with pytest.raises(StorageFailed):
        await store.get(KEY, size=7, sha256=SHA)


@pytest.mark.parametrize("found", [b"PICTURE", b"picture and more"])
async def test_a_file_that_is_not_what_was_stored_is_no_result(tmp_path: Path, found: bytes) -> None:
    store = FolderStore(tmp_path)
    (tmp_path / KEY).write_bytes(found)
    with pytest.raises(StorageFailed, match="damaged"):
        await store.get(KEY, size=7, sha256=SHA)
    assert not await store.exists(KEY, size=7)  # the next job like it makes it again


@pytest.mark.parametrize("key", ["../x.png", "a/../../x", "/etc/passwd", ".store-id", "a//b", "", "a\0b", "é.png"])
async def test_a_key_never_leaves_the_folder(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="not an object key"):
        await FolderStore(tmp_path / "outputs").put(b"x", key=key, content_type="image/png")
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(("sha256", "extension"), [("x" * 64, "png"), (SHA.upper(), "png"), (SHA, "../x"), (SHA, "")])
def test_a_key_is_made_of_the_content_alone(sha256: str, extension: str) -> None:
    with pytest.raises(ValueError, match="SHA-256"):
        object_key("flux", sha256, extension)
    assert object_key("flux", SHA, "webp") == f"flux/{SHA}.webp"


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    program = (
        "import asyncio, resource, signal, sys\n"
        "from pathlib import Path\n"
        "from flux_engine.results.folder import FolderStore\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"  # the kernel's refusal in the middle of a write
        "store = FolderStore(Path(sys.argv[1]))\n"
        "try:\n"
        "    asyncio.run(store.put(b'x' * 5000, key='big.png', content_type='image/png'))\n"
        "except Exception as error:\n"
        "    print(error.to_json('job-1'))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert '"storage_failed"' in done.stdout
    assert "File too large" in done.stdout
    assert str(tmp_path) not in done.stdout
    assert list(tmp_path.iterdir()) == []


async def test_a_folder_that_cannot_be_made_is_storage_failed(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("a file")
    with pytest.raises(StorageFailed):
        await FolderStore(tmp_path / "outputs").put(b"x", key=KEY, content_type="image/png")


async def test_an_identity_goes_with_the_disk_and_not_with_the_path(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    identities = await asyncio.gather(*(FolderStore(one).identity() for _ in range(8)))
    assert len(set(identities)) == 1
    assert await FolderStore(other).identity() not in identities
    one.rename(tmp_path / "moved")
    assert await FolderStore(tmp_path / "moved").identity() in identities
    assert await FolderStore(tmp_path / "moved", prefix="v2").identity() not in identities


def test_the_files_used_longest_ago_make_room(tmp_path: Path) -> None:
    names = [object_key("", digit * 64, "png") for digit in "0123"]
    for age, name in enumerate(names):
        (tmp_path / name).write_bytes(b"x" * 100)
        os.utime(tmp_path / name, (time.time() - age * 60,) * 2)
    abandoned = tmp_path / f".{'a' * 32}.partial"
    abandoned.write_bytes(b"x")
    os.utime(abandoned, (0, 0))
    make_room(tmp_path, 250)
    assert names_in(tmp_path) == names[:2]


async def test_only_what_a_store_wrote_makes_room(tmp_path: Path) -> None:
    """CELERY_FOLDER may be a folder of the volume that the models are on."""
    others = [tmp_path / "models" / "flux" / "model.safetensors", tmp_path / "notes.txt", tmp_path / "copy.partial"]
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 100)
        os.utime(path, (0, 0))
    await FolderStore(tmp_path, max_bytes=50).put(b"picture", key=KEY, content_type="image/png")
    assert [path.exists() for path in (*others, tmp_path / KEY)] == [True, True, True, True]


@pytest.mark.parametrize(
    ("environment", "is_local_run", "kind", "has_urls"),
    [
        ({}, True, FolderStore, True),
        ({}, False, FolderStore, False),
        (
            {
                "BUCKET_ENDPOINT_URL": "https://s3.amazonaws.com/art",
                "BUCKET_ACCESS_KEY_ID": "k",
                "BUCKET_SECRET_ACCESS_KEY": "s",
            },
            False,
            BucketStore,
            True,
        ),
    ],
)
def test_where_results_go(
    tmp_path: Path, environment: dict[str, str], is_local_run: bool, kind: type, has_urls: bool
) -> None:
    settings = Settings.from_environment(environment | {"MODEL_VOLUME": str(tmp_path / "no-volume")})
    store = build_store(settings, cache_folder=tmp_path, is_local=is_local_run)
    assert isinstance(store, kind)
    assert store.has_urls is has_urls
    store.close()


class FolderInUse(type(Path())):  # type: ignore[misc]
    """A folder of which a file is used between the look at it and the removal of others."""

    def rglob(self, pattern: str) -> Iterator[Path]:
        yield from super().rglob(pattern)
        os.utime(self / OLDEST)


OLDEST = f"{'a' * 64}.png"


def test_a_file_that_is_used_meanwhile_is_not_removed(tmp_path: Path) -> None:
    names = (OLDEST, f"{'b' * 64}.png", f"{'c' * 64}.png")
    for age, name in enumerate(names):
        (tmp_path / name).write_bytes(bytes(10))
        os.utime(tmp_path / name, (1000 + age, 1000 + age))
    make_room(FolderInUse(tmp_path), 20)
    assert sorted(path.name for path in tmp_path.iterdir()) == [names[0], names[2]]
