"""The memory of this machine that this container may use.

A container sees the whole machine in `/proc/meminfo`; its own limit is found with its control group, of
either version.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path("/")


@dataclass(frozen=True, slots=True)
class _GroupFiles:
    """Where a version of control groups keeps what is needed, below the root."""

    folder: str
    limit: str
    usage: str
    reclaimable: str  # a line of memory.stat


VERSIONS: Final = (
    _GroupFiles("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    _GroupFiles("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def total_memory(root: Path = ROOT) -> int:
    """Bytes that this container may use: the machine's, or its control group's limit where that is less."""
    total = _meminfo(root, "MemTotal")
    group = _group(root)
    return total if group is None else min(total, group[0])


def available_memory(root: Path = ROOT) -> int:
    """Bytes that can still be had. What the page cache holds and nobody uses counts as free, as with `MemAvailable`."""
    available = _meminfo(root, "MemAvailable")
    group = _group(root)
    return available if group is None else min(available, max(0, group[0] - group[1]))


def _group(root: Path) -> tuple[int, int] | None:
    """The limit of the control group and what is in use of it; None without a limit."""
    for files in VERSIONS:
        folder = root / files.folder
        try:
            limit = (folder / files.limit).read_text().strip()
            if not limit.isdigit():  # `max`
                return None
            in_use = int((folder / files.usage).read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except FileNotFoundError:
            continue
        return int(limit), in_use - int(stat.get(files.reclaimable, 0))
    return None


def _meminfo(root: Path, name: str) -> int:
    lines = dict(line.split(":", 1) for line in (root / "proc/meminfo").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024
