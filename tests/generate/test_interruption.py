"""A cancellation in the middle of a step: no further block is run, and nothing of it stays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from flux_engine.errors import JobCancelled
from flux_engine.generate.gpu import Cancellation
from flux_engine.generate.interruption import interruptible
from flux_engine.models import catalog
from flux_engine.models.loaded import LoadedModel
from tests.models.tiny_models import tiny_model


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


@pytest.mark.parametrize("name", ["FLUX.1-dev", "FLUX.2-klein-4B", "flux-3-image-klein"])
def test_each_block_of_each_family_looks(random_model: LoadedModel, name: str) -> None:
    spec = catalog.find(name)
    assert spec is not None
    pipeline = tiny_model(spec)
    model = replace(random_model, tuned=replace(random_model.tuned, pipeline=pipeline))
    repeated = pipeline.transformer._repeated_blocks
    blocks = [module for module in pipeline.transformer.modules() if type(module).__name__ in repeated]
    hooks_before = [len(block._forward_pre_hooks) for block in blocks]
    with interruptible(model, Cancellation()):
        assert [len(block._forward_pre_hooks) for block in blocks] == [count + 1 for count in hooks_before]
    assert [len(block._forward_pre_hooks) for block in blocks] == hooks_before


def test_what_is_not_cancelled_runs_to_its_end(random_model: LoadedModel) -> None:
    with interruptible(random_model, Cancellation()):
        made = random_model.pipeline("a sun", width=64, height=64, num_inference_steps=1, max_sequence_length=16)
    assert made.images[0].size == (64, 64)
