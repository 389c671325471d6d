"""How much memory a container has, from the files that the kernel shows it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from flux_engine.models.planning.host_memory import available_memory, total_memory
from flux_engine.units import GIB

NO_LIMIT_V1 = 9223372036854771712  # what version 1 shows in place of `max`


def machine(root: Path, files: dict[str, object]) -> Path:
    """A machine of 512 GiB, 400 GiB of it available, with the files of its control group."""
    (root / "proc").mkdir()
    (root / "proc" / "meminfo").write_text(
        f"MemTotal: {512 * 1024**2} kB\nMemFree: 1 kB\nMemAvailable: {400 * 1024**2} kB\n"
    )
    for name, content in files.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{content}\n")
    return root


def version_2(limit: object) -> dict[str, object]:
    return {
        "memory.max": limit,
        "memory.current": 40 * GIB,
        "memory.stat": f"anon {10 * GIB}\ninactive_file {30 * GIB}",
    }


def version_1(limit: object) -> dict[str, object]:
    return {
        "memory/memory.limit_in_bytes": limit,
        "memory/memory.usage_in_bytes": 40 * GIB,
        "memory/memory.stat": f"inactive_file 0\ntotal_inactive_file {30 * GIB}",
    }


@pytest.mark.parametrize("version", [version_1, version_2])
def test_a_container_has_what_its_group_allows(tmp_path: Path, version: Callable[[object], dict[str, object]]) -> None:
    root = machine(tmp_path, version(62 * GIB))
    assert total_memory(root) == 62 * GIB
    assert available_memory(root) == 52 * GIB  # the page cache gives 30 back


@pytest.mark.parametrize("files", [{}, version_2("max"), version_1(NO_LIMIT_V1)])
def test_without_a_limit_the_machine_s_memory_counts(tmp_path: Path, files: dict[str, object]) -> None:
    root = machine(tmp_path, files)
    assert (total_memory(root), available_memory(root)) == (512 * GIB, 400 * GIB)


def test_a_group_that_is_over_its_limit_has_nothing_left(tmp_path: Path) -> None:
    root = machine(tmp_path, version_2(5 * GIB))
    assert (total_memory(root), available_memory(root)) == (5 * GIB, 0)


def test_this_machine_has_memory() -> None:
    assert 1 << 26 < available_memory() <= total_memory() < 1 << 50
