"""A worker from its settings."""

from __future__ import annotations

from pathlib import Path

from flux_engine.cache.manager import CacheManager
from flux_engine.generate.gpu import GpuThread
from flux_engine.health import Check, cuda_of_torch, fitness_checks
from flux_engine.inputs.fetcher import InputFetcher
from flux_engine.inputs.lora_store import LoraStore
from flux_engine.inputs.pictures import PictureSource
from flux_engine.models.manager import FluxModelManager
from flux_engine.models.planning.device import has_gpu, read_device, read_driver
from flux_engine.models.planning.plan import Preferences
from flux_engine.models.served import ServedModels
from flux_engine.net.fetch import Fetcher
from flux_engine.results.destination import shared_folder, store_from_settings
from flux_engine.results.pending import KeptResults
from flux_engine.settings import Settings, default_cache_folder
from flux_engine.worker import Worker


def build_worker(
    settings: Settings,
    *,
    is_local: bool,
    cache_folder: Path | None = None,
    models: FluxModelManager | None = None,
    gpu: GpuThread | None = None,
) -> Worker:
    """Put the parts together. Opens nothing and starts no thread. Raises SettingsError for an unusable bucket
    and a model that can never be served.

    `models` and `gpu` may be handed in, so that several workers of one process share a loaded model.
    A local run writes its results under OUTPUT_DIR; elsewhere they go to the bucket or inline.
    """
    cache_folder = cache_folder or default_cache_folder()
    return Worker(
        models or build_models(settings),
        gpu=gpu or GpuThread(),
        cache=CacheManager.from_settings(settings, cache_folder=cache_folder),
        store=store_from_settings(settings, cache_folder=cache_folder, is_local_run=is_local),
        kept=KeptResults(shared_folder(settings, cache_folder=cache_folder) / "pending"),
        inputs=InputFetcher(LoraStore.from_settings(settings), PictureSource(Fetcher())),
        url_expiry_s=settings.url_expiry_seconds,
        max_video_work=settings.max_video_work,
    )


def build_models(settings: Settings) -> FluxModelManager:
    """The models of a worker with these settings."""
    return FluxModelManager(
        _served(settings),
        gpu=read_device,
        volume=settings.model_volume,
        preferences=Preferences(
            profile=settings.profile,
            quantisation=settings.quantisation,
            text_quantisation=settings.text_quantisation,
            offload=settings.offload,
            compile=settings.compile,
            step_cache=settings.step_cache,
            attention_slicing=settings.attention_slicing,
        ),
        lora_max_bytes=settings.lora_max_bytes,
    )


def build_checks(settings: Settings) -> list[Check]:
    """What is to be looked at before the first job."""
    return fitness_checks(
        _served(settings),
        volume=settings.model_volume,
        cache_folder=default_cache_folder(),
        driver=read_driver,
        torch_cuda=cuda_of_torch(),
    )


def _served(settings: Settings) -> ServedModels:
    return ServedModels(settings.flux_model, volume=settings.model_volume, has_gpu=has_gpu())
