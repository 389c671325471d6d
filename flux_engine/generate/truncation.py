"""Prompts longer than the model reads: how many tokens they have, and which words are left out.

The pipelines cut a prompt at `max_sequence_length` and say so in a log at most. Here the tokenizer that the
transformer's text comes from counts: T5's in FLUX.1, the chat model's with its template in FLUX.2. CLIP's limit of 77
tokens does not matter: FLUX.1 takes only a summary from it.
"""

from __future__ import annotations

from typing import Any, Final

from flux_engine.generate.prompt import ReadPrompt
from flux_engine.job.base import Job
from flux_engine.job.video import VideoJob
from flux_engine.models.modular import ModularFlux
from flux_engine.models.spec import ModelSpec

SHOWN_CHARACTERS: Final = 300
TEMPLATE_TOKENS: Final = 128  # at most, around a prompt in FLUX.2


def truncation_warnings(pipeline: Any, spec: ModelSpec, job: Job, *, read: ReadPrompt | None = None) -> list[str]:
    """A warning for each prompt of `job` whose end the model does not read; `read` is what it read for a picture."""
    prompts = {"prompt": job.prompt if read is None else read.text}
    if isinstance(job, VideoJob):
        prompts = {f"keyframes[{i}].prompt": keyframe.prompt for i, keyframe in enumerate(job.keyframes)}
    if job.true_cfg_scale > 1 and job.negative_prompt:
        prompts["negative_prompt"] = job.negative_prompt
    warnings = {prompt: _warning(pipeline, spec, name, prompt, job) for name, prompt in reversed(prompts.items())}
    return [warning for warning in reversed(warnings.values()) if warning is not None]


def _warning(pipeline: Any, spec: ModelSpec, name: str, prompt: str, job: Job) -> str | None:
    read = job.max_sequence_length
    if len(prompt.encode()) + TEMPLATE_TOKENS <= read:  # a token has at least one byte
        return None
    count, end = _read_up_to(pipeline, prompt, read)
    if count <= read or end >= len(prompt):
        return None
    most = spec.limits.max_sequence_length_limit
    mend = f"raise `max_sequence_length` (up to {most}) or shorten it" if read < most else "shorten it"
    left_out = prompt[end:].strip()
    shown = left_out if len(left_out) <= SHOWN_CHARACTERS else f"{left_out[:SHOWN_CHARACTERS]}..."
    return f'`{name}` has {count} tokens and {spec.name} reads {read}: "{shown}" is left out; {mend}'


def _read_up_to(pipeline: Any, prompt: str, limit: int) -> tuple[int, int]:
    """How many tokens `prompt` has with its template, and up to which character the first `limit` of them go."""
    if getattr(pipeline, "tokenizer_2", None) is not None:
        return _end_of(pipeline.tokenizer_2, prompt, limit - 1)  # the last one is T5's end of text
    tokenizer = getattr(pipeline.tokenizer, "tokenizer", pipeline.tokenizer)  # a processor holds one
    text = _chat(pipeline, prompt)
    count, end = _end_of(tokenizer, text, limit)
    begins = text.find(prompt)
    return count, max(0, end - begins) if begins >= 0 else len(prompt)


def _chat(pipeline: Any, prompt: str) -> str:
    """`prompt` within the template that diffusers puts around it."""
    if isinstance(pipeline, ModularFlux):
        messages = [{"role": "user", "content": prompt}]
        options: dict[str, Any] = {"add_generation_prompt": True}
    elif type(pipeline).__name__.startswith("Flux2Klein"):
        messages = [{"role": "user", "content": prompt}]
        options = {"add_generation_prompt": True, "enable_thinking": False}
    else:
        from diffusers.pipelines.flux2.pipeline_flux2 import format_input

        (messages,) = format_input(prompts=[prompt], system_message=pipeline.system_message)
        options = {"add_generation_prompt": False}
    text: str = pipeline.tokenizer.apply_chat_template(messages, tokenize=False, **options)
    return text


def _end_of(tokenizer: Any, text: str, limit: int) -> tuple[int, int]:
    if not tokenizer.is_fast:  # it does not tell where its tokens stand
        tokens = tokenizer(text)["input_ids"]
        return len(tokens), len(tokenizer.decode(tokens[:limit], skip_special_tokens=True))
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    return len(offsets), max((end for _, end in offsets[:limit]), default=0)
