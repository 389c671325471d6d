"""Checks before the first job: GPU and driver, disk, volume, model, bucket.

A check that raises ends the worker, and the platform starts another. Two kinds of faults do: this machine's own (a
GPU or driver that the installed torch cannot use, a disk without room), and a bucket that refuses the settings, since
every picture made for it would be lost. A bucket that does not answer ends nothing: it may answer by the time of the
first result, and results wait on the volume for a retry. The volume and the model are the same for every worker, and
a worker without them still has jobs that it can do: the log says what is wrong, and a job that needs them fails with
a clear error. Nothing here reads weights or imports torch.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

from flux_engine.errors import ModelUnavailable
from flux_engine.models import catalog
from flux_engine.models.planning.device import Driver
from flux_engine.models.served import ServedModels
from flux_engine.results.bucket_address import Bucket
from flux_engine.results.trial import BucketRefuses, BucketSilent, try_bucket
from flux_engine.units import MIB

MIN_FREE_BYTES: Final = 512 * MIB  # results that wait for a retry, LoRAs, compile caches
MIN_DRIVERS: Final = {12: 525, 13: 580}  # by CUDA's major version (CUDA's release notes, table of minor compatibility)
MIN_CAPABILITIES: Final = {13: (7, 5)}  # torch's builds for CUDA 13; those for older CUDA reach back further

Check = Callable[[], None]

log = logging.getLogger(__name__)


class Unfit(Exception):
    """This machine is not fit for the worker; the text says what to change."""


def fitness_checks(
    served: ServedModels,
    *,
    volume: Path,
    cache_folder: Path,
    driver: Callable[[], Driver | None] = lambda: None,
    torch_cuda: str | None = None,
    min_free_bytes: int = MIN_FREE_BYTES,
    bucket: Bucket | None = None,
    has_content_filter: bool = False,
) -> list[Check]:
    """The checks, those that may raise Unfit first.

    `driver` reads the GPU's driver: None where there is no GPU or no way to ask, subprocess.SubprocessError where it
    does not answer. `torch_cuda` is the CUDA version that torch is built for.
    """

    def gpu_can_be_used() -> None:
        _check_gpu(driver, torch_cuda)

    def disk_has_room() -> None:
        if (lack := _lack_of_room(cache_folder, min_free_bytes)) is not None:
            raise Unfit(f"the worker's own disk {lack}; give the endpoint a larger container disk")

    def volume_is_usable() -> None:
        if (fault := _fault_of_volume(volume, min_free_bytes)) is not None:
            log.warning(f"MODEL_VOLUME {fault}")

    def model_is_there() -> None:
        try:
            served.look(served.default())
        except ModelUnavailable as error:
            log.error(f"the default model is missing, and jobs for it will fail: {error.message}")

    def licence_is_kept() -> None:
        with suppress(ModelUnavailable):
            spec = catalog.find(served.default().id)  # a folder of one's own has terms of its own
            if spec is not None and spec.asks_for_filter and not has_content_filter:
                log.warning(
                    f"the licence of {spec.name} asks for a content filter or a review of its pictures, and "
                    "CONTENT_FILTER is off (docs/compliance.md)"
                )

    checks = [gpu_can_be_used, disk_has_room, volume_is_usable, model_is_there, licence_is_kept]
    return [*checks, bucket_check(bucket)] if bucket is not None else checks


def bucket_check(bucket: Bucket) -> Check:
    """Tries `bucket` once, however often it is called. Raises Unfit where the store refuses it."""

    @cache
    def bucket_takes_results() -> None:
        try:
            try_bucket(bucket)
        except BucketRefuses as refusal:
            raise Unfit(f"the bucket cannot be used: {refusal}") from None
        except BucketSilent as silence:
            log.error("bucket does not answer; results wait for it", extra={"detail": str(silence)})

    return bucket_takes_results


def cuda_of_torch() -> str | None:
    """The CUDA version of the installed torch, as `13.0`, read without importing it; None for one without CUDA."""
    found = importlib.util.find_spec("torch")
    return cuda_in(Path(found.origin).with_name("version.py")) if found is not None and found.origin else None


def cuda_in(version_file: Path) -> str | None:
    """As `cuda_of_torch`, of the torch whose `version.py` this is."""
    told = re.search(r"^cuda\b[^=\n]*=\s*'([\d.]+)'", version_file.read_text(), re.MULTILINE)
    return told[1] if told is not None else None


def _check_gpu(read_driver: Callable[[], Driver | None], torch_cuda: str | None) -> None:
    """With an old driver torch finds no GPU; on an old card it fails at the first matrix product, after the load."""
    try:
        driver = read_driver()
    except subprocess.SubprocessError as error:
        raise Unfit("the GPU's driver does not answer (nvidia-smi failed); another machine is needed") from error
    if driver is None or torch_cuda is None:
        return
    cuda = int(torch_cuda.partition(".")[0])
    major = driver.version.partition(".")[0]
    if major.isdigit() and int(major) < MIN_DRIVERS.get(cuda, 0):
        raise Unfit(
            f"the GPU's driver is {driver.version} and torch's CUDA {torch_cuda} needs {MIN_DRIVERS[cuda]} or newer; "
            f"select CUDA {torch_cuda} and what is above it in the endpoint's settings"
        )
    least = MIN_CAPABILITIES.get(cuda, (0, 0))
    if driver.compute_capability is not None and driver.compute_capability < least:
        raise Unfit(
            f"the GPU has compute capability {_written(driver.compute_capability)} and torch's CUDA {torch_cuda} needs "
            f"{_written(least)} or higher; leave such cards out in the endpoint's settings"
        )


def _written(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"


def _fault_of_volume(folder: Path, min_free_bytes: int) -> str | None:
    """What is wrong with the volume. A missing one is no fault: the model may be in the image."""
    if not folder.exists():
        return None
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"flux")
    except OSError as error:
        why = os.strerror(error.errno or 0)
        return f"cannot be written ({why}): LoRAs and compile caches are not kept there; free it or attach another"
    lack = _lack_of_room(folder, min_free_bytes)
    return f"{lack}; free some, or make it larger" if lack is not None else None


def _lack_of_room(folder: Path, min_free_bytes: int) -> str | None:
    existing = next((place for place in (folder, *folder.parents) if place.exists()), None)
    free = shutil.disk_usage(existing).free if existing is not None else min_free_bytes
    if free >= min_free_bytes:
        return None
    return f"has {free / MIB:.0f} MiB left of the {min_free_bytes / MIB:.0f} MiB that are needed"
