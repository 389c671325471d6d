"""Prompt upsamplers: language models that write a short request out into the caption that a model was trained on.

FLUX.3 has one of its own, a chat model beside its repository, which also writes layouts around boxes. FLUX.2-dev writes
with its text encoder. Both are asked in one way:

    caption = upsampler.write("a cat", images=references, boxes=boxes, seed=7)

What is written is the same for the same request and seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from flux_engine.errors import ModelUnavailable
from flux_engine.models.spec import ModelSpec

if TYPE_CHECKING:
    from PIL.Image import Image

Box = dict[str, Any]  # as diffusers takes it: `id`, `desc`, and `bbox` or `tgt_bbox`, [y_min, x_min, y_max, x_max]
Check = Callable[[], None]  # raises where the job was cancelled

ROOM: Final = 1.15  # of a model's bytes: its keys and values, and what it works in
TEMPERATURE: Final = 0.15  # of FLUX.2's authors
MAX_NEW_TOKENS: Final = 3584
BROKEN: Final = (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError)  # as loading a model raises


class Upsampler(Protocol):
    """Writes prompts out; on the GPU thread."""

    def write(self, request: str, *, images: Sequence[Image], boxes: Sequence[Box], seed: int, check: Check) -> str:
        """The caption for `request`; `check` is called before each token."""


class ChatUpsampler:
    """FLUX.3's: a Qwen3.5 with its processor, opened when it first writes. It rests in the host's memory and comes to
    the device when it writes.

    Where there is no room beside `pipeline`, the pipeline's transformer waits on the host meanwhile.
    """

    def __init__(
        self, pipeline: Any, open_: Callable[[], tuple[Any, Any]], *, max_new_tokens: int = MAX_NEW_TOKENS
    ) -> None:
        """`open_` returns the model and its processor, and raises ModelUnavailable where it cannot."""
        self._pipeline = pipeline
        self._open = open_
        self._max_new_tokens = max_new_tokens
        self._opened: tuple[Any, Any] | None = None

    def write(self, request: str, *, images: Sequence[Image], boxes: Sequence[Box], seed: int, check: Check) -> str:
        from diffusers.modular_pipelines.flux3.prompt_upsampler import prepare_references, upsample_prompt

        if self._opened is None:
            self._opened = self._open()
        model, processor = self._opened
        with _on_device(model, self._pipeline), _checked(model, check):
            return str(
                upsample_prompt(
                    model,
                    processor,
                    request,
                    images=prepare_references(list(images)) if images else None,
                    boxes=list(boxes) or None,
                    max_new_tokens=self._max_new_tokens,
                )
            )


class EncoderUpsampler:
    """FLUX.2-dev's: its text encoder writes, at a low temperature."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline

    def write(self, request: str, *, images: Sequence[Image], boxes: Sequence[Box], seed: int, check: Check) -> str:
        import torch

        pipeline = self._pipeline
        device = pipeline._execution_device
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices), _checked(pipeline.text_encoder, check), torch.no_grad():
            torch.manual_seed(seed)
            written = pipeline.upsample_prompt(
                request, images=[list(images)] if images else None, temperature=TEMPERATURE, device=device
            )
        return str(written[0]).strip()


def upsampler_of(spec: ModelSpec, pipeline: Any, folder: Path | None) -> Upsampler | None:
    """What writes prompts out for `pipeline`; `folder` is where the upsampler of its own lies, if it has one."""
    if spec.limits.enhances_prompt is None:
        return None
    if spec.upsampler_id is None:
        return EncoderUpsampler(pipeline)
    if folder is None:
        return None
    return ChatUpsampler(pipeline, partial(open_chat_upsampler, folder, dtype=pipeline.transformer.dtype))


def open_chat_upsampler(folder: Path, *, dtype: Any) -> tuple[Any, Any]:
    """The model and the processor in a folder of transformers'. Raises ModelUnavailable for a broken one."""
    from transformers import AutoTokenizer, Qwen2VLImageProcessor, Qwen3_5ForConditionalGeneration

    try:
        model = Qwen3_5ForConditionalGeneration.from_pretrained(folder, dtype=dtype, use_safetensors=True)
        pictures = Qwen2VLImageProcessor.from_pretrained(folder)
        processor = chat_processor(pictures, AutoTokenizer.from_pretrained(folder))
    except BROKEN as error:
        raise ModelUnavailable(
            "the prompt upsampler is on the volume but cannot be loaded; fetch the model again, or send "
            "`enhance_prompt` false"
        ) from error
    return model.eval(), processor


def chat_processor(pictures: Any, tokenizer: Any) -> Any:
    """Qwen's processor of texts and pictures. transformers would make one of films beside it, by torchvision."""
    from transformers import Qwen3VLProcessor

    class WithoutFilms(Qwen3VLProcessor):  # type: ignore[misc]
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            return type(argument)

    return WithoutFilms(pictures, tokenizer, None, chat_template=tokenizer.chat_template)


@contextmanager
def _checked(model: Any, check: Check) -> Iterator[None]:
    """Within, `check` is called before each pass of `model`."""
    hook = model.register_forward_pre_hook(lambda *_: check())
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def _on_device(model: Any, pipeline: Any) -> Iterator[None]:
    """Within, `model` is where `pipeline` runs."""
    import torch
    from torch import nn

    device = pipeline._execution_device
    if device.type != "cuda":
        yield
        return
    needed = ROOM * sum(weight.numel() * weight.element_size() for weight in model.parameters())
    transformer = pipeline.transformer
    stays = transformer.device.type != "cuda" or torch.cuda.mem_get_info()[0] >= needed
    try:
        if not stays:
            nn.Module.to(transformer, "cpu")
            torch.cuda.empty_cache()
        nn.Module.to(model, device)
        yield
    finally:
        nn.Module.to(model, "cpu")
        torch.cuda.empty_cache()
        if not stays:
            nn.Module.to(transformer, device)
