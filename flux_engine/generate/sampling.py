"""Another pipeline class over the parts that are loaded already: image-to-image beside text-to-image, and the like."""

from __future__ import annotations

import inspect
from typing import Any


def sibling(pipeline: Any, class_name: str) -> Any:
    """A pipeline of diffusers' class `class_name` made of the parts of `pipeline`, or `pipeline` if it is one.

    Its scheduler is its own: sharing one would leave the other's steps in it. Not by `from_pipe`, which casts the
    shared parts to float32.
    """
    if type(pipeline).__name__ == class_name:
        return pipeline
    import diffusers

    made_by = getattr(diffusers, class_name)
    given = dict(pipeline.config) | pipeline.components
    given["scheduler"] = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
    made = made_by(**{name: given[name] for name in inspect.signature(made_by).parameters if name in given})
    made.set_progress_bar_config(disable=True)
    return made


def steps_run(num_inference_steps: int, strength: float) -> int:
    """How many steps image-to-image runs: those from noise level `strength` on, at least one."""
    return num_inference_steps - int(num_inference_steps - num_inference_steps * strength)
