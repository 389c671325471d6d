"""Which store this worker's results go to, from its settings."""

from __future__ import annotations

import os
from pathlib import Path

from flux_engine.results.bucket import BucketStore
from flux_engine.results.bucket_address import bucket_from_settings
from flux_engine.results.store import INLINE_CACHE_BYTES, FolderStore, ResultStore
from flux_engine.settings import Settings


def store_from_settings(settings: Settings, *, cache_folder: Path, is_local_run: bool) -> ResultStore:
    """The bucket where one is set; else OUTPUT_DIR for a local run; else a bounded folder for reuse alone.

    A worker that returns its results inline still stores them, on the volume where there is one, so that the next
    job like it is answered without generating. Raises SettingsError where the bucket cannot be used as it is set.
    """
    if settings.has_bucket:
        return BucketStore(bucket_from_settings(settings))
    if is_local_run:
        return FolderStore(settings.output_dir)
    folder = shared_folder(settings, cache_folder=cache_folder) / "results"
    return FolderStore(folder, has_urls=False, max_bytes=INLINE_CACHE_BYTES)


def shared_folder(settings: Settings, *, cache_folder: Path) -> Path:
    """A folder of the volume, which all workers of an endpoint see, or `cache_folder` where there is no volume."""
    volume = settings.model_volume
    return volume / "flux-engine" if volume.is_dir() and os.access(volume, os.W_OK) else cache_folder
