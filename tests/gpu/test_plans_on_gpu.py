"""What only a GPU can prove: seconds and peak memory against the plan's estimate (`make test-gpu`).

The bundled model is enough for the mechanics; FLUX_MODEL names another folder's model whose figures matter. A report is
written to `gpu-report.json`.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import torch

from flux_engine.models.catalog import FLUX_TINY, ModelSpec, find
from flux_engine.models.checkpoint import write_checkpoint
from flux_engine.models.loading import Source, Tuned, load_tuned, release_memory
from flux_engine.models.planning.device import read_gpu
from flux_engine.models.planning.optimizer import ModelOptimizer
from flux_engine.models.planning.plan import PROFILES, Preferences
from flux_engine.models.weights import BUNDLED_FOLDER, find_weights
from flux_engine.settings import Profile
from flux_engine.units import GIB

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU: `make test-gpu` on a machine with one"),
]
REPORT = Path("gpu-report.json")


@pytest.mark.parametrize("profile", PROFILES)
def test_a_plan_keeps_what_it_promises(profile: Profile, tmp_path: Path) -> None:
    """Loading, keeping the quantised checkpoint, and painting; then again from the checkpoint."""
    spec = find(os.environ.get("FLUX_MODEL", "")) or FLUX_TINY
    volume = Path(os.environ.get("MODEL_VOLUME", "/runpod-volume"))
    folder = BUNDLED_FOLDER if spec is FLUX_TINY else find_weights(spec.id, volume).folder
    release_memory()
    torch.cuda.reset_peak_memory_stats()
    plan = ModelOptimizer().plan(read_gpu(), spec, Preferences(profile=profile))
    source = Source(folder=folder, revision="test", volume=tmp_path)
    first = load_tuned(spec, source, plan, device="cuda")
    is_kept = first.unsaved is not None and first.checkpoint is not None
    if first.unsaved is not None and first.checkpoint is not None:
        assert write_checkpoint(first.checkpoint, first.unsaved)
    del first
    release_memory()
    tuned = load_tuned(spec, source, plan, device="cuda")
    is_quantised = any(scheme != "none" for scheme in tuned.applied.quantisations.values())
    assert is_kept == tuned.is_from_checkpoint == is_quantised

    seconds = [_seconds_of_picture(tuned, spec) for _ in range(3)]
    peak = torch.cuda.max_memory_allocated()
    _report(profile, plan.to_dict() | {"measured_seconds": seconds, "measured_peak_bytes": peak})

    assert peak <= plan.peak_bytes + GIB // 2
    assert tuned.applied.is_compiled == plan.compile or tuned.applied.fallbacks
    if plan.seconds is not None and spec is not FLUX_TINY:
        assert seconds[-1] <= 2 * plan.seconds


def _seconds_of_picture(tuned: Tuned, spec: ModelSpec) -> float:
    steps, side = spec.limits.num_inference_steps, spec.limits.side
    tuned.applied.begin_call(tuned.pipeline, num_inference_steps=steps)
    began = time.perf_counter()
    picture = tuned.pipeline(
        prompt="a red sun over purple mountains",
        num_inference_steps=steps,
        height=side,
        width=side,
        max_sequence_length=spec.limits.max_sequence_length,
        generator=torch.Generator("cpu").manual_seed(1),
        output_type="pt",
    ).images
    torch.cuda.synchronize()
    assert bool(torch.isfinite(picture).all())
    return time.perf_counter() - began


def _report(profile: Profile, figures: dict[str, object]) -> None:
    report = json.loads(REPORT.read_text()) if REPORT.is_file() else {}
    REPORT.write_text(json.dumps(report | {profile: figures}, indent=2))
