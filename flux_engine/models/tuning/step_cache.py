"""Step caching through cache-dit: blocks that hardly change from one step to the next are not computed again."""

from __future__ import annotations

import os
from typing import Any, Final

from flux_engine.models.planning.plan import MIN_CACHED_STEPS

WARMUP_STEPS: Final = 8  # always computed: the layout of the picture is decided there


def enable_step_cache(pipeline: Any, threshold: float, *, blocks: int) -> None:
    """Wrap the transformer's blocks; `threshold` is the relative change below which they are reused.

    cache-dit is given the transformer: of a pipeline it would patch the class, so that another pipeline which shares
    the transformer would find no cache, and `begin_call` would have no effect.
    """
    cache_dit = _cache_dit()
    cache_dit.enable_cache(
        pipeline.transformer, cache_config=_config(threshold, blocks=blocks, warmup_steps=WARMUP_STEPS)
    )


def begin_call(pipeline: Any, threshold: float, *, num_inference_steps: int, has_true_cfg: bool, blocks: int) -> None:
    """Forget the last call. Short jobs, and those of two passes a step, have every step computed."""
    cache_dit = _cache_dit()
    is_cached = num_inference_steps >= MIN_CACHED_STEPS and not has_true_cfg
    warmup_steps = WARMUP_STEPS if is_cached else 10**6
    cache_dit.refresh_context(
        pipeline.transformer, cache_config=_config(threshold, blocks=blocks, warmup_steps=warmup_steps)
    )


def cached_steps(pipeline: Any) -> int:
    """How many steps of the last job were taken from the cache."""
    cache_dit = _cache_dit()
    summary = cache_dit.summary(pipeline.transformer, details=False, logging=False)
    return len(getattr(summary[0], "cached_steps", ()) or ()) if summary else 0


def _cache_dit() -> Any:
    os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "error")  # read at import; it has a handler of its own
    import cache_dit

    return cache_dit


def _config(threshold: float, *, blocks: int, warmup_steps: int) -> Any:
    from cache_dit import DBCacheConfig

    return DBCacheConfig(
        Fn_compute_blocks=min(8, max(1, blocks // 4)),
        Bn_compute_blocks=0,
        residual_diff_threshold=threshold,
        max_warmup_steps=warmup_steps,
    )
