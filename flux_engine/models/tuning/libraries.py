"""The one door to diffusers: imported when a job first needs it, and kept from talking over the log."""

from __future__ import annotations

import logging
import os
from typing import Any


def import_diffusers() -> Any:
    """The module diffusers, with the progress bars and advice of it and its companions switched off."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    for name in ("torchao", "torch.utils._pytree"):  # speak of kernels for other hardware at import
        logging.getLogger(name).setLevel(logging.ERROR)
    import diffusers
    from transformers.utils import logging as transformers_logging

    diffusers.utils.logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    return diffusers
