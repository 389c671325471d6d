"""Previews of a picture on its way, in the layouts of FLUX.1 and FLUX.2."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from flux_engine.generate.preview import FlowPreview
from flux_engine.media.encode import preview_data_uri
from flux_engine.models.catalog import FLUX_1_DEV, FLUX_2_KLEIN_4B, ModelSpec
from tests.models.tiny_models import call_arguments, tiny_model


@pytest.mark.parametrize("spec", [FLUX_1_DEV, FLUX_2_KLEIN_4B], ids=lambda spec: spec.name)
def test_the_preview_of_the_last_step_is_the_picture(spec: ModelSpec) -> None:
    pipeline = tiny_model(spec)
    pipeline.set_progress_bar_config(disable=True)
    arguments = call_arguments(spec) | {"num_inference_steps": 4, "output_type": "pil", "width": 64, "height": 32}
    preview, shown = FlowPreview(width=64, height=32), []

    def follow(pipeline: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        shown.append(preview.follow(pipeline, tensors["latents"], step, is_wanted=True))
        return {}

    with torch.no_grad():
        picture = pipeline(prompt="a red sun", **arguments, callback_on_step_end=follow).images[0]
    assert shown[0] is None  # one state alone has no direction
    pictures = [opened(uri) for uri in shown[1:] if uri is not None]
    assert [preview.shape for preview in pictures] == [(32, 64, 3)] * 3
    expected = opened(preview_data_uri(picture))
    assert np.abs(pictures[-1] - expected).mean() < 1
    assert np.abs(pictures[0] - expected).mean() > 1


def opened(uri: str) -> Any:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))), np.float32)
