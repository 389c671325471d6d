"""Prompts to embeddings, each made once: a small LRU in front of the pipeline's own text encoders.

Embeddings in place of a prompt give the identical image (measured), so a prompt that comes again costs nothing. They
rest in the host's memory: no plan counts them on the device.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from torch import Tensor

    from flux_engine.job.base import Job
    from flux_engine.models.loaded import LoadedModel

CACHED_PROMPTS: Final = 32  # 512 tokens in bf16 are 4 MB of FLUX.1, 16 MB of FLUX.2-dev
Embeddings = dict[str, "Tensor"]


class PromptEncoder:
    """Encodes on the GPU thread. The entries of a model go with it."""

    def __init__(self, capacity: int = CACHED_PROMPTS) -> None:
        self._capacity = capacity
        self._by_pipeline: WeakKeyDictionary[Any, OrderedDict[tuple[str, int], Embeddings]] = WeakKeyDictionary()

    def encode(self, model: LoadedModel, job: Job, prompt: str) -> Embeddings:
        """The pipeline's keyword arguments for `prompt`, one of `job`'s: `prompt_embeds` (1, tokens, width), and where
        the model has it `pooled_prompt_embeds` (1, width); likewise `negative_...` where the job is guided by one."""
        embeddings = self._encoded(model, prompt, job.max_sequence_length)
        if job.true_cfg_scale > 1:
            negative = self._encoded(model, job.negative_prompt or "", job.max_sequence_length)
            embeddings = embeddings | {f"negative_{name}": tensor for name, tensor in negative.items()}
        return embeddings

    def _encoded(self, model: LoadedModel, prompt: str, max_sequence_length: int) -> Embeddings:
        entries = self._by_pipeline.setdefault(model.pipeline, OrderedDict())
        key = (prompt, max_sequence_length)
        if key in entries:
            entries.move_to_end(key)
            device = model.pipeline._execution_device  # diffusers looks at every module for it
            return {name: tensor.to(device) for name, tensor in entries[key].items()}
        encoded = _encode(model.pipeline, prompt, max_sequence_length)
        entries[key] = {name: tensor.cpu() for name, tensor in encoded.items()}
        while len(entries) > self._capacity:
            entries.popitem(last=False)
        return encoded


def _encode(pipeline: Any, prompt: str, max_sequence_length: int) -> Embeddings:
    import torch

    with torch.no_grad():
        encoded = pipeline.encode_prompt(prompt=prompt, max_sequence_length=max_sequence_length)
    if len(encoded) == 3:  # FLUX.1: states, pooled, ids
        return {"prompt_embeds": encoded[0], "pooled_prompt_embeds": encoded[1]}
    return {"prompt_embeds": encoded[0]}  # FLUX.2: states, ids
