"""Fetching a model to the volume, from a stand-in for the hub."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flux_engine.models.beside.content_filter import USUAL, find_filter
from flux_engine.models.catalog import find
from flux_engine.models.loading import Source, load_tuned
from flux_engine.models.planning.device import read_device
from flux_engine.models.planning.optimizer import ModelOptimizer
from flux_engine.models.planning.plan import Preferences
from flux_engine.models.weights import REVISION_FILE, find_weights
from tests.builder.hub import COMMIT, hub
from tests.models.tiny_flux import save_random_flux
from tests.servers import free_port

ROOT = Path(__file__).parents[2]
REPOSITORY = "someone/small-flux"
FILES = {
    "model_index.json": b'{"_class_name": "FluxPipeline"}',
    "transformer/config.json": b"{}",
    "transformer/diffusion_pytorch_model.safetensors": os.urandom(50_000),
    "flux1-single-file.safetensors": b"the whole model once more",
    "README.md": b"# A model",
}


def fetch(url: str, volume: Path, *arguments: str, token: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_ENDPOINT": url, "HF_TOKEN": token, "HF_HOME": str(volume / "home")}
    environment |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, str(ROOT / "builder" / "fetch_models.py"), *arguments, "--volume", str(volume)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)


def test_a_model_is_fetched_checked_and_found(tmp_path: Path) -> None:
    with hub(REPOSITORY, FILES) as url:
        done = fetch(url, tmp_path, REPOSITORY)
        assert done.returncode == 0, done.stderr
    found = find_weights(REPOSITORY, tmp_path)
    assert found.revision == COMMIT
    assert Path(done.stdout.strip()) == found.folder
    for name in list(FILES)[:3]:
        assert (found.folder / name).read_bytes() == FILES[name]
    assert not (found.folder / "flux1-single-file.safetensors").exists()
    assert not list(tmp_path.glob("models/*.partial"))


def test_the_usual_content_filter_is_fetched_and_found(tmp_path: Path) -> None:
    files = {
        "config.json": b'{"id2label": {"0": "normal", "1": "nsfw"}}',
        "preprocessor_config.json": b"{}",
        "model.safetensors": os.urandom(5_000),
        "pytorch_model.bin": b"a pickle",
    }
    with hub(USUAL, files) as url:
        done = fetch(url, tmp_path, USUAL)
        assert done.returncode == 0, done.stderr
    assert find_filter(USUAL, volume=tmp_path, threshold=0.5, labels=()).labels == ("nsfw",)
    assert not list(tmp_path.rglob("pytorch_model.bin"))


BESIDE = {  # by name: its repository, the files there that are fetched, and where the first of them lies then
    "RealESRGAN_x4": ("ai-forever/Real-ESRGAN", ("RealESRGAN_x4.pth",), "upscale_models/RealESRGAN_x4.pth"),
    "4x-UltraSharp": ("Kim2091/UltraSharp", ("4x-UltraSharp.pth",), "upscale_models/4x-UltraSharp.pth"),
    "FLUX.1-ControlNet-Union-Pro": (
        "Shakker-Labs/FLUX.1-dev-ControlNet-Union-Pro",
        ("config.json", "diffusion_pytorch_model.safetensors"),
        "controlnets/FLUX.1-ControlNet-Union-Pro/config.json",
    ),
    "Depth-Anything-V2-Small": (
        "depth-anything/Depth-Anything-V2-Small-hf",
        ("config.json", "preprocessor_config.json", "model.safetensors"),
        "preprocessors/Depth-Anything-V2-Small/config.json",
    ),
}


ONE_OF_EACH_KIND = [  # a file, and a folder
    pytest.param(name, marks=() if name in ("RealESRGAN_x4", "FLUX.1-ControlNet-Union-Pro") else pytest.mark.slow)
    for name in BESIDE
]


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_networks_beside_models_are_fetched_once(tmp_path: Path, name: str) -> None:
    repository, names, place = BESIDE[name]
    files = {file: os.urandom(2_000) for file in names} | {"README.md": b"more"}
    with hub(repository, files) as url:
        done = fetch(url, tmp_path, name)
        assert done.returncode == 0, done.stderr
    fetched = tmp_path / place
    told = Path(done.stdout.strip())
    assert told in (fetched, fetched.parent)
    assert fetched.read_bytes() == files[names[0]]
    folder = fetched.parent
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)  # nothing of the download is left beside it
    again = fetch(url, tmp_path, name)  # the hub has gone
    assert (again.returncode, again.stdout) == (0, done.stdout), again.stderr
    listed = fetch(url, tmp_path, "--list").stdout
    (line,) = (line for line in listed.splitlines() if line.startswith(name + " "))
    assert line.endswith("on the volume")
    with hub(repository, files | {names[0]: b"newer"}) as url:
        assert fetch(url, tmp_path, name, "--force").returncode == 0
    assert fetched.read_bytes() == b"newer"


@pytest.mark.parametrize("name", ONE_OF_EACH_KIND)
def test_a_network_that_cannot_be_fetched_is_not_there(tmp_path: Path, name: str) -> None:
    repository, names, place = BESIDE[name]
    gated = dict.fromkeys(names, b"weights")
    with hub(repository, gated, token="hf_right") as url:
        refused = fetch(url, tmp_path, name)
    assert (refused.returncode, "accept its licence" in refused.stderr) == (1, True), refused.stderr
    with hub(repository, {}) as url:
        missing = fetch(url, tmp_path, name)
    assert (missing.returncode, "does not exist" in missing.stderr) == (1, True), missing.stderr
    away = fetch(f"http://127.0.0.1:{free_port()}", tmp_path, name)
    assert away.returncode == 1
    assert "the download stopped" in away.stderr.splitlines()[-1]  # after what the hub's client says of its retries
    assert not (tmp_path / place).exists()
    with hub(repository, gated, token="hf_right") as url:
        assert fetch(url, tmp_path, name, token="hf_right").returncode == 0
    assert (tmp_path / place).read_bytes() == b"weights"


def test_an_interrupted_download_is_not_taken_for_a_model_and_resumes(tmp_path: Path) -> None:
    partial = tmp_path / "models" / "someone--small-flux.partial"
    (partial / "transformer").mkdir(parents=True)
    (partial / "model_index.json").write_bytes(FILES["model_index.json"])
    with hub(REPOSITORY, FILES) as url:
        assert fetch(url, tmp_path, REPOSITORY).returncode == 0
    assert find_weights(REPOSITORY, tmp_path).revision == COMMIT


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    with hub(REPOSITORY, FILES, lies=True) as url:
        done = fetch(url, tmp_path, REPOSITORY)
    assert done.returncode == 1
    assert "is damaged and was removed" in done.stderr
    assert not (tmp_path / "models" / "someone--small-flux").exists()


def test_a_gated_model_asks_for_a_token(tmp_path: Path) -> None:
    with hub(REPOSITORY, FILES, token="hf_right") as url:
        refused = fetch(url, tmp_path, REPOSITORY)
        assert refused.returncode == 1
        assert "accept its licence" in refused.stderr
        assert fetch(url, tmp_path, REPOSITORY, token="hf_right").returncode == 0


@pytest.mark.parametrize(("name", "message"), [("nothing/here", "does not exist"), ("no-such-model", "neither in the")])
def test_what_does_not_exist_is_said(tmp_path: Path, name: str, message: str) -> None:
    with hub(REPOSITORY, FILES) as url:
        done = fetch(url, tmp_path, name)
    assert done.returncode == 1
    assert message in done.stderr


def test_without_a_network_it_says_so_in_one_line(tmp_path: Path) -> None:
    done = fetch(f"http://127.0.0.1:{free_port()}", tmp_path, "someone/flux")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "the hub does not answer" in done.stderr
    assert "check the network" in done.stderr


def test_the_list_names_sizes_and_licences(tmp_path: Path) -> None:
    done = fetch("http://127.0.0.1:9", tmp_path, "--list")
    assert done.returncode == 0
    line = next(line for line in done.stdout.splitlines() if "FLUX.1-dev" in line)
    assert "31.4 GiB" in line
    assert "needs HF_TOKEN" in line


def test_a_quantised_checkpoint_is_made_for_the_workers_to_come(tmp_path: Path) -> None:
    spec = find("FLUX.1-dev")
    assert spec is not None
    folder = save_random_flux(tmp_path / "models" / "black-forest-labs--FLUX.1-dev")
    (folder / REVISION_FILE).write_text(COMMIT + "\n")
    wanted = ("FLUX.1-dev", "--quantize", "--profile", "memory")

    first = fetch("http://127.0.0.1:9", tmp_path, *wanted)
    assert (first.returncode, "made in" in first.stdout) == (0, True), first.stderr
    again = fetch("http://127.0.0.1:9", tmp_path, *wanted)
    assert (again.returncode, "was there" in again.stdout) == (0, True), again.stderr

    plan = ModelOptimizer().plan(read_device(), spec, Preferences(profile="memory"))
    tuned = load_tuned(spec, Source(folder=folder, revision=COMMIT, volume=tmp_path), plan, device="cpu")
    assert tuned.is_from_checkpoint
    assert str(tuned.checkpoint) in first.stdout


def test_what_cannot_be_quantised_is_said(tmp_path: Path) -> None:
    folder = save_random_flux(tmp_path / "models" / "someone--fine-tune")
    (folder / REVISION_FILE).write_text(COMMIT + "\n")
    done = fetch("http://127.0.0.1:9", tmp_path, "someone/fine-tune", "--quantize")
    assert done.returncode == 1
    assert "not in the catalogue" in done.stderr


def test_flux_3_comes_with_its_prompt_upsampler(tmp_path: Path) -> None:
    spec = find("FLUX.3-klein")
    assert spec is not None
    assert spec.upsampler_id is not None
    chat_model = {"config.json": b"{}", "model.safetensors": os.urandom(100), "tokenizer.json": b"{}", "notes.md": b"x"}
    with hub(spec.upsampler_id, chat_model) as url:
        done = fetch(url, tmp_path, "FLUX.3-klein")
    assert f"{spec.id} does not exist" in done.stderr  # on this hub
    folder = tmp_path / "models" / spec.upsampler_id.replace("/", "--")
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == sorted(
        [*list(chat_model)[:3], REVISION_FILE]
    )
    blocks = {name: data for name, data in FILES.items() if name != "model_index.json"}
    blocks["modular_model_index.json"] = b'{"_class_name": "Flux3DistilledModularPipeline"}'
    with hub(spec.id, blocks) as url:
        assert fetch(url, tmp_path, "FLUX.3-klein").returncode == 0  # and the upsampler is not fetched again
    assert find_weights(spec.id, tmp_path).revision == COMMIT
