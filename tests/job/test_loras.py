"""How a job names its LoRAs."""

from __future__ import annotations

from typing import Any

import pytest

from flux_engine.errors import InvalidInput
from flux_engine.job.base import ParseContext
from flux_engine.job.image import ImageJob
from flux_engine.job.limits import ModelLimits
from flux_engine.job.parse import Request, parse_job
from flux_engine.job.written.loras import LoraRequest

LIMITS = ModelLimits(
    id="m",
    num_inference_steps=4,
    num_inference_steps_bounds=(1, 12),
    guidance_scale=None,
    max_sequence_length=256,
    max_sequence_length_limit=512,
    max_pixels=2**21,
)
CONTEXT = ParseContext(
    default_model=lambda: LIMITS,
    find_model=lambda name: LIMITS if name == "m" else None,
    served_models=("m",),
    default_response_format="b64_json",
    can_return_urls=False,
)
PAGE = "https://civitai.com/models/12/a-style"
URL = "https://huggingface.co/o/r/resolve/main/x.safetensors"


def parse(**fields: Any) -> ImageJob:
    job = parse_job(Request(id="j", input={"prompt": "a sun", **fields}), CONTEXT)
    assert isinstance(job, ImageJob)
    return job


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, []),
        ({"loras": None}, []),
        ({"loras": []}, []),
        ({"loras": ["o/r"]}, [("o/r", 1.0)]),
        ({"loras": "o/r"}, [("o/r", 1.0)]),
        ({"lora": "o/r"}, [("o/r", 1.0)]),
        ({"lora": {"path": "o/r", "scale": 2}}, [("o/r", 2.0)]),
        ({"lora_weights": "o/r"}, [("o/r", 1.0)]),
        ({"lora_weights": " o/r ", "lora_scale": 0.5}, [("o/r", 0.5)]),
        ({"loras": [{"path": "a", "scale": -4}, {"url": URL, "weight": 4}]}, [("a", -4.0), (URL, 4.0)]),
        ({"loras": [{"path": "a", "scale": None}]}, [("a", 1.0)]),
        ({"loras": [{"path": "a", "scale": 0}, "b"], "lora_scale": 0.3}, [("a", 0.0), ("b", 0.3)]),
        ({"loras": ["a", "b", "c", "d"]}, [("a", 1.0), ("b", 1.0), ("c", 1.0), ("d", 1.0)]),
        ({"loras": ["a"], "lora": "a"}, [("a", 1.0)]),
        ({"loras": [{"path": "a", "url": "a"}]}, [("a", 1.0)]),
    ],
)
def test_every_way_to_name_loras(fields: dict[str, Any], expected: list[tuple[str, float]]) -> None:
    assert parse(**fields).loras == tuple(LoraRequest(path, scale) for path, scale in expected)


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"loras": ["a"] * 5}, "loras", "up to 4"),
        ({"loras": 3}, "loras[0]", "a string"),
        ({"loras": [None]}, "loras[0]", "path"),
        ({"loras": [""]}, "loras[0]", "path"),
        ({"loras": [{}]}, "loras[0]", "path"),
        ({"loras": [{"scale": 1}]}, "loras[0]", "path"),
        ({"loras": ["a", {"path": "b", "scale": 4.1}]}, "loras[1]", "from -4 to 4"),
        ({"loras": [{"path": "b", "scale": True}]}, "loras[0]", "a number"),
        ({"loras": [{"path": "b", "scale": float("nan")}]}, "loras[0]", "a number"),
        ({"loras": [{"path": "b", "scale": "1"}]}, "loras[0]", "a number"),
        ({"loras": [{"path": "b", "strength": 1}]}, "loras[0]", "`strength` is not a field of `loras[0]`"),
        ({"loras": [{"path": "b", "scale": 1, "weight": 2}]}, "loras[0]", "two different values"),
        ({"loras": ["a"], "lora": "b"}, "lora", "different values"),
        ({"loras": [5]}, "loras[0]", "got 5"),
        ({"loras": [{"path": "b", "scale": 9}]}, "loras[0]", "got 9"),
        ({"loras": [""]}, "loras[0]", "1 to 28000000 characters"),
        ({"lora_scale": "1"}, "lora_scale", 'got "1"'),
        ({"lora": "a", "lora_scale": 5}, "lora_scale", "from -4 to 4"),
        ({"lora": "a", "lora_scale": True}, "lora_scale", "number"),
        ({"lorras": ["a"]}, "lorras", "`loras`"),
    ],
)
def test_what_is_refused(fields: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse(**fields)
    assert refusal.value.field == field
    assert words in refusal.value.message


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"lora_scale": 0.5}, "no LoRA"),
        ({"loras": [{"path": "a", "scale": 1}], "lora_scale": 0.5}, "scale of its own"),
        ({"loras": ["a", {"path": "b", "scale": 1}], "lora_scale": 0.5}, None),
    ],
)
def test_a_scale_that_acts_on_nothing_is_said(fields: dict[str, Any], said: str | None) -> None:
    warnings = parse(**fields).warnings
    assert [said in warning for warning in warnings if said] == ([True] if said else [])
    assert bool(warnings) is bool(said)


@pytest.mark.parametrize("path", ["o/r\n", "\x00o/r", " o/r\ud800", "\ufeffo/r", "\u200bo/r\u200b"])
def test_a_path_has_no_control_characters(path: str) -> None:
    assert parse(loras=[{"path": path}]).loras == (LoraRequest("o/r", 1.0),)


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("owner/repo", "owner/repo"),
        (URL + "?X-Amz-Signature=secret", URL),
        (f"{PAGE}?token=secret&modelVersionId=34&dialog=x", f"{PAGE}?modelVersionId=34"),
        (f"{PAGE}?modelVersionId=34secret", PAGE),
        ("https://civitai.com.example.com/x?modelVersionId=34", "https://civitai.com.example.com/x"),
        ("data:;base64," + "A" * 9000, "base64 of 9013 characters"),
        ("A" * 9000, "base64 of 9000 characters"),
        ("civitai:691639?token=secret", "civitai:691639"),
        ("civitai:691639?type=Model&token=secret&fileId=3", "civitai:691639?type=Model&fileId=3"),
    ],
)
def test_the_echo_holds_no_signature_and_no_file(path: str, shown: str) -> None:
    assert parse(loras=[{"path": path, "scale": 0.5}]).parameters()["loras"] == [{"path": shown, "scale": 0.5}]
