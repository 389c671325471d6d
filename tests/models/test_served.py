"""Which model FLUX_MODEL means, which names a job may use, and what stops the worker before its first job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flux_engine.errors import ModelUnavailable
from flux_engine.models.served import ServedModels
from flux_engine.settings import SettingsError


def model_folder(folder: Path, pipeline: str = "FluxPipeline") -> Path:
    """As much of a diffusers folder as tells its kind."""
    (folder / "transformer").mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": pipeline}))
    (folder / "transformer" / "config.json").write_text(json.dumps({"guidance_embeds": True}))
    return folder


def served(configured: str | None, volume: Path) -> ServedModels:
    return ServedModels(configured, volume=volume, has_gpu=False)


@pytest.mark.parametrize(
    ("configured", "identity"),
    [
        (None, "flux-tiny"),
        ("schnell", "black-forest-labs/FLUX.1-schnell"),
        ("black-forest-labs/flux.1-DEV", "black-forest-labs/FLUX.1-dev"),
        ("mine", "mine"),
        ("nested/mine", "mine"),
        ("owner/tune", "owner/tune"),
    ],
)
def test_the_default_is_what_flux_model_names(configured: str | None, identity: str, tmp_path: Path) -> None:
    for folder in ("mine", "nested/mine", "models/owner--tune"):
        model_folder(tmp_path / folder)
    models = served(configured, tmp_path)
    spec = models.default()
    assert (spec.id, spec.limits.id, models.ids()[0]) == (identity, identity, identity)
    assert models.named(identity) == spec


@pytest.mark.parametrize(
    ("configured", "said"),
    [
        ("flux-3-klein", "FLUX.3-klein is not served yet"),
        ("black-forest-labs/flux-3-image-klein", "not served yet"),
        ("/no/such/folder", "no model of the catalogue"),
        ("no-such-model", "no model of the catalogue"),
        ("../mine", "no model of the catalogue"),
        ("x\0y", "no model of the catalogue"),
        ("diffusion", "of a kind that this worker does not serve"),
    ],
)
def test_what_can_never_be_served_stops_the_worker(configured: str, said: str, tmp_path: Path) -> None:
    model_folder(tmp_path / "diffusion", "StableDiffusionXLPipeline")
    with pytest.raises(SettingsError, match=said) as refusal:
        served(configured, tmp_path)
    assert str(refusal.value).startswith("FLUX_MODEL: ")
    assert "/no/such" not in str(refusal.value)


def test_a_fine_tune_that_is_not_on_the_volume_yet_is_served_once_it_is(tmp_path: Path) -> None:
    models = served("owner/tune", tmp_path)
    with pytest.raises(ModelUnavailable, match="owner/tune is not on this endpoint's volume"):
        models.default()
    folder = model_folder(tmp_path / "models" / "owner--tune")
    assert models.weights(models.default()).folder == folder


def test_a_folder_named_like_a_model_of_the_catalogue_is_the_one_that_is_served(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "FLUX.1-dev", "FluxFillPipeline")
    models = served(str(folder), tmp_path / "volume")
    spec = models.named("FLUX.1-dev")
    assert spec == models.default()
    assert (spec.id, spec.pipeline_class) == ("FLUX.1-dev", "FluxFillPipeline")
    assert models.weights(spec).folder == folder
    assert models.named("black-forest-labs/FLUX.1-dev").pipeline_class == "FluxPipeline"


def test_a_job_does_not_look_at_the_folder_again(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "mine")
    models = served("mine", tmp_path)
    first = models.default()
    (folder / "model_index.json").unlink()
    assert models.default() == models.named("mine") == first


def test_a_name_that_nothing_has_is_no_model(tmp_path: Path) -> None:
    models = served(None, tmp_path)
    assert models.find("sdxl") is None
    assert models.find("flux-3-klein") is None
    with pytest.raises(ModelUnavailable):
        models.named("sdxl")
