"""The one door to torch and diffusers: set up for a container, and kept from talking over the log."""

from __future__ import annotations

import gc
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

from flux_engine.models.planning.host_cpus import usable_cpus
from flux_engine.models.tuning import late

MAX_COMPILE_WORKERS: Final = 32  # Inductor's own bound


def prepare_libraries() -> None:
    """To be called before torch is imported: it reads these variables once. What the operator set is kept.

    Threads follow the container's share of the host: torch and Inductor count the host's cores and start as many, and
    the scheduler then stops them all for most of each period. Segments of the GPU's memory may grow: with a model that
    fills the card, fixed ones leave 4 GiB in pieces that fit nothing.
    """
    cpus = usable_cpus()
    os.environ.setdefault("OMP_NUM_THREADS", str(cpus))
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(min(cpus, MAX_COMPILE_WORKERS)))
    if not {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"} & os.environ.keys():
        os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"


@cache
def _prepare_once() -> None:
    """The container's share is read from files, which takes half a millisecond."""
    prepare_libraries()


def import_torch() -> float:
    """Import torch, set up for a container; the milliseconds that it took. Once it is imported this costs nothing."""
    _prepare_once()
    began = time.perf_counter()
    with _without_collections("torch"):
        import torch  # noqa: F401
    return (time.perf_counter() - began) * 1000


@contextmanager
def _without_collections(package: str) -> Iterator[None]:
    """The first import of `package` leaves no garbage, and looking for it takes a tenth of its time. What it leaves
    stays: no later collection walks it. Later a model may be loaded, which must not stay for good."""
    if package in sys.modules:
        yield
        return
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        if was_enabled:
            gc.enable()


def import_diffusers() -> Any:
    """The module diffusers, with the progress bars and advice of it and its companions switched off."""
    prepare_libraries()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    for name in ("torchao", "torch.utils._pytree"):  # speak of kernels for other hardware at import
        logging.getLogger(name).setLevel(logging.ERROR)
    with _without_collections("diffusers"):
        late.leave_out()
        import diffusers
        from transformers.utils import logging as transformers_logging

    diffusers.utils.logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    return diffusers
