"""Leaving a job in the middle of a step: a cancellation is looked for before each block of the model.

A step of FLUX takes up to seconds, and a block a small part of it. Compiled blocks take no hooks, and blocks that are
offloaded would stay between two devices: there a cancellation waits for the end of the step.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from flux_engine.models.planning.way import STAYING

if TYPE_CHECKING:
    from flux_engine.generate.gpu import Cancellation
    from flux_engine.models.loaded import LoadedModel


@contextmanager
def interruptible(model: LoadedModel, cancellation: Cancellation) -> Iterator[None]:
    """Within, the blocks of `model` raise JobCancelled once the job is cancelled."""

    def check(_module: Any, _arguments: Any) -> None:
        cancellation.check()

    applied = model.tuned.applied
    with ExitStack() as hooks:
        if not applied.is_compiled and applied.offload in STAYING:
            for block in _blocks(model.pipeline):
                hooks.callback(block.register_forward_pre_hook(check).remove)
        try:
            yield
        except BaseException:
            if applied.offload == "model":  # otherwise the part that ran stays on the device beside the next one
                model.pipeline.maybe_free_model_hooks()
            raise


def _blocks(pipeline: Any) -> list[Any]:
    transformer = pipeline.transformer
    repeated = getattr(transformer, "_orig_mod", transformer)._repeated_blocks
    return [*_outermost(repeated, transformer), *pipeline.vae.decoder.up_blocks]


def _outermost(names: Collection[str], module: Any) -> Iterator[Any]:
    """The modules within `module` whose class is one of `names`, without a look into them: most of a model is there."""
    for child in module.children():
        if type(child).__name__ in names:
            yield child
        else:
            yield from _outermost(names, child)
