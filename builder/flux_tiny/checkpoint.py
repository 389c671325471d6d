"""What a training stage needs to go on after an interruption: its state on disk, and a learning rate by step."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Final

import torch

SAVE_EVERY_S: Final = 60.0


class Checkpoint:
    """The state of one stage, kept in one file that appears by rename."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._saved_at = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The saved state, or None before the first save. The file is this training's own."""
        if not self._path.exists():
            return None
        state: dict[str, Any] = torch.load(self._path, weights_only=True)
        return state

    def save(self, state: dict[str, Any]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, self._path)
        self._saved_at = time.monotonic()

    def is_due(self) -> bool:
        return time.monotonic() - self._saved_at >= SAVE_EVERY_S


def one_cycle(step: int, *, total: int, peak: float, warmup: int, decay_share: float) -> float:
    """Learning rate that rises over `warmup` steps, holds `peak`, and falls to zero over the last `decay_share`."""
    decay_from = total * (1 - decay_share)
    if step < warmup:
        return peak * (step + 1) / warmup
    if step >= decay_from:
        return peak * max(0.0, (total - step) / (total - decay_from))
    return peak
