"""A model in one file paints what its folder paints: bit for bit where the numbers are the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from flux_engine.models.catalog import FLUX_2_DEV, FLUX_2_KLEIN_4B, find
from flux_engine.models.single_file.base import BasedFile, based
from flux_engine.models.single_file.components import suit_scheduler
from flux_engine.models.single_file.model_file import read_model_file
from flux_engine.models.weights import BUNDLED_FOLDER
from tests.models.single_file.files import FLUX_1, safetensors, written
from tests.models.single_file.layouts import all_in_one, component, rounded_to_fp8, save, to_bfl, with_transformer
from tests.models.single_file.painting import of_file, of_folder
from tests.models.tiny_flux import save_random_flux
from tests.models.tiny_models import tiny_model

FAMILIES = ("flux-tiny", "FLUX.1", "FLUX.2-dev", "FLUX.2-klein")
ENCODER = {"FLUX.2-dev": "mistral3_24b", "FLUX.2-klein": "qwen3_4b"}
SPECS = {"FLUX.2-dev": FLUX_2_DEV, "FLUX.2-klein": FLUX_2_KLEIN_4B}


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume with a small random pipeline of each family."""
    root = tmp_path_factory.mktemp("volume")
    save_random_flux(root / "models" / "FLUX.1")
    for name, spec in SPECS.items():
        tiny_model(spec).save_pretrained(root / "models" / name)
    return root


def folder_of(family: str, volume: Path) -> Path:
    return BUNDLED_FOLDER if family == "flux-tiny" else volume / "models" / family


def opened(path: Path, volume: Path) -> BasedFile:
    return based(read_model_file(path, name=path.name), volume=volume)


LAYOUTS: dict[str, Callable[[Path, str], dict[str, torch.Tensor]]] = {
    "bfl": lambda folder, _: to_bfl(component(folder, "transformer")),
    "comfyui": lambda folder, _: {
        f"model.diffusion_model.{name}": tensor for name, tensor in to_bfl(component(folder, "transformer")).items()
    },
    "diffusers": lambda folder, _: component(folder, "transformer"),
    "all in one": lambda folder, family: all_in_one(folder, encoder=ENCODER.get(family, "t5xxl")),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_paints_what_its_folder_paints(family: str, layout: str, volume: Path, tmp_path: Path) -> None:
    folder = folder_of(family, volume)
    found = opened(save(tmp_path / "mine.safetensors", LAYOUTS[layout](folder, family)), volume)
    assert found.folder == folder
    parts = {"transformer", "vae", "text_encoder", "text_encoder_2"} if layout == "all in one" else {"transformer"}
    assert set(found.file.parts) == parts & {path.name for path in folder.iterdir()}
    assert np.array_equal(of_file(found), of_folder(found.spec, folder))


@pytest.mark.parametrize("word", ["scale_weight", "weight_scale"])
@pytest.mark.parametrize("family", ["flux-tiny", "FLUX.2-klein"])
def test_scaled_fp8_paints_what_its_widened_weights_paint(family: str, word: str, volume: Path, tmp_path: Path) -> None:
    folder = folder_of(family, volume)
    stored, _ = rounded_to_fp8(to_bfl(component(folder, "transformer")), word=word)
    stored["scaled_fp8"] = torch.zeros(0, dtype=torch.float8_e4m3fn)
    found = opened(save(tmp_path / "mine.safetensors", stored), volume)
    # The scale of a fused layer is one for all of it, so the pieces are widened by hand from the fused layer.
    whole = found.file.parts["transformer"]
    widened = {}
    for name, origin in whole.items():
        tensor = stored[origin.name].float()
        scale = stored.get(f"{origin.name.removesuffix('.weight')}.{word}")
        tensor = tensor if scale is None or not origin.name.endswith(".weight") else tensor * scale
        tensor = tensor if origin.rows is None else tensor[slice(*origin.rows)]
        widened[name] = torch.cat(list(tensor.chunk(2)[::-1])) if origin.is_swapped else tensor
    target = with_transformer(folder, widened, tmp_path / "widened")
    assert np.array_equal(of_file(found), of_folder(found.spec, target))


def test_a_quantised_plan_is_the_same_from_a_file(volume: Path, tmp_path: Path) -> None:
    folder = folder_of("FLUX.1", volume)
    found = opened(save(tmp_path / "mine.safetensors", all_in_one(folder)), volume)
    wishes = {"quantisation": "int8_weight_only", "text_quantisation": "int8_weight_only"}
    assert np.array_equal(of_file(found, **wishes), of_folder(found.spec, folder, **wishes))
    assert not np.array_equal(of_file(found, **wishes), of_file(found))


def test_the_catalogue_knows_what_the_files_are(volume: Path, tmp_path: Path) -> None:
    kinds = {}
    for family in FAMILIES:
        state = to_bfl(component(folder_of(family, volume), "transformer"))
        kinds[family] = opened(save(tmp_path / "mine.safetensors", state), volume).spec.pipeline_class
    assert kinds == {
        "flux-tiny": "FluxPipeline",
        "FLUX.1": "FluxPipeline",
        "FLUX.2-dev": "Flux2Pipeline",
        "FLUX.2-klein": "Flux2KleinPipeline",
    }
    assert find("mine.safetensors") is None


@pytest.mark.parametrize(("has_guidance", "shift", "is_dynamic"), [(True, 3.0, True), (False, 1.0, False)])
def test_a_file_has_the_schedule_of_its_kind_beside_the_other_kinds_folder(
    has_guidance: bool, shift: float, is_dynamic: bool, tmp_path: Path
) -> None:
    guidance = {name.replace("time_in", "guidance_in"): shape for name, shape in FLUX_1.items() if "time_in" in name}
    path = written(tmp_path / "file", safetensors(FLUX_1 | (guidance if has_guidance else {})))
    file = read_model_file(path, name="mine")
    pipeline = SimpleNamespace(scheduler=FlowMatchEulerDiscreteScheduler(shift=2.0))
    suit_scheduler(pipeline, file, base_has_guidance=has_guidance)
    assert pipeline.scheduler.config.shift == 2.0
    suit_scheduler(pipeline, file, base_has_guidance=not has_guidance)
    config = pipeline.scheduler.config
    assert (config.shift, config.use_dynamic_shifting) == (shift, is_dynamic)
