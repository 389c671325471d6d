"""Prompts longer than the model reads: both numbers, and the words that are left out."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from flux_engine.generate.truncation import truncation_warnings
from flux_engine.job.base import Job
from flux_engine.job.parse import Request, parse_job
from flux_engine.models import catalog
from flux_engine.models.spec import ModelSpec
from tests.conftest import context_for
from tests.models.tiny_models import tiny_model

PROMPT = "a red sun on the left over purple mountains at dusk, " * 6 + "a white moon on the right over green hills"
SAID = re.compile(r'`(.+)` has (\d+) tokens and (.+) reads (\d+): "(.*)" is left out; (.*)')


def spec_of(name: str) -> ModelSpec:
    spec = catalog.find(name)
    assert spec is not None
    return spec


def job_of(spec: ModelSpec, **fields: Any) -> Job:
    return parse_job(Request(id="x", input={"prompt": PROMPT, **fields}), context_for(spec))


@pytest.mark.parametrize("name", ["flux-tiny", "FLUX.1-dev", "FLUX.2-klein-4B", "FLUX.2-dev"])
def test_both_numbers_and_the_words_are_said(name: str) -> None:
    spec = spec_of(name)
    pipeline = tiny_model(spec)
    most = spec.limits.max_sequence_length_limit
    (said,) = truncation_warnings(pipeline, spec, job_of(spec, max_sequence_length=min(48, most)))
    found = SAID.fullmatch(said)
    assert found is not None, said
    field, tokens, model, read, left_out, mend = found.groups()
    assert (field, model, read) == ("prompt", spec.name, str(min(48, most)))
    assert int(tokens) > int(read)
    assert left_out.removesuffix("...") in PROMPT
    assert (f"up to {most}" in mend) is (most > 48)


def test_what_is_left_out_makes_no_difference_and_the_rest_does() -> None:
    spec = spec_of("flux-tiny")
    pipeline = tiny_model(spec)
    (said,) = truncation_warnings(pipeline, spec, job_of(spec, max_sequence_length=32))
    found = SAID.fullmatch(said)
    assert found is not None
    kept = PROMPT[: PROMPT.index(found[5].removesuffix("..."))]
    with torch.no_grad():
        whole, short, shorter = (
            pipeline.encode_prompt(prompt=text, max_sequence_length=32)[0]
            for text in (PROMPT, kept, kept.rstrip(", ").rpartition(" ")[0])
        )
    assert torch.equal(whole, short)
    assert not torch.equal(whole, shorter)


@pytest.mark.parametrize("name", ["flux-tiny", "FLUX.2-klein-4B", "FLUX.2-dev"])
def test_a_prompt_that_is_read_whole_says_nothing(name: str) -> None:
    spec = spec_of(name)
    pipeline = tiny_model(spec)
    job = job_of(spec, prompt="a red sun over a lake, " * 2)
    assert truncation_warnings(pipeline, spec, job) == []


def test_keyframes_and_a_negative_prompt_are_counted_too() -> None:
    spec = spec_of("flux-tiny")
    keyframes = {"0": "a sun", "4": PROMPT, "8": PROMPT}
    fields = {"keyframes": keyframes, "num_frames": 9, "prompt": "a sun", "negative_prompt": "fog, " * 80}
    job = job_of(spec, **fields, true_cfg_scale=2, max_sequence_length=32)
    said = truncation_warnings(tiny_model(spec), spec, job)
    assert [warning.split("` has ")[0] for warning in said] == ["`keyframes[1].prompt", "`negative_prompt"]
