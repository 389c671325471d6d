"""FLUX.3's modular pipeline with the call of the other pipelines: a prompt that is encoded by itself, a report at each
step, parts that can be offloaded.

diffusers has FLUX.3 as blocks alone, without `encode_prompt`, a callback or offloading. Blocks are instances that all
pipelines of a process share, so each ModularFlux copies them before it puts its own block into the denoising loops.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

OWN_BLOCKS: Final = ("prompt_upsampler", "text_encoder")  # called by themselves, and not with each picture
OnStep = Callable[[Any, int, Any, dict[str, Any]], Any]


def component_class(class_name: str, component: str) -> Any:
    """The class of one part of the pipeline `class_name`. Raises KeyError where it has none of that name."""
    return _specs(_blocks_of(class_name))[component].type_hint


class ModularFlux:
    """A modular pipeline of loaded `components`.

        encoded = pipeline.encode_prompt(prompt="a red sun", max_sequence_length=512)
        made = pipeline(prompt_embeds=encoded[0], width=1024, height=1024, callback_on_step_end=report).images

    Whatever else is asked of it, such as `transformer` or `components`, is the inner pipeline's.
    """

    def __init__(self, class_name: str, components: Mapping[str, Any]) -> None:
        import diffusers

        self.class_name = class_name
        blocks = copy.deepcopy(_blocks_of(class_name))
        del blocks.sub_blocks["prompt_upsampler"]
        self._inner = getattr(diffusers, class_name)(blocks=blocks)
        self._inner.register_components(**components)
        self._report = _step_report()
        self._text = blocks.sub_blocks["text_encoder"]
        self._paint = _without(blocks, OWN_BLOCKS)
        self._hooks: list[Any] = []  # of model offloading, in the order of a picture
        for loop in _loops(self._paint):
            loop.sub_blocks.insert("report", self._report, len(loop.sub_blocks))
            loop.set_progress_bar_config(disable=True)

    def __getattr__(self, name: str) -> Any:
        if name == "_inner":  # while a copy is made of it
            raise AttributeError(name)
        return getattr(self._inner, name)

    def encode_prompt(self, *, prompt: str, max_sequence_length: int) -> tuple[Any]:
        """The states that the transformer reads, (1, tokens, width)."""
        state = _run(self._text, self._inner, prompt=prompt, max_sequence_length=max_sequence_length)
        return (state.get("prompt_embeds"),)

    def __call__(
        self,
        *,
        prompt_embeds: Any = None,
        prompt: str | None = None,
        width: int,
        height: int,
        num_inference_steps: int,
        image: list[Any] | None = None,
        generator: Any = None,
        callback_on_step_end: OnStep | None = None,
        output_type: str = "pil",
        max_sequence_length: int = 512,
    ) -> Any:
        """Pictures under `images`; `callback_on_step_end` is called as by the other pipelines and may raise."""
        if prompt_embeds is None:
            (prompt_embeds,) = self.encode_prompt(prompt=prompt or "", max_sequence_length=max_sequence_length)
        given = {"image": image} if image else {}
        self._report.on_step = None if callback_on_step_end is None else _called(self, callback_on_step_end)
        try:
            state = _run(
                self._paint,
                self._inner,
                prompt_embeds=prompt_embeds,
                width=width,
                height=height,
                num_inference_steps=num_inference_steps,
                generator=generator,
                output_type=output_type,
                **given,
            )
        finally:
            self._report.on_step = None
        self.maybe_free_model_hooks()
        return SimpleNamespace(images=state.get("images"))

    def set_progress_bar_config(self, **_: Any) -> None:
        """Its loops never show one."""

    def to(self, device: Any) -> ModularFlux:
        self._inner.to(device)
        return self

    def enable_model_cpu_offload(self, device: Any) -> None:
        """Each part comes to `device` when it is called, and the one before it leaves."""
        from accelerate import cpu_offload_with_hook

        before = None
        for part in (self.text_encoder, self.transformer, self.vae):
            _, before = cpu_offload_with_hook(part, device, prev_module_hook=before)
            self._hooks.append(before)

    def enable_sequential_cpu_offload(self, device: Any) -> None:
        """Each layer comes to `device` when it is called, and leaves again."""
        from accelerate import cpu_offload

        for part in (self.text_encoder, self.transformer, self.vae):
            cpu_offload(part, device, offload_buffers=len(part._parameters) > 0)

    def maybe_free_model_hooks(self) -> None:
        """Send whatever is on the device back to the host, under model offloading."""
        for hook in self._hooks:
            hook.offload()

    def _unpatchify_latents(self, latents: Any) -> Any:
        """As FLUX.2's: (1, 4 C, H, W) -> (1, C, 2 H, 2 W)."""
        return self._paint.sub_blocks["decode"]._unpatchify_latents(latents)


