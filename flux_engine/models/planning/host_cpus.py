"""The processors of this machine that this container may use.

A container sees every core of its host; its share is a quota of its control group, of either version.
"""

from __future__ import annotations

import os
from pathlib import Path

from flux_engine.models.planning.host_memory import ROOT


def usable_cpus(root: Path = ROOT) -> int:
    """Whole processors: those that the process may run on, or its control group's quota where that is less."""
    allowed = len(os.sched_getaffinity(0))
    quota = _quota(root / "sys/fs/cgroup")
    return allowed if quota is None else max(1, min(allowed, int(quota)))


def _quota(group: Path) -> float | None:
    """Processors that the quota amounts to; None without one."""
    try:
        quota, period = (group / "cpu.max").read_text().split()
    except FileNotFoundError:
        try:
            quota = (group / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (group / "cpu/cpu.cfs_period_us").read_text().strip()
        except FileNotFoundError:
            return None
    return int(quota) / int(period) if quota.isdigit() else None  # `max`, or -1
