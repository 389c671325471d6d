"""One model at a time: loaded by the first who needs it, gone for the next, leaner when memory runs out."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline

from flux_engine.errors import DeviceBroken, ModelUnavailable, OutOfMemory
from flux_engine.models.catalog import FLUX_TINY
from flux_engine.models.gpu_properties import GIB, GpuProperties, cpu_machine
from flux_engine.models.manager import FluxModelManager, LoadedModel
from flux_engine.models.optimizer import ModelOptimizer
from flux_engine.models.plan import Plan, Preferences
from flux_engine.models.served import ServedModels
from flux_engine.models.spec import ModelSpec
from tests.models.tiny_flux import paint, save_random_flux


@dataclass(frozen=True)
class Shelf:
    """A manager with two models: the bundled one and a folder of the volume."""

    manager: FluxModelManager
    tiny: ModelSpec
    other: ModelSpec


@pytest.fixture(name="shelf")
def _shelf(tmp_path: Path) -> Shelf:
    save_random_flux(tmp_path / "volume" / "other")
    served = ServedModels("other", volume=tmp_path / "volume", has_gpu=False)
    manager = FluxModelManager(
        served,
        gpu=lambda: cpu_machine(total_bytes=400 * GIB),
        volume=tmp_path / "volume",
        lora_max_bytes=1,
    )
    return Shelf(manager, FLUX_TINY, served.named("other"))


def failing(error: Callable[[], BaseException], *, times: int) -> Callable[[LoadedModel], str]:
    """Work that fails `times` times and then says by which precision it was done."""
    left = times

    def work(model: LoadedModel) -> str:
        nonlocal left
        if left > 0:
            left -= 1
            raise error()
        return model.identity.precision

    return work


def no_memory() -> BaseException:
    return torch.OutOfMemoryError("CUDA out of memory")


def test_a_model_is_loaded_once_and_says_how_long_each_phase_took(shelf: Shelf) -> None:
    first = shelf.manager.load(shelf.tiny)
    assert shelf.manager.load(shelf.tiny) is first
    assert set(first.phases_ms) == {"imports", "weights", "apply", "warm_up"}
    assert first.phases_ms["weights"] > 0
    assert shelf.manager.is_warm(shelf.tiny)
    assert not shelf.manager.is_warm(shelf.other)


def test_the_older_model_goes_for_the_next(shelf: Shelf) -> None:
    pipelines: list[weakref.ref[Any]] = []
    pictures: dict[str, list[bytes]] = {shelf.tiny.id: [], shelf.other.id: []}
    for spec in (shelf.tiny, shelf.other) * 3:

        def work(model: LoadedModel) -> bytes:
            pipelines.append(weakref.ref(model.pipeline.transformer))
            return paint(model.pipeline).tobytes()

        pictures[spec.id].append(shelf.manager.use(spec, work))
        gc.collect()
        assert sum(pipeline() is not None for pipeline in pipelines) == 1
    assert all(len(set(made)) == 1 for made in pictures.values())
    assert len({made[0] for made in pictures.values()}) == 2


def test_where_memory_runs_out_a_leaner_plan_makes_it_and_is_kept(shelf: Shelf) -> None:
    assert shelf.manager.use(shelf.tiny, failing(no_memory, times=1)) == "float32+int8_weight_only"
    assert shelf.manager.use(shelf.tiny, failing(no_memory, times=0)) == "float32+int8_weight_only"
    assert shelf.manager.use(shelf.other, failing(no_memory, times=0)) == "bfloat16"  # that one has not run out


def test_where_the_leanest_does_not_fit_the_job_ends_and_the_next_is_right(shelf: Shelf) -> None:
    with pytest.raises(OutOfMemory, match="smaller picture"):
        shelf.manager.use(shelf.tiny, failing(no_memory, times=100))
    assert shelf.manager.use(shelf.tiny, failing(no_memory, times=0)) == "float32+int8_weight_only"


class Compiling(ModelOptimizer):
    """Compiles what would not be worth it."""

    def plan(self, gpu: GpuProperties, model: ModelSpec, preferences: Preferences | None = None) -> Plan:
        return super().plan(gpu, model, replace(preferences or Preferences(), compile=True))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")  # torch's compiler of torch
def test_memory_that_runs_out_in_the_warm_up_is_no_endless_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def call(*_: object, **__: object) -> None:
        nonlocal calls
        calls += 1
        raise no_memory()

    monkeypatch.setattr(FluxPipeline, "__call__", call)
    manager = FluxModelManager(
        ServedModels("flux-tiny", volume=tmp_path, has_gpu=False),
        gpu=lambda: cpu_machine(total_bytes=400 * GIB),
        volume=tmp_path,
        lora_max_bytes=1,
        optimizer=Compiling(),
    )
    with pytest.raises(OutOfMemory):
        manager.use(FLUX_TINY, failing(no_memory, times=0))
    assert calls == 2  # the plan and the leaner one


@pytest.mark.parametrize("ran_out_before", [0, 1])
def test_a_device_that_does_not_answer_is_said(shelf: Shelf, ran_out_before: int) -> None:
    errors = [no_memory() for _ in range(ran_out_before)] + [torch.AcceleratorError("CUDA error: launch failed")]

    def work(_: LoadedModel) -> None:
        raise errors.pop(0)

    with pytest.raises(DeviceBroken, match="another worker"):
        shelf.manager.use(shelf.tiny, work)


def test_a_model_that_is_not_there_leaves_the_loaded_one(shelf: Shelf, tmp_path: Path) -> None:
    served = ServedModels("flux-tiny", volume=tmp_path, has_gpu=False)
    with pytest.raises(ModelUnavailable, match="schnell"):
        shelf.manager.identity(served.named("black-forest-labs/FLUX.1-schnell"))
