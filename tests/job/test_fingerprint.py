from __future__ import annotations

from typing import Any

import pytest

from flux_engine.job.base import ParseContext
from flux_engine.job.fingerprint import ModelIdentity, fingerprint, made_from
from flux_engine.job.limits import ModelLimits
from flux_engine.job.parse import Request, parse_job

LIMITS = ModelLimits(
    id="flux-dev",
    num_inference_steps=28,
    num_inference_steps_bounds=(1, 50),
    guidance_scale=3.5,
    max_sequence_length=256,
    max_sequence_length_limit=512,
    max_pixels=2048 * 2048,
)
CONTEXT = ParseContext(
    default_model=lambda: LIMITS,
    find_model=lambda name: LIMITS if name in ("flux-dev", "dev") else None,
    served_models=("flux-dev",),
    default_response_format="url",
    can_return_urls=True,
)
DEV = ModelIdentity(id="flux-dev", revision="abc123", precision="bfloat16")
A, B = "a" * 64, "b" * 64
BASE: dict[str, Any] = {
    "prompt": "a red sun on the left",
    "seed": 7,
    "output_format": "webp",
    "negative_prompt": "rain",
    "true_cfg_scale": 2,
}
INPUTS: dict[str, Any] = {
    "image": A,
    "mask": B,
    "strength": 0.8,
    "loras": [{"sha256": A, "scale": 1.0}, {"sha256": B, "scale": 0.5}],
}


def print_of(job: dict[str, Any], *, job_id: str = "job-1", model: ModelIdentity = DEV, **inputs: Any) -> str:
    parsed = parse_job(Request(id=job_id, input=job), CONTEXT)
    return fingerprint(parsed.parameters(), model=model, inputs=INPUTS | inputs)


def test_twelve_spellings_of_one_job_have_one_fingerprint() -> None:
    spellings: list[dict[str, Any]] = [
        BASE,
        dict(reversed(BASE.items())),
        BASE | {"width": 1024, "height": 1024},
        BASE | {"size": "1024x1024"},
        BASE | {"image_size": "square_hd"},
        BASE | {"aspect_ratio": "1:1", "megapixels": 1},
        BASE | {"num_inference_steps": 28, "guidance_scale": 3.5},
        BASE | {"steps": 28.0, "guidance": 3.5, "n": 1},
        BASE | {"prompt": "  a red\tsun on the left\n", "type": "image", "max_sequence_length": 256},
        BASE | {"width": 1020, "height": 1025, "metadata": {"order": 12}},
        {
            "text": BASE["prompt"],
            "seed": 7.0,
            "format": "webp",
            "quality": 90,
            "true_cfg": 2.0,
            "negative_prompt": "rain",
        },
        BASE | {"model": "dev", "negative_prompt": "rain ", "image": None, "go_fast": True},
    ]
    assert len(spellings) == 12
    assert len({print_of(job) for job in spellings}) == 1


def test_every_change_that_reaches_the_bytes_changes_the_fingerprint() -> None:
    jobs: list[dict[str, Any]] = [
        *(
            {"prompt": text}
            for text in ("a red sun on the right", "A red sun on the left", "a red sun", "é", "e\u0306", "🌞")
        ),
        *({"negative_prompt": text} for text in ("snow", "Rain", None)),
        *({"true_cfg_scale": scale} for scale in (2.5, 3, 1)),
        *({"width": side} for side in (1040, 512)),
        *({"height": side} for side in (1040, 512)),
        *({"aspect_ratio": ratio} for ratio in ("16:9", "9:16")),
        *({"num_inference_steps": steps} for steps in (27, 29)),
        *({"guidance_scale": scale} for scale in (3.4, 0, 4)),
        *({"seed": seed} for seed in (8, 0, 2**53 - 1, None)),
        *({"num_images": count} for count in (2, 4)),
        *({"output_format": name} for name in ("png", "jpg")),
        *({"output_quality": quality} for quality in (89, 100)),
        {"max_sequence_length": 512},
    ]
    models = [
        ModelIdentity(id="flux-krea", revision="abc123", precision="bfloat16"),
        ModelIdentity(id="flux-dev", revision="abc124", precision="bfloat16"),
        ModelIdentity(id="flux-dev", revision="abc123", precision="float8"),
    ]
    inputs: list[dict[str, Any]] = [
        {"image": B},
        {"mask": None},
        {"strength": 0.7},
        {"loras": []},
        {"loras": [{"sha256": A, "scale": 1.0}]},
        {"loras": [{"sha256": A, "scale": 0.9}, {"sha256": B, "scale": 0.5}]},
        {"loras": [{"sha256": B, "scale": 0.5}, {"sha256": A, "scale": 1.0}]},
    ]
    prints = [
        print_of(BASE),
        *(print_of(BASE | change) for change in jobs),
        *(print_of(BASE, model=model) for model in models),
        *(print_of(BASE, **change) for change in inputs),
    ]
    assert len(prints) >= 41
    assert len(set(prints)) == len(prints)


@pytest.mark.parametrize(
    ("base", "change"),
    [
        (BASE, {"preview": True}),
        (BASE, {"cache": False}),
        (BASE, {"response_format": "b64_json"}),
        (BASE, {"metadata": {"a": [1]}}),
        (BASE, {"scheduler": "euler"}),
        (BASE | {"output_format": "png"}, {"output_quality": 10}),
        (BASE | {"true_cfg_scale": 1}, {"negative_prompt": "snow"}),
        (BASE | {"guidance_scale": 0}, {"guidance_scale": -0.0}),
    ],
)
def test_a_change_that_does_not_reach_the_bytes_leaves_it(base: dict[str, Any], change: dict[str, Any]) -> None:
    assert print_of(base | change) == print_of(base)


def test_a_lora_at_scale_0_leaves_it() -> None:
    assert print_of(BASE, loras=[{"sha256": A, "scale": 0.0}]) == print_of(BASE, loras=[])
    assert made_from({"loras": [{"path": "x", "scale": 0.0}, {"path": "y", "scale": 1.0}]}) == {
        "loras": [{"path": "y", "scale": 1.0}]
    }


def test_a_job_without_a_seed_has_one_fingerprint_a_job() -> None:
    job = {"prompt": "a red sun"}
    assert print_of(job, job_id="one") == print_of(job, job_id="one")
    assert print_of(job, job_id="one") != print_of(job, job_id="two")


def test_a_file_says_of_itself_only_what_it_is_made_from() -> None:
    parameters = parse_job(
        Request(id="1", input={"prompt": "x", "preview": True, "cache": False}), CONTEXT
    ).parameters()
    said = made_from(parameters)
    assert "num_inference_steps" in said
    assert not {"preview", "cache", "response_format", "output_quality", "negative_prompt"} & set(said)
