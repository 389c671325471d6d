"""Between two noises and two prompts: the ends are the ends, and the way keeps its length."""

from __future__ import annotations

import math

import pytest
import torch

from flux_engine.generate.video.blend import blended, slerp


def noise(seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn((1, 64, 64), generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_slerp_begins_and_ends_at_its_ends(dtype: torch.dtype) -> None:
    a, b = noise(1, dtype), noise(2, dtype)
    torch.testing.assert_close(slerp(a, b, 0.0), a)
    torch.testing.assert_close(slerp(a, b, 1.0), b)
    assert slerp(a, b, 0.3).dtype == dtype


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
def test_slerp_keeps_the_noise_as_strong_and_moves_evenly(share: float) -> None:
    a, b = noise(1), noise(2)
    between = slerp(a, b, share)
    assert float(between.std()) == pytest.approx(1.0, abs=0.02)
    assert float(torch.lerp(a, b, 0.5).std()) < 0.75  # what a straight line would do

    def angle(one: torch.Tensor, other: torch.Tensor) -> float:
        return math.acos(float((one * other).sum() / (one.norm() * other.norm())))

    assert angle(a, between) == pytest.approx(share * angle(a, b), abs=1e-2)


def test_slerp_between_a_noise_and_itself_is_that_noise() -> None:
    a = noise(1)
    torch.testing.assert_close(slerp(a, a.clone(), 0.4), a)


def test_embeddings_blend_linearly_name_by_name_and_keep_their_dtype() -> None:
    a = {"prompt_embeds": torch.zeros(1, 4, 8, dtype=torch.bfloat16), "pooled_prompt_embeds": torch.zeros(1, 8)}
    b = {"prompt_embeds": torch.ones(1, 4, 8, dtype=torch.bfloat16), "pooled_prompt_embeds": torch.full((1, 8), 2.0)}
    quarter = blended(a, b, 0.25)
    assert (float(quarter["prompt_embeds"].mean()), float(quarter["pooled_prompt_embeds"].mean())) == (0.25, 0.5)
    assert {name: tensor.dtype for name, tensor in quarter.items()} == {
        name: tensor.dtype for name, tensor in a.items()
    }
    assert blended(a, b, 0.0) is a
    torch.testing.assert_close(blended(a, b, 1.0), b)
