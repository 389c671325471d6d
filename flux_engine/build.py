"""A worker from its settings."""

from __future__ import annotations

import os
from pathlib import Path

from flux_engine.generate.gpu import GpuThread
from flux_engine.models.manager import FluxModelManager
from flux_engine.settings import Settings
from flux_engine.storage.results import FolderStore
from flux_engine.worker import Worker


def build_worker(settings: Settings, *, is_local: bool) -> Worker:
    """Put the parts together. Opens nothing and starts no thread.

    A local run writes its results under OUTPUT_DIR; elsewhere they go to the bucket or inline.
    """
    store = FolderStore(settings.output_dir) if is_local else None
    return Worker(FluxModelManager(settings, has_gpu=has_gpu()), gpu=GpuThread(), store=store)


def has_gpu() -> bool:
    """Whether an NVIDIA device is in sight, told without importing torch."""
    return Path("/dev/nvidia0").exists() and os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1")
