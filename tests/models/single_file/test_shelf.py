"""Single files by name: what FLUX_MODEL and a job may call them, and what each name that has none says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flux_engine.errors import ModelUnavailable
from flux_engine.models.served import ServedModels
from flux_engine.models.single_file.content import content_hash
from flux_engine.settings import SettingsError
from tests.models.single_file.files import FLUX_1, gguf, safetensors, written

LORA = safetensors({"transformer.proj_out.lora_A.weight": (4, 4)})


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """Files whose base is the bundled model."""
    models = tmp_path / "volume" / "models"
    (models / "owner--repo" / "split").mkdir(parents=True)
    written(models / "mine.safetensors", safetensors(FLUX_1))
    written(models / "small.gguf", gguf(FLUX_1))
    written(models / "civitai-691639.safetensors", safetensors(FLUX_1))
    written(models / "owner--repo" / "split" / "flux.gguf", gguf(FLUX_1))
    written(models / "style.safetensors", LORA)
    written(tmp_path / "outside.safetensors", safetensors(FLUX_1))
    (models / "link.safetensors").symlink_to(tmp_path / "outside.safetensors")
    return tmp_path / "volume"


def served(configured: str | None, volume: Path) -> ServedModels:
    return ServedModels(configured, volume=volume, has_gpu=False)


@pytest.mark.parametrize(
    ("name", "identity"),
    [
        ("mine.safetensors", "mine.safetensors"),
        ("mine", "mine.safetensors"),
        ("small.gguf", "small.gguf"),
        ("civitai:691639", "civitai:691639"),
        ("owner/repo:split/flux.gguf", "owner/repo:split/flux.gguf"),
    ],
)
def test_a_job_and_flux_model_name_a_file_alike(name: str, identity: str, volume: Path) -> None:
    spec = served(None, volume).named(name)
    assert (spec.id, spec.limits.id, spec.is_single_file) == (identity, identity, True)
    own = served(name, volume)
    assert own.default() == spec
    assert own.ids()[0] == identity
    assert own.named(identity) == own.named(name) == spec
    assert own.has_weights(spec)


def test_flux_model_may_be_a_path(volume: Path, tmp_path: Path) -> None:
    own = served(str(tmp_path / "outside.safetensors"), volume)
    assert own.default().id == "outside.safetensors"
    assert own.weights(own.default()).revision.startswith(content_hash(tmp_path / "outside.safetensors", volume=volume))
    assert served("models/mine.safetensors", volume).default().id == "mine.safetensors"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("style.safetensors", "`style.safetensors` is a LoRA; put it into the folder `loras`"),
        ("other.safetensors", "has no `other.safetensors`"),
        ("old.ckpt", "has no `old.ckpt`"),
        ("civitai:1", "`civitai:1` is not on this endpoint's volume; put it there with"),
        ("owner/repo:no.gguf", "`owner/repo:no.gguf` is not on this endpoint's volume"),
        ("https://huggingface.co/a/b/resolve/main/c.safetensors", "a model is not fetched during a job"),
        ("link.safetensors", "has no `link.safetensors`"),
    ],
)
def test_a_name_that_can_only_mean_a_file_says_what_is_wrong(name: str, said: str, volume: Path) -> None:
    with pytest.raises(ModelUnavailable) as refusal:
        served(None, volume).named(name)
    assert said in refusal.value.message
    assert str(volume) not in refusal.value.message


@pytest.mark.parametrize(
    "name", ["../outside.safetensors", "/etc/passwd", "models/mine.safetensors", "sdxl", "a/b", ""]
)
def test_a_job_names_no_path(name: str, volume: Path) -> None:
    assert served(None, volume).find(name) is None


def test_files_of_models_are_listed_and_others_are_not(volume: Path) -> None:
    listed = [name for name in served(None, volume).ids() if "." in name or ":" in name]
    files = {"mine.safetensors", "small.gguf", "civitai-691639.safetensors", "owner/repo:split/flux.gguf"}
    assert files <= set(listed)
    assert "style.safetensors" not in listed
    assert "link.safetensors" not in listed


@pytest.mark.parametrize(
    ("configured", "said"),
    [
        ("style.safetensors", "is a LoRA"),
        ("models/style.safetensors", "is a LoRA"),
        ("https://civitai.com/models/1", "not fetched during a job"),
    ],
)
def test_a_file_that_can_never_be_served_stops_the_worker(configured: str, said: str, volume: Path) -> None:
    with pytest.raises(SettingsError, match=said):
        served(configured, volume)


@pytest.mark.parametrize("configured", ["later.safetensors", "owner/repo:later.gguf", "civitai:7"])
def test_a_file_that_is_not_there_yet_is_served_once_it_is(configured: str, volume: Path) -> None:
    own = served(configured, volume)
    with pytest.raises(ModelUnavailable, match=r"fetch_models\.py"):
        own.default()
    place = {"later.safetensors": "later.safetensors", "civitai:7": "civitai-7.safetensors"}
    is_gguf = configured.endswith("gguf")
    path = volume / "models" / place.get(configured, "owner--repo/later.gguf")
    written(path, gguf(FLUX_1) if is_gguf else safetensors(FLUX_1))
    assert own.default().id == configured


def test_another_file_of_the_same_name_is_another_revision(volume: Path) -> None:
    own = served(None, volume)
    spec = own.named("mine.safetensors")
    before = own.weights(spec).revision
    assert own.knows_weights(spec)
    assert own.weights(spec).revision == before
    path = volume / "models" / "mine.safetensors"
    first = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    while path.stat().st_ctime_ns == first.st_ctime_ns:  # a file system's clock may go in steps of 10 ms
        path.write_bytes(bytes(content))
        os.utime(path, ns=(first.st_mtime_ns, first.st_mtime_ns))  # as a copy with its times would be
    assert not own.knows_weights(spec)
    assert own.weights(spec).revision != before
    assert served(None, volume).weights(spec).revision == own.weights(spec).revision


def test_a_hash_is_kept_on_the_volume(volume: Path) -> None:
    path = volume / "models" / "mine.safetensors"
    first = content_hash(path, volume=volume)
    assert len(list((volume / "flux-engine" / "sha256").iterdir())) == 1
    assert content_hash(path, volume=volume) == first