def modular_flux(class_name: str, folder: Path, components: Mapping[str, Any]) -> ModularFlux:
    """The pipeline of loaded `components`, with the tokenizer of `folder`. Raises what loading one raises."""
    from transformers import AutoTokenizer

    tokenizer = ChatTokenizer(AutoTokenizer.from_pretrained(folder / "tokenizer"))
    return ModularFlux(class_name, {**components, "tokenizer": tokenizer})


class ChatTokenizer:
    """A tokenizer where FLUX.3 expects a processor, whose video part would need torchvision; text needs neither."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def apply_chat_template(self, messages: list[dict[str, Any]], **options: Any) -> Any:
        return self.tokenizer.apply_chat_template(messages, **options)


def _blocks_of(class_name: str) -> Any:
    import diffusers

    return getattr(diffusers, getattr(diffusers, class_name).default_blocks_name)()


def _specs(blocks: Any) -> dict[str, Any]:
    return {spec.name: spec for spec in blocks.expected_components}


def _without(blocks: Any, names: tuple[str, ...]) -> Any:
    from diffusers.modular_pipelines import SequentialPipelineBlocks

    rest = {name: block for name, block in blocks.sub_blocks.items() if name not in names}
    return SequentialPipelineBlocks.from_blocks_dict(rest)


def _loops(block: Any) -> Iterator[Any]:
    """The denoising loops below `block`: one for a prompt alone, one for a prompt with references."""
    from diffusers.modular_pipelines import LoopSequentialPipelineBlocks

    if isinstance(block, LoopSequentialPipelineBlocks):
        yield block
        return
    for below in (block.sub_blocks or {}).values():
        yield from _loops(below)


def _step_report() -> Any:
    """A block that is called after each step of a loop and hands its latents to `on_step`."""
    from diffusers.modular_pipelines import ModularPipelineBlocks

    class StepReport(ModularPipelineBlocks):  # type: ignore[misc]
        model_name = "flux3"
        on_step: Callable[[int, Any, Any], None] | None = None

        @property
        def description(self) -> str:
            return "Reports the latents after each step"

        def __call__(self, components: Any, block_state: Any, i: int, t: Any) -> tuple[Any, Any]:
            if self.on_step is not None:
                self.on_step(i, t, block_state.latents)
            return components, block_state

    return StepReport()


def _called(pipeline: Any, callback: OnStep) -> Callable[[int, Any, Any], None]:
    def on_step(step: int, timestep: Any, latents: Any) -> None:
        callback(pipeline, step, timestep, {"latents": latents})

    return on_step


def _run(blocks: Any, components: Any, **given: Any) -> Any:
    """The state after `blocks`, with every input that is not given at its default."""
    import torch
    from diffusers.modular_pipelines import PipelineState

    state = PipelineState()
    for wanted in blocks.inputs:
        if wanted.name in given:
            state.set(wanted.name, given[wanted.name], wanted.kwargs_type)
        elif wanted.name is not None and wanted.name not in state.values:
            state.set(wanted.name, wanted.default, wanted.kwargs_type)
    with torch.no_grad():
        _, state = blocks(components, state)
    return state
