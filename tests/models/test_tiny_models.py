"""Every model of the catalogue, small and random, of its real classes: saved, planned, loaded, applied, called."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from pathlib import Path

import diffusers
import numpy as np
import pytest
from numpy.typing import NDArray

from flux_engine.models.catalog import CATALOG, ModelSpec
from flux_engine.models.planning.gpus import cpu_machine
from flux_engine.models.planning.optimizer import ModelOptimizer
from flux_engine.models.planning.plan import Plan, Preferences
from flux_engine.models.tuning.apply import apply
from flux_engine.models.tuning.quantisation import loading
from flux_engine.settings import Offload
from flux_engine.units import GIB
from tests.models.tiny_models import call_arguments, cases_of, tiny_model

CPU = cpu_machine(total_bytes=400 * GIB)
PIPELINES = [spec for spec in CATALOG if not spec.is_modular]


@pytest.mark.parametrize("spec", cases_of((spec,) for spec in PIPELINES))
def test_a_model_goes_through_load_plan_generate_and_unload(spec: ModelSpec, tmp_path: Path) -> None:
    tiny_model(spec).save_pretrained(tmp_path)
    plan = ModelOptimizer().plan(CPU, spec, Preferences())
    how = loading(plan, device="cpu")

    pipeline = getattr(diffusers, spec.pipeline_class).from_pretrained(tmp_path, **how.arguments)
    assert all(hasattr(pipeline, component.name) for component in spec.components)
    applied = apply(pipeline, plan, device="cpu", fallbacks=how.fallbacks)
    assert applied.fallbacks == ()
    assert applied.dtype == plan.dtype
    assert applied.to_dict()["offload"] == "none"

    pipeline.set_progress_bar_config(disable=True)
    picture = pipeline(prompt="a red sun", **call_arguments(spec)).images[0]
    assert picture.shape == (32, 32, 3)
    assert np.isfinite(picture).all()

    offloads: tuple[Offload, ...] = ("group", "text")
    for offload in offloads:
        _is_the_same_under(offload, tmp_path, spec, plan, picture)
    transformer = weakref.ref(pipeline.transformer)
    del pipeline
    gc.collect()
    assert transformer() is None


def _is_the_same_under(
    offload: Offload, folder: Path, spec: ModelSpec, plan: Plan, picture: NDArray[np.float32]
) -> None:
    offloading = replace(plan, offload=offload)
    how = loading(offloading, device="cpu")
    pipeline = getattr(diffusers, spec.pipeline_class).from_pretrained(folder, **how.arguments)
    applied = apply(pipeline, offloading, device="cpu", fallbacks=how.fallbacks)
    assert (applied.offload, applied.fallbacks) == (offload, ())
    pipeline.set_progress_bar_config(disable=True)
    assert np.array_equal(pipeline(prompt="a red sun", **call_arguments(spec)).images[0], picture)
