"""Which model FLUX_MODEL means, which names a job may use, and what stops the worker before its first job."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from flux_engine.errors import ModelUnavailable
from flux_engine.job.image import ImageJob
from flux_engine.job.parse import Request, parse_job
from flux_engine.models.catalog import FLUX_1_DEV, FLUX_3_KLEIN, FLUX_TINY
from flux_engine.models.served import ServedModels
from flux_engine.models.weights import BUNDLED_FOLDER
from flux_engine.settings import SettingsError
from tests.conftest import context_for


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
        ("flux-3-klein", "black-forest-labs/flux-3-image-klein"),
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


def test_the_folder_of_the_bundled_model_is_the_bundled_model() -> None:
    spec = served(str(BUNDLED_FOLDER), BUNDLED_FOLDER.parent).default()
    assert (spec.limits.side, spec.limits.num_inference_steps) == (
        FLUX_TINY.limits.side,
        FLUX_TINY.limits.num_inference_steps,
    )
    assert spec.parameters == FLUX_TINY.parameters


def test_a_fine_tune_is_planned_by_its_own_tensors(tmp_path: Path) -> None:
    """One of FLUX.1-dev's kind that is as small as the bundled model."""
    shutil.copytree(BUNDLED_FOLDER, tmp_path / "mine")
    config = tmp_path / "mine" / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"guidance_embeds": True}))
    spec = served("mine", tmp_path).default()
    assert spec.limits.side == FLUX_1_DEV.limits.side
    assert [one.parameters for one in spec.components] == [one.parameters for one in FLUX_TINY.components]
    assert (spec.shape.width, spec.shape.blocks) == (FLUX_TINY.shape.width, FLUX_TINY.shape.blocks)
    assert spec.shape.token_weights == pytest.approx(FLUX_TINY.shape.token_weights, rel=0.2)


def test_a_job_does_not_look_at_the_folder_again(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "mine")
    models = served("mine", tmp_path)
    first = models.default()
    (folder / "model_index.json").unlink()
    assert models.default() == models.named("mine") == first


def test_a_folder_of_blocks_is_a_model(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "mine", "Flux3DistilledModularPipeline")
    (folder / "model_index.json").rename(folder / "modular_model_index.json")
    spec = served("mine", tmp_path).default()
    assert (spec.id, spec.pipeline_class) == ("mine", "Flux3DistilledModularPipeline")
    assert served("mine", tmp_path).has_weights(spec)


def flux_3_job(**fields: object) -> ImageJob:
    asked = {"prompt": "a sun", **fields}
    job = parse_job(Request(id="job-1", input=asked), context_for(FLUX_3_KLEIN))
    assert isinstance(job, ImageJob)
    return job


def test_a_missing_upsampler_is_said_or_refused_where_it_was_asked_for(tmp_path: Path) -> None:
    models = served(FLUX_3_KLEIN.id, tmp_path)
    assert flux_3_job().enhance_prompt is True
    without = models.equipped(flux_3_job())
    assert without.enhance_prompt is False
    assert "its prompt upsampler" in without.warnings[-1]
    assert models.upsampler_revision(without) is None
    assert models.equipped(flux_3_job(enhance_prompt=False)).warnings == ()
    with pytest.raises(ModelUnavailable, match="fetch_models"):
        models.equipped(flux_3_job(enhance_prompt=True))


def test_an_upsampler_on_the_volume_is_used_and_part_of_the_fingerprint(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "black-forest-labs--flux-3-image-klein-pup"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    models = served(FLUX_3_KLEIN.id, tmp_path)
    job = flux_3_job()
    assert models.equipped(job) is job
    assert models.upsampler_folder(FLUX_3_KLEIN) == folder
    first = models.upsampler_revision(job)
    (folder / "config.json").write_text('{"other": 1}')
    assert None is not first != models.upsampler_revision(job)
    assert models.upsampler_revision(flux_3_job(enhance_prompt=False)) is None


def test_a_name_that_nothing_has_is_no_model(tmp_path: Path) -> None:
    models = served(None, tmp_path)
    assert models.find("sdxl") is None
    with pytest.raises(ModelUnavailable):
        models.named("sdxl")
