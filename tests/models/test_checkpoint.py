"""Quantised checkpoints: whole or not there, by one writer, swept, in little memory."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import pytest

from flux_engine.models.catalog import FLUX_TINY
from flux_engine.models.checkpoint import (
    ABANDONED_S,
    LOCK,
    MANIFEST,
    SHARD_BYTES,
    UNUSED_S,
    Snapshot,
    checkpoint_folder,
    sweep,
    write_checkpoint,
)
from flux_engine.models.keeper import SHARDS_OF_ROOM, CheckpointKeeper, is_on_a_mount
from flux_engine.models.loading import Source, load_tuned
from flux_engine.models.planning.gpus import cpu_machine
from flux_engine.models.planning.optimizer import ModelOptimizer
from flux_engine.models.planning.plan import Preferences
from flux_engine.units import GIB
from tests.models.tiny_flux import save_random_flux

PLAN = ModelOptimizer().plan(cpu_machine(total_bytes=16 * GIB), FLUX_TINY, Preferences(profile="memory"))


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    folder = save_random_flux(tmp_path_factory.mktemp("flux"))
    source = Source(folder=folder, revision="1", volume=tmp_path_factory.mktemp("volume"))
    unsaved = load_tuned(FLUX_TINY, source, PLAN, device="cpu").unsaved
    assert unsaved is not None
    return unsaved


def files_of(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def age(path: Path, seconds: float) -> None:
    for inner in (path, *path.rglob("*")):
        os.utime(inner, (time.time() - seconds,) * 2)


def test_workers_that_write_at_the_same_time_leave_one_whole_checkpoint(snapshot: Snapshot, tmp_path: Path) -> None:
    target = tmp_path / "quantised" / "made"
    with ThreadPoolExecutor(4) as workers:
        written = list(workers.map(lambda _: write_checkpoint(target, snapshot), range(8)))
    assert written.count(True) == 1
    assert [path.name for path in target.parent.iterdir()] == ["made"]
    assert write_checkpoint(tmp_path / "alone", snapshot)
    assert files_of(target) == files_of(tmp_path / "alone")
    assert not write_checkpoint(target, snapshot)  # made already: kept


def test_a_worker_that_was_done_between_the_look_and_the_lock_is_the_only_one(
    snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, mkdir = tmp_path / "quantised" / "made", Path.mkdir

    def late(path: Path, *arguments: Any, **named: Any) -> None:
        if path.name.endswith(".partial"):
            monkeypatch.setattr(Path, "mkdir", mkdir)
            assert write_checkpoint(target, snapshot)
        mkdir(path, *arguments, **named)

    monkeypatch.setattr(Path, "mkdir", late)
    assert not write_checkpoint(target, snapshot)
    assert [path.name for path in target.parent.iterdir()] == ["made"]


@pytest.mark.parametrize("after", [0, 1])
def test_a_writer_that_is_told_to_stop_leaves_nothing(snapshot: Snapshot, tmp_path: Path, after: int) -> None:
    shards = 0

    def go_on() -> bool:
        nonlocal shards
        shards += 1
        return shards <= after

    assert not write_checkpoint(tmp_path / "quantised" / "made", snapshot, go_on=go_on)
    assert list((tmp_path / "quantised").iterdir()) == []


WRITER = """
import sys, time
from pathlib import Path
import torch
from flux_engine.models.checkpoint import Snapshot, write_checkpoint

class Component(torch.nn.Linear):
    def save_config(self, folder):
        pass

def go_on():
    print("a shard is written", flush=True)
    time.sleep(600)

