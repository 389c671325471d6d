"""A cancellation in the middle of a step: no further block is run, and nothing of it stays."""

from __future__ import annotations

from typing import Any

import pytest

from flux_engine.errors import JobCancelled
from flux_engine.generate.gpu import Cancellation
from flux_engine.generate.interruption import interruptible
from flux_engine.models.loaded import LoadedModel


@pytest.mark.parametrize("after", [1, 2, 6, 9])
def test_no_block_runs_after_a_cancellation(random_model: LoadedModel, after: int) -> None:
    cancellation, ran = Cancellation(), list[str]()
    transformer = random_model.pipeline.transformer
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]

    def count(_module: Any, _arguments: Any, _result: Any) -> None:
        ran.append("block")
        if len(ran) == after:
            cancellation.request()

    counting = [block.register_forward_hook(count) for block in blocks]
    hooks_before = [len(block._forward_pre_hooks) for block in blocks]
    with pytest.raises(JobCancelled), interruptible(random_model, cancellation):
        random_model.pipeline("a sun", width=64, height=64, num_inference_steps=3, max_sequence_length=16)
    for hook in counting:
        hook.remove()

    assert len(ran) == after
    assert [len(block._forward_pre_hooks) for block in blocks] == hooks_before


def test_what_is_not_cancelled_runs_to_its_end(random_model: LoadedModel) -> None:
    with interruptible(random_model, Cancellation()):
        made = random_model.pipeline("a sun", width=64, height=64, num_inference_steps=1, max_sequence_length=16)
    assert made.images[0].size == (64, 64)
