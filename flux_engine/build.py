"""A worker from its settings."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from flux_engine.ask.questions import Questions
from flux_engine.cache.manager import CacheManager
from flux_engine.generate.generator import Generator
from flux_engine.generate.gpu import GpuThread
from flux_engine.health import Check, bucket_check, cuda_of_torch, fitness_checks
from flux_engine.inputs.fetcher import InputFetcher
from flux_engine.inputs.lora_store import LORA_FOLDER, LoraStore
from flux_engine.inputs.pictures import MAX_BYTES, PictureSource
from flux_engine.inputs.upscalers import UPSCALER_FOLDER, Upscalers
from flux_engine.media.decode import MAX_PIXELS
from flux_engine.media.marks.marker import Marker, Marks, Unmarked
from flux_engine.models.beside.content_filter import ContentFilter, find_filter
from flux_engine.models.beside.controlnets import CONTROLNET_FOLDER, ControlNets
from flux_engine.models.beside.depth import PREPROCESSOR_FOLDER, DepthModels
from flux_engine.models.manager import FluxModelManager
from flux_engine.models.planning.device import has_gpu, read_device, read_driver
from flux_engine.models.planning.plan import Preferences
from flux_engine.models.served import ServedModels
from flux_engine.net.fetch import Fetcher
from flux_engine.results.bucket import BucketStore
from flux_engine.results.bucket_address import bucket_from_settings
from flux_engine.results.folder import FolderStore
from flux_engine.results.pending import PendingResults
from flux_engine.results.store import ResultStore
from flux_engine.settings import Settings, SettingsError, default_cache_folder
from flux_engine.units import GIB
from flux_engine.worker.worker import Worker

log = logging.getLogger(__name__)

MAX_PEM_CHARACTERS: Final = 100_000
INLINE_CACHE_BYTES: Final = 2 * GIB  # pictures that a worker without a bucket keeps for reuse


def build_worker(
    settings: Settings,
    *,
    is_local: bool,
    cache_folder: Path | None = None,
    models: FluxModelManager | None = None,
    gpu: GpuThread | None = None,
    inputs: InputFetcher | None = None,
) -> Worker:
    """Put the parts together. Opens nothing and starts no thread. Raises SettingsError for an unusable bucket
    and a model that can never be served.

    `models` and `gpu` may be handed in, so that several workers of one process share a loaded model, and `inputs`, so
    that downloads may come from elsewhere than the internet. A local run writes its results under OUTPUT_DIR; elsewhere
    they go to the bucket or inline.
    """
    cache_folder = cache_folder or default_cache_folder()
    models = models or build_models(settings)
    inputs = inputs or InputFetcher(
        LoraStore.from_settings(settings),
        PictureSource(Fetcher()),
        upscalers=Upscalers(settings.model_volume / UPSCALER_FOLDER),
        keeps_files=settings.provenance == "c2pa",
    )
    cache = CacheManager.from_settings(settings, cache_folder=cache_folder)
    return Worker(
        Generator(
            models,
            gpu or GpuThread(),
            controlnets=ControlNets(settings.model_volume / CONTROLNET_FOLDER),
            depths=DepthModels(settings.model_volume / PREPROCESSOR_FOLDER),
        ),
        served=models.served,
        cache=cache,
        store=build_store(settings, cache_folder=cache_folder, is_local=is_local),
        pending=PendingResults(_shared_folder(settings, cache_folder) / "pending"),
        inputs=inputs,
        questions=build_questions(settings, models=models, inputs=inputs, cache=cache),
        marker=build_marker(settings, folder=_shared_folder(settings, cache_folder) / "c2pa"),
        url_expiry_s=settings.url_expiry_seconds,
        max_video_work=settings.max_video_work,
        gpu_price_per_hour=settings.gpu_price_per_hour,
    )


def build_questions(
    settings: Settings, *, models: FluxModelManager, inputs: InputFetcher, cache: CacheManager
) -> Questions:
    """What answers for a worker of these parts without having anything made."""
    limits = {
        "image_bytes": MAX_BYTES,
        "image_pixels": MAX_PIXELS,
        "lora_bytes": settings.lora_max_bytes,
        "lora_hosts": list(settings.lora_hosts),
        "worker_concurrency": settings.worker_concurrency,
    }
    return Questions(
        models,
        inputs=inputs,
        cache=cache,
        lora_folder=settings.model_volume / LORA_FOLDER,
        depths=DepthModels(settings.model_volume / PREPROCESSOR_FOLDER),
        limits=limits,
        price_per_hour=settings.gpu_price_per_hour,
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
            is_kept_warm=settings.warmup == "eager",
        ),
        lora_max_bytes=settings.lora_max_bytes,
        content_filter=build_filter(settings),
    )


def build_filter(settings: Settings) -> ContentFilter | None:
    """The classifier that CONTENT_FILTER names. Raises SettingsError where it is not on the volume."""
    if settings.content_filter.casefold() == "off":
        return None
    return find_filter(
        settings.content_filter,
        volume=settings.model_volume,
        threshold=settings.content_filter_threshold,
        labels=tuple(label.casefold() for label in settings.content_filter_labels),
    )


def build_marker(settings: Settings, *, folder: Path) -> Marker:
    """How PROVENANCE wants files marked; a key of the worker's own is kept in `folder`. Raises SettingsError where
    nothing can be signed."""
    if settings.provenance != "c2pa":
        return Unmarked() if settings.provenance == "off" else Marks()
    from flux_engine.media.marks.credential import CredentialFault, given_credential, kept_credential
    from flux_engine.media.marks.manifest import Manifests

    certificates, key = settings.c2pa_certificates, settings.c2pa_private_key
    try:
        if certificates is None or key is None:
            credential = kept_credential(folder)
            log.warning("C2PA manifests are signed by a key of this installation, which readers do not trust by name")
        else:
            credential = given_credential(
                _pem_text(certificates).get_secret_value(), _pem_text(key), settings.c2pa_algorithm
            )
        marker = Manifests(credential, timestamp_url=settings.c2pa_timestamp_url, says_prompt=settings.c2pa_prompt)
        marker.prove()
    except ImportError:
        raise SettingsError("PROVENANCE: c2pa needs c2pa-python (builder/requirements.txt)") from None
    except CredentialFault as fault:
        raise SettingsError(f"C2PA_CERTIFICATES, C2PA_PRIVATE_KEY, C2PA_ALGORITHM: {fault}") from None
    return marker


def _pem_text(value: SecretStr) -> SecretStr:
    """PEM text, or that of the file of this name."""
    text = value.get_secret_value()
    if text.startswith("-----BEGIN "):
        return value
    try:
        with open(text, encoding="ascii") as file:
            return SecretStr(file.read(MAX_PEM_CHARACTERS))
    except (OSError, ValueError):
        raise SettingsError("C2PA_CERTIFICATES, C2PA_PRIVATE_KEY: a file cannot be read; correct its path") from None


def build_store(settings: Settings, *, cache_folder: Path, is_local: bool) -> ResultStore:
    """The bucket where one is set; else OUTPUT_DIR for a local run; else a bounded folder for reuse alone.

    A worker that returns its results inline still stores them, on the volume where there is one, so that the next job
    like it is answered without generating. Raises SettingsError where the bucket cannot be used as it is set.
    """
    if settings.has_bucket:
        return BucketStore(bucket_from_settings(settings))
    if is_local:
        return FolderStore(settings.output_dir)
    folder = _shared_folder(settings, cache_folder) / "results"
    return FolderStore(folder, has_urls=False, max_bytes=INLINE_CACHE_BYTES)


def build_checks(settings: Settings) -> list[Check]:
    """What is to be looked at before the first job."""
    return fitness_checks(
        _served(settings),
        volume=settings.model_volume,
        cache_folder=default_cache_folder(),
        driver=read_driver,
        torch_cuda=cuda_of_torch(),
        bucket=bucket_from_settings(settings) if settings.has_bucket else None,
        has_content_filter=settings.content_filter.casefold() != "off",
    )


def try_own_bucket(settings: Settings) -> None:
    """The part of `build_checks` that a run on one's own machine needs too. Raises Unfit."""
    if settings.has_bucket:
        bucket_check(bucket_from_settings(settings))()


def _served(settings: Settings) -> ServedModels:
    return ServedModels(settings.flux_model, volume=settings.model_volume, has_gpu=has_gpu())


def _shared_folder(settings: Settings, cache_folder: Path) -> Path:
    """A folder of the volume, which all workers of an endpoint see, or `cache_folder` where there is no volume."""
    volume = settings.model_volume
    return volume / "flux-engine" if volume.is_dir() and os.access(volume, os.W_OK) else cache_folder
