"""What a job asks of the GPU."""

from __future__ import annotations

from typing import Any

import pytest

from flux_engine.job.base import ParseContext
from flux_engine.job.parse import Request, parse_job
from flux_engine.job.work import work_of

PICTURE = {"prompt": "a sun", "width": 512, "height": 512, "num_inference_steps": 4}
VIDEO = {**PICTURE, "type": "video", "num_frames": 12, "fps": 12}


@pytest.mark.parametrize(
    ("asked", "work"),
    [
        (PICTURE, 1),
        ({**PICTURE, "num_images": 3}, 3),
        ({**PICTURE, "true_cfg_scale": 2.0}, 2),
        (VIDEO, 12),
        ({**VIDEO, "generated_fps": 6}, 7),
        ({**VIDEO, "mode": "feedback", "keyframes": {"0": "a sun", "6": "a moon"}}, 13),
    ],
)
def test_work_is_megapixels_times_steps_times_pictures(
    context: ParseContext, asked: dict[str, Any], work: float
) -> None:
    assert work_of(parse_job(Request(id="job-1", input=asked), context)) == work
