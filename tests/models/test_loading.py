"""Loading by a plan: component by component, quantised where it is quick, and from a checkpoint once there is one."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline

from flux_engine.models.catalog import FLUX_1_DEV, FLUX_2_DEV, FLUX_TINY
from flux_engine.models.checkpoint import write_checkpoint
from flux_engine.models.loading import Placement, Source, Tuned, files_to_read, load_tuned, loading_order, placement
from flux_engine.models.planning.gpus import cpu_machine, find_card
from flux_engine.models.planning.optimizer import ModelOptimizer
from flux_engine.models.planning.plan import Preferences
from flux_engine.units import GIB
from tests.models.tiny_flux import paint, psnr, save_random_flux

CPU = cpu_machine(total_bytes=16 * GIB)
MEMORY = ModelOptimizer().plan(CPU, FLUX_TINY, Preferences(profile="memory"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_flux(tmp_path_factory.mktemp("flux"))


def kept(tuned: Tuned) -> Path:
    """The checkpoint of what was quantised."""
    assert tuned.checkpoint is not None
    assert tuned.unsaved is not None
    assert write_checkpoint(tuned.checkpoint, tuned.unsaved)
    return tuned.checkpoint


def test_a_pipeline_loaded_by_its_components_is_the_one_that_diffusers_loads(folder: Path) -> None:
    plan = ModelOptimizer().plan(CPU, FLUX_TINY)
    loaded: list[str] = []
    source = Source(folder=folder, revision="1")
    tuned = load_tuned(FLUX_TINY, source, plan, device="cpu", on_loaded=loaded.append)
    assert psnr(paint(tuned.pipeline), paint(FluxPipeline.from_pretrained(folder, dtype=torch.float32))) == float("inf")
    assert tuple(loaded) == loading_order(FLUX_TINY) == ("text_encoder_2", "text_encoder", "transformer", "vae")


def test_the_first_worker_quantises_and_the_second_loads_what_it_kept(folder: Path, tmp_path: Path) -> None:
    source = Source(folder=folder, revision="1", volume=tmp_path)
    first = load_tuned(FLUX_TINY, source, MEMORY, device="cpu")
    assert list(tmp_path.iterdir()) == []  # whoever has time writes: not the load
    checkpoint = kept(first)
    second = load_tuned(FLUX_TINY, source, MEMORY, device="cpu")

    assert (first.is_from_checkpoint, second.is_from_checkpoint) == (False, True)
    assert first.applied == second.applied
    for tuned in (first, second):  # a weight that wants a gradient cannot be streamed to a GPU in 8 bits
        parts = [part for part in tuned.pipeline.components.values() if isinstance(part, torch.nn.Module)]
        assert not [name for part in parts for name, weight in part.named_parameters() if weight.requires_grad]
    assert psnr(paint(first.pipeline), paint(second.pipeline)) == float("inf")
    assert {path.name for path in checkpoint.iterdir()} == {"transformer", "text_encoder_2", "checkpoint.json"}
    sizes = {name: bytes_of(place / name) for name, place in (("transformer", folder), ("text_encoder_2", folder))}
    assert bytes_of(checkpoint) < 0.6 * sum(sizes.values())


def bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


def test_a_checkpoint_is_made_of_weights_that_loras_and_a_step_cache_have_wrapped(folder: Path, tmp_path: Path) -> None:
    from flux_engine.models.lora.manager import LoRAManager

    source = Source(folder=folder, revision="1", volume=tmp_path)
    first = load_tuned(FLUX_TINY, source, replace(MEMORY, step_cache_threshold=0.5), device="cpu")
    picture = paint(first.pipeline)
    loras = LoRAManager(mode="slot")
    loras.reserve(first.pipeline)
    loras.apply(first.pipeline)
    kept(first)
    again = load_tuned(FLUX_TINY, source, MEMORY, device="cpu")
    assert again.is_from_checkpoint
    assert psnr(paint(again.pipeline), picture) == float("inf")


@pytest.mark.parametrize("is_there", [False, True])
def test_a_checkpoint_that_cannot_be_read_is_made_again(folder: Path, tmp_path: Path, is_there: bool) -> None:
    source = Source(folder=folder, revision="1", volume=tmp_path)
    first = load_tuned(FLUX_TINY, source, MEMORY, device="cpu")
    checkpoint = kept(first)
    if is_there:
        weights = next((checkpoint / "transformer").glob("*.safetensors"))
        weights.write_bytes(weights.read_bytes()[:-1000])
    else:
        shutil.rmtree(checkpoint / "transformer")

    mended = load_tuned(FLUX_TINY, source, MEMORY, device="cpu")
    assert not mended.is_from_checkpoint
    assert psnr(paint(first.pipeline), paint(mended.pipeline)) == float("inf")
    kept(mended)
    assert load_tuned(FLUX_TINY, source, MEMORY, device="cpu").is_from_checkpoint


def test_what_is_read_ahead_is_what_is_loaded(folder: Path, tmp_path: Path) -> None:
    source = Source(folder=folder, revision="1", volume=tmp_path)

    def places() -> dict[str, Path]:
        return {one.component: one.paths[0].parent.parent for one in files_to_read(FLUX_TINY, source, MEMORY)}

    assert set(places().values()) == {folder}
    assert tuple(places()) == loading_order(FLUX_TINY)
    checkpoint = kept(load_tuned(FLUX_TINY, source, MEMORY, device="cpu"))
    quantised = {"transformer", "text_encoder_2"}
    assert places() == {name: checkpoint if name in quantised else folder for name in loading_order(FLUX_TINY)}


def test_a_plain_plan_has_nothing_to_keep(folder: Path, tmp_path: Path) -> None:
    plan = ModelOptimizer().plan(CPU, FLUX_TINY)
    tuned = load_tuned(FLUX_TINY, Source(folder=folder, revision="1", volume=tmp_path), plan, device="cpu")
    assert (tuned.checkpoint, tuned.unsaved, tuned.is_from_checkpoint) == (None, None, False)


@pytest.mark.parametrize(
    ("card", "spec", "component", "is_quantised_yet", "expected"),
    [
        ("RTX 4080", FLUX_1_DEV, "text_encoder_2", False, Placement(load_on="cuda", rest_on="cpu")),
        ("RTX 4080", FLUX_1_DEV, "text_encoder_2", True, Placement(load_on="cpu", rest_on="cpu")),
        ("RTX 4080", FLUX_1_DEV, "transformer", False, Placement(load_on="cuda", rest_on="cuda")),
        ("RTX 4080", FLUX_1_DEV, "vae", False, Placement(load_on="cuda", rest_on="cuda")),
        ("H100 80GB HBM3", FLUX_1_DEV, "text_encoder_2", False, Placement(load_on="cuda", rest_on="cuda")),
        ("A10G", FLUX_2_DEV, "transformer", False, Placement(load_on="cpu", rest_on="cpu")),  # 30 GiB do not fit
        ("A10G", FLUX_2_DEV, "vae", False, Placement(load_on="cpu", rest_on="cpu")),
    ],
)
def test_weights_are_quantised_on_the_gpu_where_it_holds_them(
    card: str, spec: object, component: str, is_quantised_yet: bool, expected: Placement
) -> None:
    gpu = find_card(card)
    assert gpu is not None
    model = FLUX_1_DEV if spec is FLUX_1_DEV else FLUX_2_DEV
    plan = ModelOptimizer().plan(gpu, model)
    assert placement(plan, component, device="cuda", is_quantised_yet=is_quantised_yet) == expected
    assert placement(plan, component, device="cpu") == Placement(load_on="cpu", rest_on="cpu")
