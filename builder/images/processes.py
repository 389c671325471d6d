"""Processes and their children, as Linux lists them."""

from __future__ import annotations

import os
from pathlib import Path


def children(pid: int) -> list[int]:
    """Those that `pid` has now, of all its threads."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for thread in threads for child in (thread / "children").read_text().split()]


def service_behind(pid: int) -> int:
    """What the buildah `pid` runs. Buildah's own processes kill it at once where they are asked to end.

    Raises ProcessLookupError or FileNotFoundError where it has ended.
    """
    if "buildah" not in Path(os.readlink(f"/proc/{pid}/exe")).name:
        return pid
    return service_behind(found[0]) if (found := children(pid)) else pid
