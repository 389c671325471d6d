"""Put a model of the catalogue on the volume.

    python builder/fetch_models.py FLUX.1-schnell --volume /runpod-volume
    python builder/fetch_models.py FLUX.1-dev --volume /runpod-volume --quantize
    python builder/fetch_models.py owner/repo:flux1-dev-Q8_0.gguf      # one file of the hub
    python builder/fetch_models.py civitai:VERSION_ID                  # of Civitai
    python builder/fetch_models.py https://huggingface.co/owner/repo/resolve/main/file.safetensors
    python builder/fetch_models.py RealESRGAN_x4                      # an upscaler, for `upscale`
    python builder/fetch_models.py FLUX.1-ControlNet-Union-Pro        # a ControlNet, for `control`
    python builder/fetch_models.py Depth-Anything-V2-Small            # makes depth maps for it
    python builder/fetch_models.py Falconsai/nsfw_image_detection      the usual classifier for CONTENT_FILTER
    python builder/fetch_models.py --list

The download resumes where it was interrupted, every file's size is checked against the hub's and large files by
their SHA-256, and the folder appears under its own name only when all of it is there. Gated models need HF_TOKEN.
A single file is checked to be a FLUX model, and what FLUX_MODEL and `model` of a job call it is printed; see
docs/models.md.

`--quantize` also makes the quantised checkpoint that the plan for this machine's GPU asks for, so that no worker has
to: run it on a Pod with the GPU of the endpoint. Where the plan keeps the weights as they are, it says so.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a file, not as a module

from builder.fetch_file import FetchError, fetch_file, means_file
from flux_engine.inputs.lora_sites import LoraSites
from flux_engine.inputs.upscalers import UPSCALER_FOLDER
from flux_engine.models import catalog
from flux_engine.models.beside.content_filter import USUAL
from flux_engine.models.beside.controlnets import CONTROLNET_FOLDER
from flux_engine.models.beside.depth import PREPROCESSOR_FOLDER
from flux_engine.models.catalog import ModelSpec
from flux_engine.models.checkpoint import Snapshot, write_checkpoint
from flux_engine.models.loading import Source, load_tuned
from flux_engine.models.planning.device import read_device
from flux_engine.models.planning.optimizer import ModelOptimizer
from flux_engine.models.planning.plan import PROFILES, Preferences
from flux_engine.models.single_file.places import SUFFIXES
from flux_engine.models.single_file.shelf import FileShelf
from flux_engine.models.weights import INDEXES, REVISION_FILE, revision_of
from flux_engine.settings import Profile, Settings
from flux_engine.units import GIB

PATTERNS: Final = (*INDEXES, "*/*.json", "*/*.safetensors", "*/*.txt", "*/*.model", "*/*.jinja", "LICENSE*")
UPSAMPLER_PATTERNS: Final = ("*.json", "*.safetensors", "*.txt", "*.jinja", "LICENSE*")  # transformers' own layout
FILTER_PATTERNS: Final = ("*.json", "model.safetensors", "LICENSE*")
UPSCALERS: Final[dict[str, tuple[str, str]]] = {  # by name: repository and licence; the file is name.pth
    "RealESRGAN_x2": ("ai-forever/Real-ESRGAN", "BSD-3-Clause"),
    "RealESRGAN_x4": ("ai-forever/Real-ESRGAN", "BSD-3-Clause"),
    "4x-UltraSharp": ("Kim2091/UltraSharp", "CC BY-NC-SA 4.0, non-commercial"),
}
CONTROLNETS: Final[dict[str, tuple[str, str]]] = {  # by name: repository and licence
    "FLUX.1-ControlNet-Union-Pro": ("Shakker-Labs/FLUX.1-dev-ControlNet-Union-Pro", "FLUX.1-dev non-commercial"),
}
CONTROLNET_FILES: Final = ("config.json", "diffusion_pytorch_model.safetensors")
DEPTHS: Final[dict[str, tuple[str, str]]] = {  # by name: repository and licence
    "Depth-Anything-V2-Small": ("depth-anything/Depth-Anything-V2-Small-hf", "Apache-2.0"),
    "Depth-Anything-V2-Large": ("depth-anything/Depth-Anything-V2-Large-hf", "CC BY-NC 4.0, non-commercial"),
}
DEPTH_FILES: Final = ("config.json", "preprocessor_config.json", "model.safetensors")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="a name of the catalogue, a Hugging Face id, or a single file")
    parser.add_argument("--volume", type=Path, default=Path(os.environ.get("MODEL_VOLUME", "/runpod-volume")))
    parser.add_argument("--revision", default="main", help="branch, tag or commit")
    parser.add_argument("--force", action="store_true", help="fetch again what is already there")
    parser.add_argument("--list", action="store_true", help="the catalogue, and what is on the volume")
    parser.add_argument("--quantize", action="store_true", help="make the quantised checkpoint for this GPU too")
    parser.add_argument("--profile", choices=PROFILES, default="balanced", help="of the plan, for --quantize")
    options = parser.parse_args(arguments)
    if options.list or options.model is None:
        _print_catalogue(options.volume)
        return 0
    try:
        if means_file(options.model):
            sites = LoraSites.from_settings(Settings.from_environment(os.environ))
            fetched = fetch_file(
                options.model, options.volume, sites=sites, revision=options.revision, force=options.force
            )
            sys.stdout.write(f"{fetched.path}\nFLUX_MODEL={fetched.name}\n")
            return 0
        folder = fetch(options.model, options.volume, revision=options.revision, force=options.force)
        if options.quantize:
            sys.stdout.write(quantize(options.model, folder, options.volume, profile=options.profile) + "\n")
    except FetchError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{folder}\n")
    return 0


def fetch(model: str, volume: Path, *, revision: str = "main", force: bool = False) -> Path:
    """Download `model`, with its prompt upsampler where it has one, and return its folder, or the file of an upscaler.

    Raises FetchError.
    """
    if model in CONTROLNETS:
        folder = volume / CONTROLNET_FOLDER / model
        return _fetch_folder(CONTROLNETS[model][0], folder, CONTROLNET_FILES, force=force)
    if model in DEPTHS:
        return _fetch_folder(DEPTHS[model][0], volume / PREPROCESSOR_FOLDER / model, DEPTH_FILES, force=force)
    if model in UPSCALERS:
        return _fetch_upscaler(model, volume, force=force)
    spec = catalog.find(model)
    repository = spec.id if spec is not None else model
    if repository.count("/") != 1:
        raise FetchError(f"{model} is neither in the catalogue (see --list) nor a Hugging Face id (owner/name)")
    if spec is not None and spec.upsampler_id is not None:
        _fetch(spec.upsampler_id, volume, "main", UPSAMPLER_PATTERNS, force=force)
    patterns = FILTER_PATTERNS if repository == USUAL else PATTERNS
    return _fetch(repository, volume, revision, patterns, force=force)


def _fetch(repository: str, volume: Path, revision: str, patterns: Sequence[str], *, force: bool) -> Path:
    folder = volume / "models" / repository.replace("/", "--")
    if (folder / REVISION_FILE).is_file() and not force:
        return folder
    files, commit = _files_of(repository, revision, patterns)
    partial = folder.with_name(folder.name + ".partial")
    _check_space(partial, files)
    _download(repository, commit, partial, patterns)
    _check_files(partial, files)
    (partial / REVISION_FILE).write_text(commit + "\n")
    if folder.exists():
        for path in folder.iterdir():
            if path.suffix in SUFFIXES:
                path.rename(partial / path.name)  # a single file of the repository, fetched by its name
        shutil.rmtree(folder)
    os.replace(partial, folder)
    return folder


def _fetch_folder(repository: str, folder: Path, files: Sequence[str], *, force: bool) -> Path:
    if folder.is_dir() and not force:
        return folder
    partial = folder.with_name(f".{folder.name}.partial")
    with _downloading(repository):
        from huggingface_hub import hf_hub_download

        for file in files:
            hf_hub_download(repository, file, local_dir=partial, token=_token())
    shutil.rmtree(partial / ".cache", ignore_errors=True)
    if folder.is_dir():
        shutil.rmtree(folder)
    os.replace(partial, folder)
    return folder


def _fetch_upscaler(name: str, volume: Path, *, force: bool) -> Path:
    file = volume / UPSCALER_FOLDER / f"{name}.pth"
    if file.is_file() and not force:
        return file
    partial = file.parent / f".{name}.partial"
    with _downloading(UPSCALERS[name][0]):
        from huggingface_hub import hf_hub_download

        fetched = hf_hub_download(UPSCALERS[name][0], file.name, local_dir=partial, token=_token())
    os.replace(fetched, file)
    shutil.rmtree(partial)
    return file


def quantize(model: str, folder: Path, volume: Path, *, profile: Profile) -> str:
    """Make the quantised checkpoint of the weights in `folder` for this machine; says what was made. Raises FetchError.

    It is the one that a worker with this GPU and profile loads, and that it would make at its first start.
    """
    spec = catalog.find(model)
    if spec is None:
        raise FetchError(f"{model} is not in the catalogue (see --list): there is no plan to quantise it by")
    device = read_device()
    plan = ModelOptimizer().plan(device, spec, Preferences(profile=profile))
    if not plan.is_quantised:
        return f"nothing to quantise: {spec.name} runs in {plan.dtype} on this {device.name} ({plan.line()})"
    began = time.perf_counter()
    source = Source(folder=folder, revision=revision_of(folder), volume=volume)
    tuned = load_tuned(spec, source, plan, device="cpu" if device.is_cpu else "cuda")
    if tuned.checkpoint is None:
        return f"nothing to quantise: {spec.name} runs as it is ({tuned.applied.to_dict()['refused']})"
    if tuned.unsaved is not None:
        _write(tuned.checkpoint, tuned.unsaved)
    before = sum(_weight_bytes(folder / made.name) for made in tuned.checkpoint.iterdir())
    after = _weight_bytes(tuned.checkpoint)
    how = "was there" if tuned.unsaved is None else f"made in {time.perf_counter() - began:.0f} s"
    return f"{tuned.checkpoint}: {before / GIB:.3f} GiB are now {after / GIB:.3f} GiB, {how}"


def _write(checkpoint: Path, snapshot: Snapshot) -> None:
    try:
        is_written = write_checkpoint(checkpoint, snapshot)
    except OSError as error:
        raise FetchError("the quantised checkpoint could not be written: make room on the volume") from error
    if not is_written and not checkpoint.is_dir():
        raise FetchError("a worker is writing this checkpoint at the moment; wait for it, or try again in 10 minutes")


def _weight_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


def _files_of(repository: str, revision: str, patterns: Sequence[str]) -> tuple[dict[str, Any], str]:
    """What the hub says of the files that a pipeline is loaded from, by name, and the commit they belong to."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]

    try:
        info = HfApi(token=_token()).model_info(repository, revision=revision, files_metadata=True)
    except HfHubHTTPError as error:
        raise FetchError(_explained(repository, error)) from error
    except (HTTPError, OSError) as error:
        raise FetchError(
            f"the hub does not answer ({type(error).__name__}); check the network and try again"
        ) from error
    files = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    wanted = {name for name in files if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)}
    if patterns is PATTERNS and not wanted & set(INDEXES):
        raise FetchError(f"{repository} is not a diffusers repository: it has no model_index.json")
    return {name: files[name] for name in wanted}, str(info.sha)


