"""Prompts to embeddings, each made once: a small LRU in front of the pipeline's own text encoders.

Embeddings in place of a prompt give the identical image (measured), so a prompt that comes again costs nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from torch import Tensor

    from flux_engine.models.manager import LoadedModel
    from flux_engine.storage.fingerprint import ModelIdentity

CACHED_PROMPTS: Final = 32  # 512 tokens of T5 in bf16 are 4 MB
Embeddings = dict[str, "Tensor"]


class PromptEncoder:
    """Encodes on the GPU thread. Entries of a model that was unloaded are dropped with `forget`."""

    def __init__(self, capacity: int = CACHED_PROMPTS) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[tuple[ModelIdentity, str, int], Embeddings] = OrderedDict()

    def encode(self, model: LoadedModel, prompt: str, *, max_sequence_length: int) -> Embeddings:
        """The pipeline's keyword arguments for `prompt`: `prompt_embeds` (1, tokens, width), and where the model
        has it `pooled_prompt_embeds` (1, width)."""
        key = (model.identity, prompt, max_sequence_length)
        if key in self._entries:
            self._entries.move_to_end(key)
            return self._entries[key]
        self._entries[key] = _encode(model.pipeline, prompt, max_sequence_length)
        while len(self._entries) > self._capacity:
            self._entries.popitem(last=False)
        return self._entries[key]

    def encode_negative(self, model: LoadedModel, prompt: str, *, max_sequence_length: int) -> Embeddings:
        """As `encode`, under the names of the negative prompt."""
        embeddings = self.encode(model, prompt, max_sequence_length=max_sequence_length)
        return {f"negative_{name}": tensor for name, tensor in embeddings.items()}

    def forget(self) -> None:
        self._entries.clear()


def _encode(pipeline: Any, prompt: str, max_sequence_length: int) -> Embeddings:
    import torch

    with torch.no_grad():
        encoded = pipeline.encode_prompt(prompt=prompt, max_sequence_length=max_sequence_length)
    if len(encoded) == 3:  # FLUX.1: states, pooled, ids
        return {"prompt_embeds": encoded[0], "pooled_prompt_embeds": encoded[1]}
    return {"prompt_embeds": encoded[0]}  # FLUX.2: states, ids
