"""PEFT adapters put around a transformer's layers, and taken off again, through diffusers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flux_engine.models.lora.holder import Pipeline

if TYPE_CHECKING:
    from torch import Tensor


def load(pipeline: Pipeline, transformer: Any, state: dict[str, Tensor], name: str) -> None:
    """Put one adapter on.

    diffusers gets the pipeline only where the transformer is offloaded. It renews the hooks of every part that it
    sees, and would pin the memory of a streamed text encoder once more.
    """
    hooked = pipeline if _is_offloaded(transformer) else None
    with _expected_warnings():
        transformer.load_lora_adapter(state, prefix=None, adapter_name=name, _pipeline=hooked, low_cpu_mem_usage=True)


def delete(transformer: Any, name: str) -> None:
    """Take one adapter off."""
    with _expected_warnings():
        transformer.delete_adapters(name)


def unload(transformer: Any) -> None:
    """Give the base layers back; free where there is nothing around them."""
    if any(hasattr(module, "base_layer") for module in transformer.modules()):
        transformer.unload_lora()


def _is_offloaded(transformer: Any) -> bool:
    """Whether accelerate's or diffusers' hooks move the transformer's layers."""
    return any(
        hasattr(module, "_hf_hook") or _moves(getattr(module, "_diffusers_hook", None))
        for module in transformer.modules()
    )


def _moves(hooks: Any) -> bool:
    return hooks is not None and hooks.get_hook("group_offloading") is not None


@contextmanager
def _expected_warnings() -> Iterator[None]:
    """PEFT warns of several adapters in a model and of deleting an active one: both are what is wanted here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        warnings.filterwarnings("ignore", message="Adapter .* was active which is now deleted")
        yield
