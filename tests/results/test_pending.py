from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from flux_engine.errors import StorageFailed
from flux_engine.results.pending import KEPT_MAX_AGE_S, PendingResults
from flux_engine.results.store import put_all
from tests.cache.results_of import entry_of, files_of, held, read_back
from tests.servers import S3Process

ONE, TWO = "1" * 64, "2" * 64


async def test_what_was_kept_is_found_by_another_worker_and_dropped(tmp_path: Path) -> None:
    entry = entry_of(ONE, b"picture", prefix="flux")
    assert await PendingResults(tmp_path / "pending").keep(held(entry, b"picture"), job_id="job-1")
    found = await PendingResults(tmp_path / "pending").find(ONE, prefix="flux")
    assert found is not None
    assert found.entry == entry
    assert found.at_hand[0].key == entry.files[0].key
    elsewhere = await PendingResults(tmp_path / "pending").find(ONE, prefix="art/2026")
    assert elsewhere is not None
    assert elsewhere.at_hand[0].key == elsewhere.entry.files[0].key == f"art/2026/{entry.files[0].sha256}.png"
    assert [file.data for file in found.at_hand] == [b"picture"]
    await PendingResults(tmp_path / "pending").drop(ONE)
    assert await PendingResults(tmp_path / "pending").find(ONE, prefix="flux") is None
    assert list((tmp_path / "pending").iterdir()) == []


@pytest.mark.parametrize("damage", ["shortened", "another's", "no JSON", "one is missing"])
async def test_what_is_damaged_is_made_again(tmp_path: Path, damage: str) -> None:
    kept = PendingResults(tmp_path)
    entry = entry_of(ONE, b"picture")
    await kept.keep(held(entry, b"picture"), job_id="job-1")
    picture = tmp_path / ONE / entry.files[0].sha256
    match damage:
        case "shortened":
            picture.write_bytes(b"pict")
        case "another's":
            (tmp_path / ONE / "entry.json").write_text(entry_of(TWO, b"picture").model_dump_json())
        case "no JSON":
            (tmp_path / ONE / "entry.json").write_text("{")
        case _:
            picture.unlink()
    assert await kept.find(ONE, prefix="flux") is None


async def test_a_note_is_found_without_its_files_until_they_are_kept(tmp_path: Path) -> None:
    kept = PendingResults(tmp_path / "pending")
    entry = entry_of(ONE, b"picture", prefix="flux")
    assert await kept.note(entry, job_id="job-1")
    found = await PendingResults(tmp_path / "pending").find(ONE, prefix="art")
    assert found is not None
    assert (found.entry, found.at_hand) == (entry.under("art"), ())
    assert await kept.find(ONE, prefix="flux", job_id="job-2") is None
    await kept.keep(held(entry, b"picture"), job_id="job-1")
    found = await kept.find(ONE, prefix="flux")
    assert found is not None
    assert [file.data for file in found.at_hand] == [b"picture"]


async def test_two_workers_that_keep_one_result_at_once_both_keep_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one comes when room has been made for the first."""
    files, rename = held(entry_of(ONE, b"picture"), b"picture"), Path.rename

    def late(path: Path, target: Path) -> Path:
        if target == tmp_path / ONE:
            monkeypatch.setattr(Path, "rename", rename)
            assert asyncio.run(PendingResults(tmp_path).keep(files, job_id="other"))
        return rename(path, target)

    kept = PendingResults(tmp_path)
    monkeypatch.setattr(Path, "rename", late)
    assert await kept.keep(files, job_id="job-1")
    assert await kept.find(ONE, prefix="", job_id="job-1") is not None
    assert [path.name for path in tmp_path.iterdir()] == [ONE]


async def test_a_volume_that_takes_nothing_is_not_an_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "pending").write_text("a file")
    entry = entry_of(ONE, b"picture")
    assert not await PendingResults(tmp_path / "pending").keep(held(entry, b"picture"), job_id="job-1")
    assert "could not be kept" in caplog.text


async def test_what_nobody_came_back_for_goes(tmp_path: Path) -> None:
    kept = PendingResults(tmp_path)
    for fingerprint in (ONE, TWO):
        entry = entry_of(fingerprint, b"picture")
        await kept.keep(held(entry, b"picture"), job_id="job-1")
        os.utime(tmp_path / fingerprint, (time.time() - (KEPT_MAX_AGE_S + 1 if fingerprint == ONE else 0),) * 2)
    assert await kept.find(ONE, prefix="flux") is None
    assert await kept.find(TWO, prefix="flux") is not None


@pytest.mark.parametrize("job_id", ["job-1", "\ud800", "../x"])
async def test_what_one_job_left_is_found_by_that_job_alone_where_it_asks_so(tmp_path: Path, job_id: str) -> None:
    kept = PendingResults(tmp_path)
    entry = entry_of(ONE, b"picture")
    await kept.keep(held(entry, b"picture"), job_id=job_id)
    assert await kept.find(ONE, prefix="flux", job_id=job_id) is not None
    assert await kept.find(ONE, prefix="flux", job_id="job-2") is None
    assert await kept.find(ONE, prefix="flux") is not None


async def test_the_folder_is_bounded_and_what_was_kept_first_goes_first(tmp_path: Path) -> None:
    kept = PendingResults(tmp_path, max_bytes=5000)
    for number in range(8):
        data = bytes([number]) * 1000
        entry = entry_of(f"{number:064x}", data)
        assert await kept.keep(held(entry, data), job_id="job-1")
        os.utime(tmp_path / entry.fingerprint, (time.time() - 100 + number,) * 2)
    found = [await kept.find(f"{number:064x}", prefix="") is not None for number in range(8)]
    assert found == sorted(found)
    assert found[-2:] == [True, True]
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) <= 5000 + 1000


async def test_a_path_is_no_fingerprint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a fingerprint"):
        await PendingResults(tmp_path).find("../" + "1" * 61, prefix="flux")


async def test_storage_is_away_and_the_retry_uploads_what_was_kept(tmp_path: Path) -> None:
    server = S3Process(tmp_path)
    server.start()
    store, kept = server.store(), PendingResults(tmp_path / "pending")
    entry = entry_of(ONE, b"picture", prefix="flux")
    server.kill()
    with pytest.raises(StorageFailed):
        await put_all(store, files_of(entry, b"picture"))
    await kept.keep(held(entry, b"picture"), job_id="job-1")

    server.start()
    found = await kept.find(ONE, prefix="flux")
    assert found is not None
    await put_all(store, found.at_hand)
    await kept.drop(ONE)
    assert await read_back(store, b"picture", entry.files[0].key) == b"picture"
    store.close()
    server.kill()
