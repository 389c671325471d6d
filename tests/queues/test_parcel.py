"""Values in a message, and large ones beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flux_engine.errors import StorageFailed
from flux_engine.queues.parcel import MESSAGE_BYTES, Parcels
from flux_engine.results.folder import FolderStore

SMALL: dict[str, Any] = {"prompt": "um sol, 太陽", "seed": 7}
LARGE: dict[str, Any] = {"image": "A" * MESSAGE_BYTES}


@pytest.mark.parametrize("value", [SMALL, LARGE, {}])
async def test_what_is_packed_is_unpacked(tmp_path: Path, value: dict[str, Any]) -> None:
    parcels = Parcels(FolderStore(tmp_path, has_urls=False))
    parcel = await parcels.pack(value)
    assert len(str(parcel)) < MESSAGE_BYTES
    assert await parcels.unpack(parcel) == value
    assert bool(list(tmp_path.rglob("*.json"))) == (value is LARGE)


async def test_without_a_store_large_values_are_refused_with_the_mend() -> None:
    with pytest.raises(StorageFailed, match="bucket, or CELERY_FOLDER"):
        await Parcels(None).pack(LARGE)
    with pytest.raises(StorageFailed, match="neither"):
        await Parcels(None).unpack({"key": "a.json", "bytes": 1, "sha256": "0" * 64})


async def test_a_file_that_is_gone_or_changed_is_no_value(tmp_path: Path) -> None:
    parcels = Parcels(FolderStore(tmp_path, has_urls=False))
    parcel = await parcels.pack(LARGE)
    (file,) = tmp_path.rglob("*.json")
    file.write_bytes(file.read_bytes().replace(b"A", b"B"))
    with pytest.raises(StorageFailed):
        await parcels.unpack(parcel)
    file.unlink(missing_ok=True)
    with pytest.raises(StorageFailed):
        await parcels.unpack(parcel)


@pytest.mark.parametrize("value", [[], "text", 3, None])
async def test_a_parcel_holds_an_object(value: object) -> None:
    with pytest.raises(StorageFailed, match="damaged"):
        await Parcels(None).unpack({"value": value})
