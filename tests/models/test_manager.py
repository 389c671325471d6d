"""Models are loaded by the first who needs them, stay while they fit, and get leaner when memory runs out."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline

from flux_engine.errors import DeviceBroken, ModelUnavailable, OutOfMemory
from flux_engine.models.beside.content_filter import ContentFilter
from flux_engine.models.catalog import FLUX_1_DEV, FLUX_TINY
from flux_engine.models.keeper import is_on_a_mount
from flux_engine.models.loaded import LoadedModel
from flux_engine.models.loading import Source
from flux_engine.models.manager import FluxModelManager
from flux_engine.models.planning.gpus import GpuProperties, cards_named, cpu_machine
from flux_engine.models.planning.plan import PROFILES, Plan, Preferences
from flux_engine.models.read_ahead import WeightFiles
from flux_engine.models.served import ServedModels
from flux_engine.models.spec import ModelSpec
from flux_engine.models.steps import Demand
from flux_engine.settings import Profile
from flux_engine.units import GIB
from tests.models.tiny_flux import paint, save_random_flux


@dataclass(frozen=True)
class Shelf:
    """A manager with two models: the bundled one and a folder of the volume."""

    manager: FluxModelManager
    tiny: ModelSpec
    other: ModelSpec


@pytest.fixture(name="shelf")
def _shelf(tmp_path: Path) -> Shelf:
    """With room for both."""
    return shelf_of(tmp_path / "volume", total_bytes=400 * GIB)


def shelf_of(volume: Path, *, total_bytes: int) -> Shelf:
    save_random_flux(volume / "other")
    served = ServedModels("other", volume=volume, has_gpu=False)
    manager = FluxModelManager(
        served, gpu=lambda: cpu_machine(total_bytes=total_bytes), volume=volume, lora_max_bytes=1
    )
    return Shelf(manager, FLUX_TINY, as_large_as(FLUX_1_DEV, served.named("other")))


def as_large_as(large: ModelSpec, spec: ModelSpec) -> ModelSpec:
    """`spec` to a plan that takes it for `large`."""
    return replace(
        spec, transformer=large.transformer, text_encoders=large.text_encoders, vae=large.vae, shape=large.shape
    )


@pytest.mark.parametrize("asks_speed_first", [False, True])
def test_plans_leave_room_for_the_content_filter(asks_speed_first: bool, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(bytes(1000))
    content_filter = ContentFilter(tmp_path, name="a filter", labels=("x",), threshold=0.5)
    (card,) = cards_named("RTX 4090")
    served = ServedModels("flux-tiny", volume=tmp_path, has_gpu=True)
    manager, plain = (
        FluxModelManager(served, gpu=lambda: card, volume=tmp_path, lora_max_bytes=1, content_filter=each)
        for each in (content_filter, None)
    )
    if asks_speed_first:
        assert manager.speed() == card.speed
    assert manager.plan(FLUX_TINY).limit_bytes < plain.plan(FLUX_TINY).limit_bytes


def test_threads_that_ask_at_once_get_one_plan(tmp_path: Path) -> None:
    """Else a model that is loaded by the one is loaded again by the other."""
    looks, second_look = list[str](), threading.Event()

    def look() -> GpuProperties:
        looks.append(threading.current_thread().name)
        if len(looks) > 1:
            second_look.set()
        second_look.wait(0.5)  # the time is the subject: a second look, were there one, would come within it
        return cpu_machine(total_bytes=400 * GIB)

    served = ServedModels("flux-tiny", volume=tmp_path, has_gpu=False)
    manager = FluxModelManager(served, gpu=look, volume=tmp_path, lora_max_bytes=1)
    with ThreadPoolExecutor(2) as threads:
        plans = list(threads.map(manager.plan, [FLUX_TINY] * 2))
    assert len(looks) == 1
    assert plans[0] is plans[1] is manager.plan(FLUX_TINY)


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


@pytest.mark.parametrize(("total_bytes", "kept"), [(400 * GIB, 2), (GIB, 1)])
def test_models_stay_while_they_fit_and_else_the_older_one_goes(tmp_path: Path, total_bytes: int, kept: int) -> None:
    shelf = shelf_of(tmp_path, total_bytes=total_bytes)
    transformers: list[weakref.ref[Any]] = []
    pictures: dict[str, list[bytes]] = {shelf.tiny.id: [], shelf.other.id: []}
    for spec in (shelf.tiny, shelf.other) * 3:

        def work(model: LoadedModel) -> bytes:
            transformers.append(weakref.ref(model.pipeline.transformer))
            return paint(model.pipeline).tobytes()

        pictures[spec.id].append(shelf.manager.use(spec, work))
        gc.collect()
        assert len({known() for known in transformers} - {None}) == min(kept, len(transformers))
    assert all(len(set(made)) == 1 for made in pictures.values())
    assert len({made[0] for made in pictures.values()}) == 2


def test_where_memory_runs_out_the_other_models_go_first(shelf: Shelf) -> None:
    shelf.manager.load(shelf.other)
    assert shelf.manager.use(shelf.tiny, failing(no_memory, times=1)) == "float32"
    assert not shelf.manager.is_warm(shelf.other)
    assert shelf.manager.use(shelf.tiny, failing(no_memory, times=1)) == "float32+int8_weight_only"


def test_what_was_half_loaded_when_memory_ran_out_is_let_go(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    half_loaded: list[weakref.ref[Any]] = []
    whole = FluxPipeline.to

    def to(pipeline: Any, *arguments: Any, **named: Any) -> Any:
        assert all(known() is None for known in half_loaded)
        half_loaded.append(weakref.ref(pipeline.transformer))
        if len(half_loaded) == 1:
            raise no_memory()
        return whole(pipeline, *arguments, **named)

    monkeypatch.setattr(FluxPipeline, "to", to)
    assert shelf.manager.use(shelf.tiny, failing(no_memory, times=0)) == "float32+int8_weight_only"
    assert len(half_loaded) == 2


def test_where_memory_runs_out_a_leaner_plan_makes_it_and_is_kept(shelf: Shelf) -> None:
    assert shelf.manager.use(shelf.tiny, failing(no_memory, times=1)) == "float32+int8_weight_only"
    assert shelf.manager.use(shelf.tiny, failing(no_memory, times=0)) == "float32+int8_weight_only"
    assert shelf.manager.use(shelf.other, failing(no_memory, times=0)) == "bfloat16"  # that one has not run out


def test_where_the_leanest_does_not_fit_the_job_ends_and_the_next_is_right(shelf: Shelf) -> None:
    with pytest.raises(OutOfMemory, match="smaller picture"):
        shelf.manager.use(shelf.tiny, failing(no_memory, times=100))
    assert shelf.manager.use(shelf.tiny, failing(no_memory, times=0)) == "float32+int8_weight_only"


@pytest.mark.parametrize("profile", PROFILES)
def test_what_a_result_is_made_by_is_told_before_the_model_is_loaded(tmp_path: Path, profile: Profile) -> None:
    manager = FluxModelManager(
        ServedModels("flux-tiny", volume=tmp_path, has_gpu=False),
        gpu=lambda: cpu_machine(total_bytes=400 * GIB),
        volume=tmp_path,
        preferences=Preferences(profile=profile),
        lora_max_bytes=1,
    )
    told = manager.identity(FLUX_TINY)
    assert manager.load(FLUX_TINY).identity == told
    assert ("int8" in told.precision) is (profile == "memory")


def compiling(volume: Path) -> FluxModelManager:
    """A manager that compiles also what would not be worth it."""
    return FluxModelManager(
        ServedModels("flux-tiny", volume=volume, has_gpu=False),
        gpu=lambda: cpu_machine(total_bytes=400 * GIB),
        volume=volume,
        lora_max_bytes=1,
        preferences=Preferences(compile=True),
    )


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
    manager = compiling(tmp_path)
    with pytest.raises(OutOfMemory):
        manager.use(FLUX_TINY, failing(no_memory, times=0))
    assert calls == 2  # the plan and the leaner one


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")
def test_a_volume_that_takes_no_compiled_code_costs_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "compiled").write_text("in the way")
    monkeypatch.setattr(FluxPipeline, "__call__", lambda *_, **__: None)  # the warm-up: only its cache matters here
    manager = compiling(tmp_path)
    assert manager.load(FLUX_TINY).tuned.applied.is_compiled


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")
def test_code_that_compiles_and_does_not_run_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def call(*_: object, **__: object) -> None:
        nonlocal calls
        calls += 1
        raise RuntimeError("no kernel for this card")

    monkeypatch.setattr(FluxPipeline, "__call__", call)
    manager = compiling(tmp_path)
    applied = manager.load(FLUX_TINY).tuned.applied
    assert not applied.is_compiled
    assert "no kernel" in applied.to_dict()["reasons"]["compile"]
    assert calls == 1
    assert manager.use(FLUX_TINY, failing(no_memory, times=1)) == "float32+int8_weight_only"  # the ladder is there yet


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        torch.AcceleratorError("CUDA error: out of memory"),  # of pinned memory, or a kernel that is loaded late
    ],
    ids=["cublas", "triton", "driver"],
)
def test_memory_that_is_not_of_torchs_allocator_is_memory_too(shelf: Shelf, error: RuntimeError) -> None:
    assert shelf.manager.use(shelf.tiny, failing(lambda: error, times=1)) == "float32+int8_weight_only"


def test_an_error_that_is_not_of_memory_passes_through(shelf: Shelf) -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        shelf.manager.use(shelf.tiny, failing(lambda: RuntimeError("shapes differ"), times=1))


def test_a_model_whose_download_broke_off_says_so(shelf: Shelf, tmp_path: Path) -> None:
    weights = next((tmp_path / "volume" / "other" / "transformer").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ModelUnavailable, match="fetch it again"):
        shelf.manager.use(shelf.other, failing(no_memory, times=0))


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


def test_each_model_is_read_ahead_whatever_became_of_the_last(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def files_to_read(spec: ModelSpec, source: Source, plan: Plan) -> list[WeightFiles]:
        read.append(spec.id)
        return []

    def no_torch() -> float:
        raise ImportError

    monkeypatch.setattr("flux_engine.models.manager.files_to_read", files_to_read)
    with monkeypatch.context() as broken:
        broken.setattr("flux_engine.models.manager.import_torch", no_torch)
        with pytest.raises(ImportError):
            shelf.manager.use(shelf.other, lambda _: None)
    shelf.manager.use(shelf.tiny, lambda _: None)
    assert read == ["other", "flux-tiny"]


def test_a_job_that_needs_less_is_run_by_the_better_plan_again(shelf: Shelf) -> None:
    large, small = Demand(pixels=512 * 512), Demand(pixels=256 * 256)
    assert shelf.manager.use(shelf.tiny, failing(no_memory, times=1), demand=large) == "float32+int8_weight_only"
    assert shelf.manager.identity(shelf.tiny, large).precision == "float32+int8_weight_only"
    assert shelf.manager.identity(shelf.tiny, small).precision == "float32"
    assert shelf.manager.use(shelf.tiny, failing(no_memory, times=0), demand=large) == "float32+int8_weight_only"
    assert shelf.manager.use(shelf.tiny, failing(no_memory, times=0), demand=small) == "float32"


@pytest.mark.parametrize(("keeps_checkpoints", "expected"), [(True, 1), (False, 0), (None, 0)])
def test_a_quantised_checkpoint_is_kept_after_the_first_job_on_a_real_volume(
    tmp_path: Path, keeps_checkpoints: bool | None, expected: int
) -> None:
    manager = FluxModelManager(
        ServedModels("flux-tiny", volume=tmp_path, has_gpu=False),
        gpu=lambda: cpu_machine(total_bytes=400 * GIB),
        volume=tmp_path,
        preferences=Preferences(profile="memory"),
        lora_max_bytes=1,
        keeps_checkpoints=keeps_checkpoints,
    )

    def work(model: LoadedModel) -> None:
        assert not (tmp_path / "quantised").exists()

    manager.use(FLUX_TINY, work)
    manager.wait_for_checkpoint()
    if keeps_checkpoints is None and is_on_a_mount(tmp_path):  # this machine's /tmp is one
        expected = 1
    kept = [path for path in (tmp_path / "quantised").glob("*") if path.is_dir()]
    assert len(kept) == expected
    if kept:
        manager.unload()
        assert manager.use(FLUX_TINY, lambda model: model.tuned.is_from_checkpoint)