write_checkpoint(Path(sys.argv[1]), Snapshot.of({"transformer": Component(8, 8)}), go_on=go_on)
"""


def killed_while_writing(target: Path) -> Path:
    """What a writer of `target` leaves that gets SIGKILL between two shards."""
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(target)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline().startswith("a shard")
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    (left,) = target.parent.iterdir()
    assert left.name.endswith(".partial")
    return left


def test_a_writer_that_is_killed_leaves_nothing_that_the_next_one_does_not_clear(
    snapshot: Snapshot, tmp_path: Path
) -> None:
    target = tmp_path / "quantised" / "made"
    left = shutil.copytree(killed_while_writing(target), tmp_path / "other" / ".made.partial")
    assert write_checkpoint(target, snapshot)
    assert [path.name for path in target.parent.iterdir()] == ["made"]
    assert not (target / LOCK).exists()

    (left / LOCK).write_text("another machine")
    assert not write_checkpoint(left.with_name("made"), snapshot)  # which might be at work yet
    age(left, ABANDONED_S + 1)
    assert write_checkpoint(left.with_name("made"), snapshot)
    assert [path.name for path in left.parent.iterdir()] == ["made"]


def test_whoever_comes_late_to_a_dead_writer_leaves_the_one_that_has_begun_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = killed_while_writing(tmp_path / "quantised" / "made")
    flock = fcntl.flock

    def late(lock: IO[bytes], kind: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        sweep(left.parent)
        left.mkdir()
        (left / LOCK).write_text("another writer")
        flock(lock, kind)

    monkeypatch.setattr(fcntl, "flock", late)
    sweep(left.parent)
    assert (left / LOCK).read_text() == "another writer"


def test_checkpoints_of_other_libraries_go_once_nobody_loads_them(snapshot: Snapshot, tmp_path: Path) -> None:
    current, outdated, in_use = (tmp_path / name for name in ("current", "outdated", "in-use"))
    for folder in (current, outdated, in_use):
        assert write_checkpoint(folder, snapshot)
    for folder in (outdated, in_use):
        (folder / MANIFEST).write_text(json.dumps({"versions": {"torch": "1.0"}}))
    for folder in (current, outdated):
        age(folder, UNUSED_S + 1)
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"current", "in-use"}


def test_another_revision_dtype_scheme_or_layers_to_compile_is_another_folder(tmp_path: Path) -> None:
    def place(
        revision: str = "1", dtype: str = "bfloat16", scheme: str = "int8_weight_only", *, is_compiled: bool = False
    ) -> Path:
        schemes = {"transformer": scheme, "vae": "none"}
        return checkpoint_folder(
            tmp_path,
            model_id="a/b",
            revision=revision,
            dtype=dtype,
            quantisations=schemes,  # type: ignore[arg-type]
            is_compiled=is_compiled,
        )

    others = {place(revision="2"), place(dtype="float32"), place(scheme="fp8_dynamic"), place(is_compiled=True)}
    assert len({place(), *others}) == 5
    assert place() == place()


PEAK = """
import sys
from pathlib import Path
import torch
import torchao.prototype.safetensors.safetensors_support
import safetensors.torch
from flux_engine.models import checkpoint

class Component(torch.nn.Module):
    def __init__(self):
        super().__init__()
        for i in range(24):
            setattr(self, f"layer_{i}", torch.nn.Linear(2048, 2048, bias=False))
    def save_config(self, folder):
        pass

def peak():  # of this program: ru_maxrss begins with the peak of whoever started it
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])

component = Component()
for weight in component.parameters():
    weight.data.fill_(0.01)
checkpoint.SHARD_BYTES = 32 * 2**20
before = peak()
checkpoint.write_checkpoint(Path(sys.argv[1]), checkpoint.Snapshot.of({"transformer": component}))
print(sum(w.numel() * 4 for w in component.parameters()) // 1024, peak() - before)
"""


def test_writing_takes_memory_for_a_shard_and_not_for_the_component(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path / "made")], check=True, capture_output=True, text=True
    )
    component_kib, peak_kib = map(int, done.stdout.split())
    assert component_kib == 24 * 2048 * 2048 * 4 // 1024
    assert 0 < peak_kib < component_kib // 2


@pytest.mark.parametrize(("share", "is_kept"), [(1.0, True), (0.9, False)])
def test_a_keeper_asks_for_the_memory_that_this_model_takes(
    snapshot: Snapshot, tmp_path: Path, share: float, is_kept: bool
) -> None:
    assert snapshot.num_bytes() < SHARD_BYTES
    keeper = CheckpointKeeper(free_bytes=lambda: int(share * SHARDS_OF_ROOM * snapshot.num_bytes()))
    keeper.begin(tmp_path / "quantised" / "made", snapshot)
    keeper.wait()
    assert (tmp_path / "quantised" / "made" / MANIFEST).is_file() is is_kept


def test_a_keeper_writes_beside_the_jobs(snapshot: Snapshot, tmp_path: Path) -> None:
    keeper = CheckpointKeeper()
    keeper.begin(tmp_path / "quantised" / "made", snapshot)
    keeper.wait()
    assert (tmp_path / "quantised" / "made" / MANIFEST).is_file()
    keeper.stop()


def test_a_volume_that_takes_no_checkpoint_costs_nothing_else(snapshot: Snapshot, tmp_path: Path) -> None:
    (tmp_path / "quantised").write_text("in the way")
    keeper = CheckpointKeeper()
    keeper.begin(tmp_path / "quantised" / "made", snapshot)
    keeper.wait()
    assert (tmp_path / "quantised").read_text() == "in the way"


def test_a_containers_own_disk_is_no_volume(tmp_path: Path) -> None:
    assert is_on_a_mount(Path("/proc/self"))
    assert not is_on_a_mount(Path("/no-such-volume/models"))