def _explained(repository: str, error: Any) -> str:
    status = error.response.status_code if error.response is not None else 0
    if status in (401, 403):
        return f"{repository} is gated: accept its licence on its page, then set HF_TOKEN to a token of that account"
    if status == 404:
        return f"{repository} does not exist, or HF_TOKEN is needed to see it"
    return f"the hub answered {status} for {repository}; try again"


def _token() -> str | bool:
    return os.environ.get("HF_TOKEN") or False


def _check_space(partial: Path, files: dict[str, Any]) -> None:
    partial.mkdir(parents=True, exist_ok=True)
    present = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
    needed = sum(sibling.size or 0 for sibling in files.values()) - present
    free = shutil.disk_usage(partial).free
    if needed > free:
        raise FetchError(f"{needed / GIB:.1f} GiB are needed and {free / GIB:.1f} GiB are free; enlarge the volume")


def _download(repository: str, commit: str, partial: Path, patterns: Sequence[str]) -> None:
    from huggingface_hub import snapshot_download

    with _downloading(repository):
        snapshot_download(
            repository,
            revision=commit,
            local_dir=partial,
            allow_patterns=list(patterns),
            token=_token(),
            max_workers=8,
        )


@contextmanager
def _downloading(repository: str) -> Iterator[None]:
    """What the hub's client raises, as FetchError."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]

    try:
        yield
    except HfHubHTTPError as error:
        raise FetchError(_explained(repository, error)) from error
    except (HTTPError, OSError) as error:
        raise FetchError(f"the download stopped ({type(error).__name__}); the same command resumes it") from error


def _check_files(partial: Path, files: dict[str, Any]) -> None:
    for name, sibling in sorted(files.items()):
        path = partial / name
        is_whole = path.is_file() and (sibling.size is None or path.stat().st_size == sibling.size)
        if is_whole and sibling.lfs is not None:
            is_whole = _sha256(path) == sibling.lfs.sha256
        if not is_whole:
            path.unlink(missing_ok=True)
            raise FetchError(f"{name} is damaged and was removed; the same command fetches it again")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _print_catalogue(volume: Path) -> None:
    for spec in catalog.CATALOG:
        is_there = (volume / "models" / spec.id.replace("/", "--") / REVISION_FILE).is_file()
        gib = spec.parameters * 2 / GIB
        sys.stdout.write(f"{spec.id:42} {gib:6.1f} GiB  {_state(spec, is_there)}\n")
    for kind, place, known in (
        ("ControlNet", CONTROLNET_FOLDER, CONTROLNETS),
        ("depth maps", PREPROCESSOR_FOLDER, DEPTHS),
    ):
        for name, (_, licence) in known.items():
            is_there = (volume / place / name).is_dir()
            sys.stdout.write(f"{name:42} {kind:11} {'on the volume' if is_there else licence}\n")
    for name in FileShelf(volume).names():
        sys.stdout.write(f"{name:42} {'':6}      a file on the volume\n")
    for name, (_, licence) in UPSCALERS.items():
        is_there = (volume / UPSCALER_FOLDER / f"{name}.pth").is_file()
        sys.stdout.write(f"{name:42} upscaler    {'on the volume' if is_there else licence}\n")


def _state(spec: ModelSpec, is_there: bool) -> str:
    if is_there:
        return "on the volume"
    return f"{spec.licence}{', gated: needs HF_TOKEN' if spec.is_gated else ''}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
