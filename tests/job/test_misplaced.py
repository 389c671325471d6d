"""Jobs with their fields in the wrong place: the refusal says where they belong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flux_engine.errors import InvalidInput
from flux_engine.job.base import ParseContext
from flux_engine.job.parse import parse_job, parse_request

JOB = {"prompt": "a red sun", "num_inference_steps": 2}


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"input": {"input": JOB}}, "wrapped twice"),
        ({"input": {"id": "x", "input": {"prompt": 5}}}, "wrapped twice"),
        (JOB, r"must be in `input`; send .* with `prompt`, `num_inference_steps` in `input`"),
        ({"id": "x", **JOB}, "must be in `input`"),
        ({"input": {"prompt": "a red sun"}, "width": 512}, "`width` beside `input` has no effect; move it into"),
        ({"input": {"prompt": "a"}, "seed": 1, "height": 9}, "`seed`, `height` beside `input` have no effect"),
        ({"input": JOB, "steps": 4, "size": "512x512"}, "`steps`, `size` beside `input` have no effect"),
        ({"prompt": "a red sun", "num_outputs": 2}, "with `prompt`, `num_outputs` in `input`"),
        ({"input": {"inputs": "a", "parameters": {"steps": 4, "guidance": 3}}}, "move `steps`, `guidance` out of"),
        ({"input": {**JOB, "s3Config": {"bucketName": "b"}}}, "`s3Config` stands beside `input` and not in it"),
        ({"input": {**JOB, "webhook": "https://x.example"}}, "`webhook` stands beside `input`"),
        ({"input": json.dumps(JOB)}, "encoded as text"),
        ({"input": "a red sun"}, "`input` is text"),
        ({"input": "{a red sun}"}, "`input` is text"),
        ({"input": [JOB, JOB]}, "send one job for each"),
        ({"input": 5}, "must be a JSON object"),
        ({}, "must be a JSON object"),
        ([JOB], "must be a JSON object with an `input`"),
        ({"input": {"parameters": JOB}}, "move `prompt`, `num_inference_steps` out of `parameters`"),
        ({"input": {"prompt": "a", "options": {"seed": 1}}}, "move `seed` out of `options`"),
        ({"input": {"inputs": "a red sun", "parameters": {"guidance_scale": 3}}}, "out of `parameters`"),
        ({"input": {"body": {"image": "x"}}}, "move `image` out of `body`"),
        ({"input": {"workflow": {"3": {"class_type": "KSampler"}}}}, "`workflow` is not a field"),
    ],
)
def test_the_refusal_says_where_the_fields_belong(context: ParseContext, raw: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        parse_job(parse_request(raw), context)


@pytest.mark.parametrize(
    "more",
    [
        {"webhook": "https://x.example"},
        {"policy": {"ttl": 1}},
        {"metadata": {}},
        {"model": "x"},
        {"type": "x"},
        {"task": "x"},
        {"n": 1},
        {"format": "x"},
    ],
)
def test_what_platforms_put_beside_input_is_theirs(context: ParseContext, more: dict[str, Any]) -> None:
    assert parse_job(parse_request({"input": JOB, **more}), context).prompt == "a red sun"
